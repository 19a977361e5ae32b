//! The pool of worker processes: started when there is work, ended when idle, killed over a limit.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use convergio_domain::id::TenantId;
use tokio::sync::oneshot;

use crate::attempts::{Attempt, Attempts};
use crate::error::EvaluationError;
use crate::gate::TenantGate;
use crate::job::{EvaluationJob, JobResult};
use crate::process::{WorkerDeath, WorkerProcess, WorkerReply};
use crate::{EvaluationBackend, wire};

pub use crate::process::WorkerProgram;

/// Deaths of workers that one job may cause. More than one, since memory that an earlier job left
/// behind may have killed the worker.
const DEATHS_LIMIT: u32 = 3;
/// Time that an idle worker is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Fewest workers: with two, one long job does not keep others from a short one.
const MIN_WORKERS: usize = 2;

/// Limits of a pool and of its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most workers at once.
    pub workers: usize,
    /// Longest time of one job, both wall clock and processor time.
    pub timeout: Duration,
    /// Memory of one worker in MiB.
    pub memory_mib: u64,
    /// Most waiting jobs of one tenant.
    pub waiting_per_tenant: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            workers: cores.max(MIN_WORKERS),
            timeout: Duration::from_secs(10),
            memory_mib: 512,
            waiting_per_tenant: 1024,
        }
    }
}

/// An [`EvaluationBackend`] of worker processes.
pub struct WorkerPool {
    shared: Arc<PoolState>,
}

struct PoolState {
    program: WorkerProgram,
    limits: PoolLimits,
    gate: Arc<TenantGate>,
    attempts: Arc<Attempts>,
    idle: Mutex<Vec<(WorkerProcess, Instant)>>,
    starter: OnceLock<io::Result<WorkerStarter>>,
}

/// Handle of the thread that starts workers. Workers are killed when the thread that started them
/// ends (`PR_SET_PDEATHSIG`), and a thread of the runtime may end before the process does.
struct WorkerStarter(mpsc::Sender<oneshot::Sender<io::Result<WorkerProcess>>>);

fn spawn_starter_thread(program: &WorkerProgram) -> io::Result<WorkerStarter> {
    let (sender, orders) = mpsc::channel::<oneshot::Sender<io::Result<WorkerProcess>>>();
    let (program, runtime) = (program.clone(), tokio::runtime::Handle::current());
    let start_all = move || {
        let _entered = runtime.enter();
        for order in orders {
            // An order whose receiver has gone: the worker is dropped, which kills it.
            drop(order.send(WorkerProcess::start(&program)));
        }
    };
    std::thread::Builder::new().name("evaluations".into()).spawn(start_all)?;
    Ok(WorkerStarter(sender))
}

impl WorkerStarter {
    async fn start(&self) -> io::Result<WorkerProcess> {
        let (order, started) = oneshot::channel();
        let is_gone = || io::Error::other("the thread that starts workers has ended");
        self.0.send(order).map_err(|_| is_gone())?;
        started.await.map_err(|_| is_gone())?
    }
}

impl WorkerPool {
    /// Creates a pool whose workers run a program. Attempts are counted in the folder `attempts`,
    /// if one is given.
    ///
    /// # Errors
    /// The folder cannot be used. The folder cannot be used.
    pub fn new(
        program: WorkerProgram,
        limits: PoolLimits,
        attempts: Option<PathBuf>,
    ) -> io::Result<Self> {
        let shared = PoolState {
            program,
            limits,
            gate: TenantGate::new(limits.workers.max(1), limits.waiting_per_tenant),
            attempts: Attempts::open(attempts)?,
            idle: Mutex::default(),
            starter: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl WorkerProgram {
    /// The running program with these arguments. `/proc/self/exe` starts it even if its file was
    /// replaced since.
    pub fn current_program(arguments: Vec<String>) -> Self {
        let own = Path::new("/proc/self/exe");
        let program = match own.exists() {
            true => own.to_owned(),
            false => std::env::current_exe().unwrap_or_else(|_| own.to_owned()),
        };
        Self { program, arguments }
    }
}

#[async_trait]
impl EvaluationBackend for WorkerPool {
    async fn evaluate_job(
        &self,
        tenant: &TenantId,
        job: &EvaluationJob,
    ) -> Result<JobResult, EvaluationError> {
        let shared = &self.shared;
        let busy = || {
            EvaluationError::try_later("too many evaluations wait already: try again in a moment")
        };
        let _place = shared.gate.acquire_permit(tenant).await.ok_or_else(busy)?;
        // After the gate: a waiting job takes no memory for its bytes.
        let (bytes, _attempt) = prepare_job(Arc::clone(&shared.attempts), job.clone()).await?;
        let mut deaths = 0;
        loop {
            match shared.perform_job(&bytes).await? {
                Ok(reply) => return read_reply(reply).await,
                Err(WorkerDeath::EndedBefore) => {}
                Err(WorkerDeath::TimeLimit) => return Err(time_limit_error(shared.limits)),
                Err(WorkerDeath::Other(how)) => {
                    deaths += 1;
                    tracing::warn!(how, deaths, "an evaluation ended its worker");
                    if deaths == DEATHS_LIMIT {
                        return Err(memory_limit_error(shared.limits));
                    }
                }
            }
        }
    }
}

impl PoolState {
    async fn perform_job(
        self: &Arc<Self>,
        job: &[u8],
    ) -> Result<Result<WorkerReply, WorkerDeath>, EvaluationError> {
        let mut worker = self.take_worker().await?;
        let performed = worker.perform_job(job, self.limits.timeout).await;
        // A worker that died or that announced its end is dropped, never reused.
        if performed.as_ref().is_ok_and(|reply| !reply.is_last) {
            self.keep_idle(worker);
        }
        Ok(performed)
    }

    /// Returns the idle worker that worked last, so that surplus ones stay idle and end; else
    /// starts one.
    async fn take_worker(&self) -> Result<WorkerProcess, EvaluationError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some((worker, _)) = idle {
            return Ok(worker);
        }
        let started = match self.starter.get_or_init(|| spawn_starter_thread(&self.program)) {
            Ok(starter) => starter.start().await,
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        started.map_err(|error| {
            tracing::error!(%error, "a worker process cannot be started");
            EvaluationError::try_later("a worker process cannot be started now: try again later")
        })
    }

    fn keep_idle(self: &Arc<Self>, worker: WorkerProcess) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((worker, Instant::now()));
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            if let Some(shared) = shared.upgrade() {
                shared.drop_idle_workers();
            }
        });
    }

    fn drop_idle_workers(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE_TIMEOUT);
    }
}

/// Serialises the job, and marks its attempt as in progress.
// Off the runtime's threads: a job may be megabytes, and marking writes a file.
async fn prepare_job(
    attempts: Arc<Attempts>,
    job: EvaluationJob,
) -> Result<(Vec<u8>, Attempt), EvaluationError> {
    let prepared = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        wire::write_job(&job, &mut bytes).map_err(|error| {
            EvaluationError::limit_exceeded(format!(
                "what is to be evaluated cannot be written: {error}"
            ))
        })?;
        let attempt = attempts.begin_attempt(job.job_digest())?;
        Ok((bytes, attempt))
    });
    prepared.await.map_err(|error| EvaluationError::try_later(error.to_string()))?
}

async fn read_reply(reply: WorkerReply) -> Result<JobResult, EvaluationError> {
    let read = tokio::task::spawn_blocking(move || wire::read_answer(&reply.bytes));
    let read = read.await.map_err(|error| EvaluationError::try_later(error.to_string()))?;
    read.map_err(|error| {
        EvaluationError::limit_exceeded(format!("the answer cannot be read: {error}"))
    })
}

fn time_limit_error(limits: PoolLimits) -> EvaluationError {
    let seconds = limits.timeout.as_secs_f64();
    EvaluationError::limit_exceeded(format!(
        "it takes longer than {seconds} s: loop over less, or make the schema simpler"
    ))
}

fn memory_limit_error(limits: PoolLimits) -> EvaluationError {
    let memory = limits.memory_mib;
    EvaluationError::limit_exceeded(format!(
        "it takes more than {memory} MiB of memory: yield less, or nest the schema less deeply"
    ))
}
