//! Jobs of the writer thread, and the queue from which it takes them.

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use convergio_domain::stream::StreamKey;

use crate::error::AppendError;
use crate::prepare::Prepared;
use crate::record::Head;

/// A request to the writer thread.
pub(super) enum Job {
    Append(Box<Append>),
    /// Writes commits atomically, each after the previous one of its stream.
    AppendAll {
        /// Commits with their encoded bodies.
        commits: Vec<(Prepared, Vec<u8>)>,
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
    Check {
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
}

/// A commit for the writer, with its encoded body.
pub(super) struct Append {
    pub(super) prepared: Prepared,
    pub(super) body: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Head, AppendError>>,
}

/// Receiving end of the queue, with one job of lookahead.
pub(super) struct Jobs {
    queue: mpsc::Receiver<Job>,
    /// Job that was received while looking for a commit; it comes next.
    kept: Option<Job>,
    /// Runtime for timeouts of the writer thread. Without it the writer does not wait for more
    /// commits.
    clock: Option<Runtime>,
}

impl Jobs {
    /// Creates the queue. Must be called in the writer's thread, since the runtime belongs to it.
    pub(super) fn new(queue: mpsc::Receiver<Job>) -> Self {
        let clock = Builder::new_current_thread().enable_time().build().ok();
        Self { queue, kept: None, clock }
    }

    /// Waits for the next job; `None` once all senders are gone.
    pub(super) fn next(&mut self) -> Option<Job> {
        self.kept.take().or_else(|| self.queue.blocking_recv())
    }

    /// Returns the next commit if it is there or arrives before the deadline. Another job is
    /// postponed.
    pub(super) fn next_append(&mut self, until: Option<Instant>) -> Option<Append> {
        let job = match (self.queue.try_recv(), until, &self.clock) {
            (Ok(job), ..) => Some(job),
            (Err(_), Some(until), Some(clock)) => {
                let next = async { timeout_at(until, self.queue.recv()).await };
                clock.block_on(next).ok().flatten()
            }
            (Err(_), ..) => None,
        };
        match job? {
            Job::Append(append) => Some(*append),
            // A group consists of commits only; the job runs after it.
            other => {
                self.kept = Some(other);
                None
            }
        }
    }
}
