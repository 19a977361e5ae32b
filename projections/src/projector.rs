//! Following the log: a page at a time, rows and position in one transaction.

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

/// Records applied in one transaction at most.
const PAGE: usize = 512;
/// How long a projector leaves the work to another one that is ahead of it.
const STAND_BY: Duration = Duration::from_secs(1);
/// How long a record waits for others, so that they are written together, while nobody waits for
/// it.
const GATHER: Duration = Duration::from_millis(50);

/// Records as they come, a page at most at once.
type Chunk = Vec<Result<Arc<Record>, LogError>>;

/// The read models of a store.
pub struct Projections {
    place: Place,
    readers: AnyPool,
    applied: watch::Sender<Position>,
    /// The last position that somebody waits for.
    wanted: watch::Sender<Position>,
    health: ComponentHealth,
}

impl Projections {
    /// Opens the read models; makes their tables.
    ///
    /// # Errors
    /// The store cannot be used.
    pub async fn open(store: impl Into<Store>) -> Result<Self, ProjectionError> {
        Self::open_at(Place::in_use(store.into())).await
    }

    pub(crate) async fn open_at(place: Place) -> Result<Self, ProjectionError> {
        let mut first = place.open().await?;
        let position = position(&mut first).await?;
        first.close().await?;
        let readers = place.readers().await?;
        let (applied, _) = watch::channel(position);
        let (wanted, _) = watch::channel(Position::START);
        Ok(Self { place, readers, applied, wanted, health: ComponentHealth::default() })
    }

    /// The same, reporting there whether it can write.
    #[must_use]
    pub fn reporting_to(self, health: ComponentHealth) -> Self {
        Self { health, ..self }
    }

    /// What reads them.
    pub fn queries(&self) -> Queries {
        let is_shared = self.place.store.is_shared();
        let (applied, wanted) = (self.applied.subscribe(), self.wanted.clone());
        Queries::new(self.readers.clone(), applied, wanted, is_shared)
    }

    /// Applies what is in the log and follows it, until `stop` is fired or dropped. On a shared
    /// store one projector works at a time; the others stand by. While the database has no room, or
    /// database or log cannot be reached, it waits, and goes on by a new connection.
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
                // Another one works: this one does not fail.
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

    /// Follows the log from where the database is now, by a connection of its own, until `stop`.
    async fn follow(
        &self,
        log: &Arc<dyn EventLog>,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        let mut writer = Writer::open(&self.place).await?;
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
            let records = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            writer = writer.apply(&records).await?;
            self.applied.send_replace(writer.at());
            self.health.report_success();
        }
    }

    /// The next records. A few wait for more, unless somebody waits for them; who waits at a shared
    /// store cannot be known.
    async fn gather(
        &self,
        at: Position,
        tail: &mut (impl Stream<Item = Chunk> + Unpin),
    ) -> Option<Chunk> {
        let mut chunk = tail.next().await?;
        if chunk.len() < PAGE / 2 && !self.place.store.is_shared() {
            let mut wanted = self.wanted.subscribe();
            let wanted = wanted.wait_for(|wanted| *wanted > at);
            // Either way they are written now.
            let _waited = tokio::time::timeout(GATHER, wanted).await;
            chunk.extend(tail.next().now_or_never().flatten().into_iter().flatten());
        }
        Some(chunk)
    }

    /// Applies everything that is in the log now.
    ///
    /// # Errors
    /// As [`Projections::run`]. `progress` hears position and tail.
    pub async fn catch_up(
        &self,
        log: &dyn EventLog,
        mut progress: impl FnMut(Position, Position) + Send,
    ) -> Result<(), ProjectionError> {
        let mut writer = Writer::open(&self.place).await?;
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

    /// A connection that writes.
    pub(crate) async fn writer(&self) -> Result<Writer, ProjectionError> {
        Writer::open(&self.place).await
    }

    /// Lets the store go.
    pub async fn close(&self) {
        self.readers.close().await;
    }
}
