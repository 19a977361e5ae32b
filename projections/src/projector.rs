//! The projector: tails the log and applies it to the read models batch by batch.

use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::{ComponentHealth, EventLog, LogError, Position, Record};
use futures_util::{FutureExt, Stream, StreamExt};
use sqlx::{AnyPool, Connection};
use tokio::sync::{oneshot, watch};

use crate::batch_writer::{BatchWriter, ensure_position};
use crate::error::ProjectionError;
use crate::query::Queries;
use crate::store::{ReadModelStore, StoreCopy};

/// Maximum records applied in one transaction.
const BATCH_LIMIT: usize = 512;
/// Pause before a projector retries, after an error or while another projector holds the store.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Maximum time that a record waits to be committed together with later ones, if no reader waits
/// for it.
const GATHER_TIMEOUT: Duration = Duration::from_millis(50);

/// Records that the tail has ready, at most [`BATCH_LIMIT`].
type RecordChunk = Vec<Result<Arc<Record>, LogError>>;

/// The read models of one store, and the projector that keeps them current.
pub struct Projections {
    store_copy: StoreCopy,
    readers: AnyPool,
    applied_position: watch::Sender<Position>,
    /// Highest position that a reader waits for.
    awaited_position: watch::Sender<Position>,
    health: ComponentHealth,
}

impl Projections {
    /// Opens the store and brings its tables up to date.
    ///
    /// # Errors
    /// The store cannot be used.
    pub async fn open(store: impl Into<ReadModelStore>) -> Result<Self, ProjectionError> {
        Self::open_at(StoreCopy::in_use(store.into())).await
    }

    pub(crate) async fn open_at(store_copy: StoreCopy) -> Result<Self, ProjectionError> {
        // Migrations run on a connection of their own and are committed before anything reads.
        let mut connection = store_copy.open().await?;
        let position = ensure_position(&mut connection).await?;
        // Readers are opened only now: the tables must exist before.
        connection.close().await?;
        let readers = store_copy.connect_readers().await?;
        let (applied, _) = watch::channel(position);
        let (wanted, _) = watch::channel(Position::START);
        Ok(Self {
            store_copy,
            readers,
            applied_position: applied,
            awaited_position: wanted,
            health: ComponentHealth::default(),
        })
    }

    /// Reports to `health` from now on whether the store can be written.
    #[must_use]
    pub fn with_health(self, health: ComponentHealth) -> Self {
        Self { health, ..self }
    }

    /// A handle that queries these read models.
    pub fn query_handle(&self) -> Queries {
        let is_shared = self.store_copy.store.is_shared();
        let (applied_position, awaited_position) =
            (self.applied_position.subscribe(), self.awaited_position.clone());
        Queries::new(self.readers.clone(), applied_position, awaited_position, is_shared)
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
            match self.follow_log(&log, &mut stop).await {
                Ok(()) => return Ok(()),
                // Standing by is normal operation, not a failure.
                Err(ProjectionError::ConcurrentProjector) if self.store_copy.store.is_shared() => {
                    self.health.report_success();
                }
                Err(error) => {
                    self.health.report_failure(&error);
                    if !error.is_transient() {
                        return Err(error);
                    }
                    tracing::error!(%error, "the read models fall behind for now");
                }
            }
            tokio::select! {
                _ = &mut stop => return Ok(()),
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Tails the log from the stored position on a connection of its own, until `stop`.
    async fn follow_log(
        &self,
        log: &Arc<dyn EventLog>,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        let mut writer = BatchWriter::open(&self.store_copy).await?;
        // An empty rest means that the store is current: healthy although no batch was written yet.
        if log.read_all(writer.position(), 1).await?.records.is_empty() {
            self.health.report_success();
        }
        let mut tail = log.tail_all(writer.position()).ready_chunks(BATCH_LIMIT);
        loop {
            let chunk = tokio::select! {
                _ = &mut *stop => None,
                chunk = self.gather_records(writer.position(), &mut tail) => chunk,
            };
            let Some(chunk) = chunk else { return writer.close().await };
            // Errors of the tail end the attempt: records after a gap must not be applied.
            let records = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            writer = writer.apply(&records).await?;
            self.applied_position.send_replace(writer.position());
            self.health.report_success();
        }
    }

    /// The next records, or `None` when the tail has ended. A small chunk waits for more records
    /// unless a reader waits for it; at a shared store readers of other processes are not known, so
    /// it never waits.
    async fn gather_records(
        &self,
        position: Position,
        tail: &mut (impl Stream<Item = RecordChunk> + Unpin),
    ) -> Option<RecordChunk> {
        let mut chunk = tail.next().await?;
        if chunk.len() < BATCH_LIMIT / 2 && !self.store_copy.store.is_shared() {
            let mut awaited_position = self.awaited_position.subscribe();
            let wanted = awaited_position.wait_for(|wanted| *wanted > position);
            // Timeout or a waiting reader: either way the chunk is written now.
            let _waited = tokio::time::timeout(GATHER_TIMEOUT, wanted).await;
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
        let mut writer = BatchWriter::open(&self.store_copy).await?;
        // A batch at a time, since a whole log does not fit into memory.
        loop {
            let page = log.read_all(writer.position(), BATCH_LIMIT).await?;
            if page.records.is_empty() {
                return writer.close().await;
            }
            writer = writer.apply(&page.records).await?;
            self.applied_position.send_replace(writer.position());
            progress(writer.position(), page.tail);
        }
    }

    /// Opens a connection that writes.
    pub(crate) async fn open_writer(&self) -> Result<BatchWriter, ProjectionError> {
        BatchWriter::open(&self.store_copy).await
    }

    /// Closes the readers' connections.
    pub async fn close(&self) {
        self.readers.close().await;
    }
}
