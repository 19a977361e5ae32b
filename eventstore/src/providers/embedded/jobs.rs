//! What the writer thread is asked to do, and how it waits for more of it.

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use convergio_domain::stream::StreamKey;

use crate::error::AppendError;
use crate::prepare::Prepared;
use crate::record::Head;

/// What the writer is asked to do.
pub(super) enum Job {
    Append(Box<Append>),
    /// Writes commits, each after the one before it in its stream, all or none.
    AppendAll {
        /// With their packed bodies.
        commits: Vec<(Prepared, Vec<u8>)>,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    /// Empties the payload of this id, which is of this stream; tells whether there was one.
    Erase {
        id: i64,
        stream: StreamKey,
        reply: oneshot::Sender<Result<bool, AppendError>>,
    },
    /// Tells whether the log can be written.
    Check {
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
}

/// A commit on its way to the disk.
pub(super) struct Append {
    pub(super) prepared: Prepared,
    pub(super) body: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Head, AppendError>>,
}

/// The writer's end of the queue.
pub(super) struct Jobs {
    queue: mpsc::Receiver<Job>,
    /// What was taken from the queue too early.
    kept: Option<Job>,
    /// Without one, nothing is waited for.
    clock: Option<Runtime>,
}

impl Jobs {
    /// To be made in the writer's thread.
    pub(super) fn new(queue: mpsc::Receiver<Job>) -> Self {
        let clock = Builder::new_current_thread().enable_time().build().ok();
        Self { queue, kept: None, clock }
    }

    /// Waits for the next job; `None` when nobody can send any more.
    pub(super) fn next(&mut self) -> Option<Job> {
        self.kept.take().or_else(|| self.queue.blocking_recv())
    }

    /// The next commit, if it has come, or comes until then. Other jobs wait.
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
            other => {
                self.kept = Some(other);
                None
            }
        }
    }
}
