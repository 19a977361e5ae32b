//! Following the log: a page at a time, rows and position in one transaction.

use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::{EventLog, LogError, Position, Record};
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
        Ok(Self { place, readers, applied, wanted })
    }

    /// What reads them.
    pub fn queries(&self) -> Queries {
        let is_shared = self.place.store.is_shared();
        let (applied, wanted) = (self.applied.subscribe(), self.wanted.clone());
        Queries::new(self.readers.clone(), applied, wanted, is_shared)
    }

    /// Applies what is in the log and follows it, until `stop` is fired or dropped. On a shared
    /// store one projector works at a time; the others stand by. While the database has no room or
    /// cannot be reached, it waits.
    ///
    /// # Errors
    /// The log is corrupt, the database refuses a row, or a file has another projector.
    pub async fn run(
        &self,
        log: Arc<dyn EventLog>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        let mut writer = None;
        loop {
            match self.work(&mut writer, &log, &mut stop).await {
                Ok(()) => break,
                Err(ProjectionError::NotAlone) if self.place.store.is_shared() => {}
                Err(error) if error.is_passing() => {
                    tracing::error!(%error, "the read models fall behind for now");
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                _ = &mut stop => break,
                () = tokio::time::sleep(STAND_BY) => {}
            }
        }
        match writer {
            Some(writer) => writer.close().await,
            None => Ok(()),
        }
    }

    /// Follows the log with what the database has now: by the same connection as before, or by
    /// another one if that is gone.
    async fn work(
        &self,
        kept: &mut Option<Writer>,
        log: &Arc<dyn EventLog>,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        let mut writer = match kept.take() {
            Some(mut known) => {
                known.renew().await?;
                known
            }
            None => Writer::open(&self.place).await?,
        };
        let followed = self.follow(&mut writer, log, stop).await;
        *kept = Some(writer);
        followed
    }

    async fn follow(
        &self,
        writer: &mut Writer,
        log: &Arc<dyn EventLog>,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        let mut tail = log.tail(writer.at()).ready_chunks(PAGE);
        loop {
            let chunk = tokio::select! {
                _ = &mut *stop => return Ok(()),
                chunk = self.gather(writer.at(), &mut tail) => chunk,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let records = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            writer.apply(&records).await?;
            self.applied.send_replace(writer.at());
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
            writer.apply(&page.records).await?;
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
