//! The projector: tails the log and applies it to the read models batch by batch.

use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::{ComponentHealth, EventLog, LogError, Position, Record};
use futures_util::{FutureExt, Stream, StreamExt};
use sqlx::{AnyPool, Connection};
use tokio::sync::{oneshot, watch};

use crate::error::ProjectionError;
use crate::page::{Writer, position};
use crate::query::Queries;
use crate::store::{Place, Store};

/// Maximum records applied in one transaction.
const PAGE: usize = 512;
/// Pause before a projector retries, after an error or while another projector holds the store.
const STAND_BY: Duration = Duration::from_secs(1);
/// Maximum time that a record waits to be committed together with later ones, if no reader waits
/// for it.
const GATHER: Duration = Duration::from_millis(50);

/// Records that the tail has ready, at most [`BATCH_LIMIT`].
type Chunk = Vec<Result<Arc<Record>, LogError>>;

/// The read models of one store, and the projector that keeps them current.
pub struct Projections {
    place: Place,
    readers: AnyPool,
    applied: watch::Sender<Position>,
    /// Highest position that a reader waits for.
    wanted: watch::Sender<Position>,
    health: ComponentHealth,
}

impl Projections {
    /// Opens the store and brings its tables up to date.
    ///
    /// # Errors
    /// The store cannot be used.
    pub async fn open(store: impl Into<Store>) -> Result<Self, ProjectionError> {
        Self::open_at(Place::in_use(store.into())).await
    }

    pub(crate) async fn open_at(place: Place) -> Result<Self, ProjectionError> {
        // Migrations run on a connection of their own and are committed before anything reads.
        let mut first = place.open().await?;
        let position = position(&mut first).await?;
        // Readers are opened only now: the tables must exist before.
        first.close().await?;
        let readers = place.readers().await?;
        let (applied, _) = watch::channel(position);
        let (wanted, _) = watch::channel(Position::START);
        Ok(Self { place, readers, applied, wanted, health: ComponentHealth::default() })
    }

    /// Reports to `health` from now on whether the store can be written.
    #[must_use]
    pub fn reporting_to(self, health: ComponentHealth) -> Self {
        Self { health, ..self }
    }

    /// A handle that queries these read models.
    pub fn queries(&self) -> Queries {
        let is_shared = self.place.store.is_shared();
        let (applied, wanted) = (self.applied.subscribe(), self.wanted.clone());
        Queries::new(self.readers.clone(), applied, wanted, is_shared)
    }

    /// Applies what is in the log and tails it until `stop` is fired or dropped. On a shared store
    /// one projector works at a time; the others stand by. While the database is full, or database
    /// or log cannot be reached, it retries on a new connection.
    ///
    /// # Errors
    /// The log is corrupt, the database refuses a row, or a file has another projector.
    pub async fn run(
        &self,
        log: Arc<dyn EventLog>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        loop {
            match self.follow(&log, &mut stop).await {
                Ok(()) => return Ok(()),
                // Standing by is normal operation, not a failure.
                Err(ProjectionError::NotAlone) if self.place.store.is_shared() => {
                    self.health.report_success();
                }
                Err(error) => {
                    self.health.report_failure(&error);
                    if !error.is_passing() {
                        return Err(error);
                    }
                    tracing::error!(%error, "the read models fall behind for now");
                }
            }
            tokio::select! {
                _ = &mut stop => return Ok(()),
                () = tokio::time::sleep(STAND_BY) => {}
            }
        }
    }

    /// Tails the log from the stored position on a connection of its own, until `stop`.
    async fn follow(
        &self,
        log: &Arc<dyn EventLog>,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        let mut writer = Writer::open(&self.place).await?;
        // An empty rest means that the store is current: healthy although no batch was written yet.
        if log.read_all(writer.at(), 1).await?.records.is_empty() {
            self.health.report_success();
        }
        let mut tail = log.tail(writer.at()).ready_chunks(PAGE);
        loop {
            let chunk = tokio::select! {
                _ = &mut *stop => None,
                chunk = self.gather(writer.at(), &mut tail) => chunk,
            };
            let Some(chunk) = chunk else { return writer.close().await };
            // Errors of the tail end the attempt: records after a gap must not be applied.
            let records = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            writer = writer.apply(&records).await?;
            self.applied.send_replace(writer.at());
            self.health.report_success();
        }
    }

    /// The next records, or `None` when the tail has ended. A small chunk waits for more records
    /// unless a reader waits for it; at a shared store readers of other processes are not known, so
    /// it never waits.
    async fn gather(
        &self,
        at: Position,
        tail: &mut (impl Stream<Item = Chunk> + Unpin),
    ) -> Option<Chunk> {
        let mut chunk = tail.next().await?;
        if chunk.len() < PAGE / 2 && !self.place.store.is_shared() {
            let mut wanted = self.wanted.subscribe();
            let wanted = wanted.wait_for(|wanted| *wanted > at);
            // Timeout or a waiting reader: either way the chunk is written now.
            let _waited = tokio::time::timeout(GATHER, wanted).await;
            chunk.extend(tail.next().now_or_never().flatten().into_iter().flatten());
        }
        Some(chunk)
    }

    /// Applies everything that is in the log now, then returns. `progress` is called after each
    /// batch with the applied position and the log's tail.
    ///
    /// # Errors
    /// As [`Projections::run`].
    pub async fn catch_up(
        &self,
        log: &dyn EventLog,
        mut progress: impl FnMut(Position, Position) + Send,
    ) -> Result<(), ProjectionError> {
        let mut writer = Writer::open(&self.place).await?;
        // A batch at a time, since a whole log does not fit into memory.
        loop {
            let page = log.read_all(writer.at(), PAGE).await?;
            if page.records.is_empty() {
                return writer.close().await;
            }
            writer = writer.apply(&page.records).await?;
            self.applied.send_replace(writer.at());
            progress(writer.at(), page.tail);
        }
    }

    /// Opens a connection that writes.
    pub(crate) async fn writer(&self) -> Result<Writer, ProjectionError> {
        Writer::open(&self.place).await
    }

    /// Closes the readers' connections.
    pub async fn close(&self) {
        self.readers.close().await;
    }
}
