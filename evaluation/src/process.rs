//! A worker process as seen by the pool.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::worker::{ALLOCATOR_SETTINGS, WAS_LAST_JOB};

/// Most bytes of a result.
const ANSWER_LIMIT: u64 = 192 << 20;

/// Command that starts a worker.
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    /// Path of the executable.
    pub program: PathBuf,
    /// Arguments that make it run [`crate::worker::run`].
    pub arguments: Vec<String>,
}

/// A worker that waits for a job.
pub(crate) struct WorkerProcess {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

/// Cause of a worker's end during a job.
#[derive(Debug)]
pub(crate) enum WorkerDeath {
    /// It exceeded the limit of wall clock or processor time.
    TimeLimit,
    /// It died of another cause, mostly of its memory limit.
    Other(String),
    /// It had ended before it was given the job, which another worker can do.
    EndedBefore,
}

/// Result of a job as bytes, and whether the worker ends after it.
pub(crate) struct WorkerReply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_last: bool,
}

impl WorkerProcess {
    /// Starts a worker without the pool's environment and files: it has only its two pipes.
    pub(crate) fn start(program: &WorkerProgram) -> io::Result<Self> {
        let mut child = Command::new(&program.program)
            .args(&program.arguments)
            .env_clear()
            .envs(ALLOCATOR_SETTINGS)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| io::Error::other("a worker without pipes"))?;
        Ok(Self { child, stdin, stdout })
    }

    /// Sends a job and reads the result; the worker is killed if it takes longer than `timeout`.
    pub(crate) async fn perform_job(
        &mut self,
        job: &[u8],
        timeout: Duration,
    ) -> Result<WorkerReply, WorkerDeath> {
        // An idle worker may have died since, which no job caused.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return Err(WorkerDeath::EndedBefore);
        }
        match tokio::time::timeout(timeout, self.exchange_frames(job)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(self.classify_death(&error).await),
            Err(_) => {
                let _killed = self.child.kill().await;
                Err(WorkerDeath::TimeLimit)
            }
        }
    }

    async fn exchange_frames(&mut self, job: &[u8]) -> io::Result<WorkerReply> {
        self.stdin.write_all(&(job.len() as u64).to_le_bytes()).await?;
        self.stdin.write_all(job).await?;
        self.stdin.flush().await?;
        let is_last = self.stdout.read_u8().await? == WAS_LAST_JOB;
        let length = self.stdout.read_u64_le().await?;
        // A worker that was taken over by its input must not fill the pool's memory.
        if length > ANSWER_LIMIT {
            return Err(io::Error::other(format!("an answer of {length} bytes")));
        }
        let mut bytes = Vec::new();
        (&mut self.stdout).take(length).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(WorkerReply { bytes, is_last })
    }

    /// Finds the cause of a broken pipe.
    async fn classify_death(&mut self, error: &io::Error) -> WorkerDeath {
        let _killed = self.child.start_kill();
        match self.child.wait().await {
            Ok(status) if hit_processor_time_limit(status) => WorkerDeath::TimeLimit,
            Ok(status) => WorkerDeath::Other(status.to_string()),
            Err(_) => WorkerDeath::Other(error.to_string()),
        }
    }
}

fn hit_processor_time_limit(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(rustix::process::Signal::XCPU.as_raw())
}
