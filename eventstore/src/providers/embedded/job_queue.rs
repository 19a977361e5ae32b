//! Jobs of the writer thread, and the queue from which it takes them.

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use convergio_domain::stream::StreamKey;

use crate::error::AppendError;
use crate::prepare::PreparedCommit;
use crate::record::StreamHead;

/// A request to the writer thread.
pub(super) enum WriteJob {
    Append(Box<AppendJob>),
    /// Writes commits atomically, each after the previous one of its stream.
    AppendAll {
        /// Commits with their encoded bodies.
        commits: Vec<(PreparedCommit, Vec<u8>)>,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    /// Erases the payload with this row id, which belongs to this stream; replies whether it
    /// existed.
    Erase {
        id: i64,
        stream: StreamKey,
        reply: oneshot::Sender<Result<bool, AppendError>>,
    },
    /// Replies whether the log can be written.
    CheckWritable {
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
}

/// A commit for the writer, with its encoded body.
pub(super) struct AppendJob {
    pub(super) prepared: PreparedCommit,
    pub(super) body: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<StreamHead, AppendError>>,
}

/// Receiving end of the queue, with one job of lookahead.
pub(super) struct JobQueue {
    queue: mpsc::Receiver<WriteJob>,
    /// Job that was received while looking for a commit; it comes next.
    postponed: Option<WriteJob>,
    /// Runtime for timeouts of the writer thread. Without it the writer does not wait for more
    /// commits.
    timer: Option<Runtime>,
}

impl JobQueue {
    /// Creates the queue. Must be called in the writer's thread, since the runtime belongs to it.
    pub(super) fn new(queue: mpsc::Receiver<WriteJob>) -> Self {
        let clock = Builder::new_current_thread().enable_time().build().ok();
        Self { queue, postponed: None, timer: clock }
    }

    /// Waits for the next job; `None` once all senders are gone.
    pub(super) fn next_job(&mut self) -> Option<WriteJob> {
        self.postponed.take().or_else(|| self.queue.blocking_recv())
    }

    /// Returns the next commit if it is there or arrives before the deadline. Another job is
    /// postponed.
    pub(super) fn next_append(&mut self, until: Option<Instant>) -> Option<AppendJob> {
        let job = match (self.queue.try_recv(), until, &self.timer) {
            (Ok(job), ..) => Some(job),
            (Err(_), Some(until), Some(clock)) => {
                let next = async { timeout_at(until, self.queue.recv()).await };
                clock.block_on(next).ok().flatten()
            }
            (Err(_), ..) => None,
        };
        match job? {
            WriteJob::Append(append) => Some(*append),
            // A group consists of commits only; the job runs after it.
            other => {
                self.postponed = Some(other);
                None
            }
        }
    }
}
