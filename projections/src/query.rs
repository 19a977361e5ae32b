//! [`Queries`], the handle of all queries over the read models, and the position they have reached.
//! Each noun adds its own queries, every one bound to a tenant; `dump` adds those of all tables.

use std::time::Duration;

use convergio_eventstore::Position;
use sqlx::AnyPool;
use tokio::sync::watch;

use crate::batch_writer::load_position;
use crate::error::Result;

/// Interval at which the position of a shared store is polled while a reader waits for it.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Read access to the read models. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    pub(crate) pool: AnyPool,
    applied_position: watch::Receiver<Position>,
    /// Highest position that a reader waits for; the projector writes at once up to there.
    awaited_position: watch::Sender<Position>,
    is_shared: bool,
}

impl Queries {
    pub(crate) fn new(
        pool: AnyPool,
        applied_position: watch::Receiver<Position>,
        awaited_position: watch::Sender<Position>,
        is_shared: bool,
    ) -> Self {
        Self { pool, applied_position, awaited_position, is_shared }
    }

    /// Position that this process's projector has applied.
    pub fn applied_position(&self) -> Position {
        *self.applied_position.borrow()
    }

    /// Position stored in the database, whichever process wrote it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn read_position(&self) -> Result<Position> {
        load_position(&self.pool).await
    }

    /// Waits until the read models have reached a position. Returns false after `timeout`, or when
    /// the projector or the database is gone.
    pub async fn wait_for_position(&self, position: Position, timeout: Duration) -> bool {
        let mut applied_position = self.applied_position.clone();
        // The projector is woken only by a later position than it knows of already.
        self.awaited_position.send_if_modified(|wanted| {
            let is_later = position > *wanted;
            *wanted = position.max(*wanted);
            is_later
        });
        let reach_position = async {
            if self.is_shared {
                return self.poll_for_position(position).await;
            }
            applied_position.wait_for(|at| *at >= position).await.is_ok()
        };
        tokio::time::timeout(timeout, reach_position).await.unwrap_or(false)
    }

    /// Polls the database for a position: another process may be the one that writes.
    async fn poll_for_position(&self, position: Position) -> bool {
        loop {
            match load_position(&self.pool).await {
                Ok(at) if at >= position => return true,
                Ok(_) => tokio::time::sleep(POLL_INTERVAL).await,
                Err(_) => return false,
            }
        }
    }
}
