//! Following the log: a page at a time, rows and position in one transaction.

use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::{EventLog, Position, Record};
use futures_util::StreamExt;
use sqlx::{AnyConnection, AnyPool, Connection};
use tokio::sync::{oneshot, watch};

use crate::apply::{apply, signed};
use crate::error::ProjectionError;
use crate::query::Queries;
use crate::store::{Place, Store};

/// Records applied in one transaction at most.
const PAGE: usize = 512;
/// How long a projector leaves the work to another one that is ahead of it.
const STAND_BY: Duration = Duration::from_secs(1);
const NAME: &str = "all";

/// The read models of a store.
pub struct Projections {
    place: Place,
    readers: AnyPool,
    applied: watch::Sender<Position>,
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
        Ok(Self { place, readers, applied })
    }

    /// What reads them.
    pub fn queries(&self) -> Queries {
        let is_shared = self.place.store.is_shared();
        Queries::new(self.readers.clone(), self.applied.subscribe(), is_shared)
    }

    /// Applies what is in the log and follows it, until `stop` is fired or dropped. On a shared
    /// store one projector works at a time; the others stand by.
    ///
    /// # Errors
    /// The log is corrupt, the database fails, or a file has another projector.
    pub async fn run(
        &self,
        log: Arc<dyn EventLog>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        let mut connection = self.place.connect().await?;
        loop {
            match self.follow(&mut connection, &log, &mut stop).await {
                Ok(()) => return Ok(connection.close().await?),
                Err(ProjectionError::NotAlone) if self.place.store.is_shared() => {}
                Err(error) => return Err(error),
            }
            tokio::select! {
                _ = &mut stop => return Ok(connection.close().await?),
                () = tokio::time::sleep(STAND_BY) => {}
            }
        }
    }

    async fn follow(
        &self,
        connection: &mut AnyConnection,
        log: &Arc<dyn EventLog>,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        let mut at = position(connection).await?;
        let mut tail = log.tail(at).ready_chunks(PAGE);
        loop {
            let chunk = tokio::select! {
                _ = &mut *stop => return Ok(()),
                chunk = tail.next() => chunk,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let records = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            at = apply_page(connection, at, &records).await?;
            self.applied.send_replace(at);
        }
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
        let mut connection = self.place.connect().await?;
        let mut at = position(&mut connection).await?;
        loop {
            let page = log.read_all(at, PAGE).await?;
            if page.records.is_empty() {
                return Ok(connection.close().await?);
            }
            at = apply_page(&mut connection, at, &page.records).await?;
            self.applied.send_replace(at);
            progress(at, page.tail);
        }
    }

    /// A connection that writes.
    pub(crate) async fn connect(&self) -> Result<AnyConnection, ProjectionError> {
        self.place.connect().await
    }

    /// Lets the store go.
    pub async fn close(&self) {
        self.readers.close().await;
    }
}

async fn position(connection: &mut AnyConnection) -> Result<Position, ProjectionError> {
    let sql = "INSERT INTO projection_position (name, pos) VALUES ($1, 0) \
        ON CONFLICT (name) DO NOTHING";
    sqlx::query(sql).bind(NAME).execute(&mut *connection).await?;
    let pos: i64 = sqlx::query_scalar(POSITION).bind(NAME).fetch_one(connection).await?;
    Ok(Position(u64::try_from(pos).unwrap_or(0)))
}

const POSITION: &str = "SELECT pos FROM projection_position WHERE name = $1";

/// How far the read models have come, by their own word.
pub(crate) async fn written_position(pool: &AnyPool) -> Result<Position, ProjectionError> {
    let pos: i64 = sqlx::query_scalar(POSITION).bind(NAME).fetch_one(pool).await?;
    Ok(Position(u64::try_from(pos).unwrap_or(0)))
}

/// Rows and position move together, or not at all.
pub(crate) async fn apply_page(
    connection: &mut AnyConnection,
    from: Position,
    records: &[Arc<Record>],
) -> Result<Position, ProjectionError> {
    let Some(last) = records.last() else { return Ok(from) };
    let mut transaction = connection.begin().await?;
    let sql = "UPDATE projection_position SET pos = $1 WHERE name = $2 AND pos = $3";
    let moved = sqlx::query(sql)
        .bind(signed(last.position.0))
        .bind(NAME)
        .bind(signed(from.0))
        .execute(&mut *transaction)
        .await?;
    if moved.rows_affected() != 1 {
        return Err(ProjectionError::NotAlone);
    }
    for record in records {
        apply(&mut transaction, record).await?;
    }
    transaction.commit().await?;
    Ok(last.position)
}
