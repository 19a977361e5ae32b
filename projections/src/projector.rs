//! Following the log: a page at a time, rows and position in one transaction.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::{EventLog, Position, Record};
use futures_util::StreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection, SqlitePool};
use tokio::sync::{oneshot, watch};

use crate::apply::{apply, signed};
use crate::error::ProjectionError;
use crate::query::Queries;

/// Records applied in one transaction at most.
const PAGE: usize = 512;
const NAME: &str = "all";

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// The read models of a folder.
pub struct Projections {
    options: SqliteConnectOptions,
    readers: SqlitePool,
    applied: watch::Sender<Position>,
}

impl Projections {
    /// Opens the read models; makes their tables.
    ///
    /// # Errors
    /// The file cannot be used.
    pub async fn open(file: &Path) -> Result<Self, ProjectionError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Disposable: what a power cut takes is applied again from the log.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(10));
        let mut first = SqliteConnection::connect_with(&options).await?;
        MIGRATIONS.run_direct(None, &mut first, false).await?;
        let position = position(&mut first).await?;
        first.close().await?;
        let readers = SqlitePoolOptions::new().max_connections(4);
        let readers = readers.connect_with(options.clone().read_only(true)).await?;
        let (applied, _) = watch::channel(position);
        Ok(Self { options, readers, applied })
    }

    /// What reads them.
    pub fn queries(&self) -> Queries {
        Queries::new(self.readers.clone(), self.applied.subscribe())
    }

    /// Applies what is in the log and follows it, until `stop` is fired or dropped.
    ///
    /// # Errors
    /// The log is corrupt, the database fails, or another projector is at work.
    pub async fn run(
        &self,
        log: Arc<dyn EventLog>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), ProjectionError> {
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        let mut at = position(&mut connection).await?;
        let mut tail = log.tail(at).ready_chunks(PAGE);
        loop {
            let chunk = tokio::select! {
                _ = &mut stop => return Ok(connection.close().await?),
                chunk = tail.next() => chunk,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let records = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            at = apply_page(&mut connection, at, &records).await?;
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
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
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

    /// Lets the file go with its write-ahead journal folded in: the file alone is the database.
    pub(crate) async fn close_whole(&self) -> Result<(), ProjectionError> {
        self.readers.close().await;
        let mut last = SqliteConnection::connect_with(&self.options).await?;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut last).await?;
        Ok(last.close().await?)
    }

    /// Lets the file go.
    pub async fn close(&self) {
        self.readers.close().await;
    }
}

async fn position(connection: &mut SqliteConnection) -> Result<Position, ProjectionError> {
    let sql = "INSERT INTO projection_position (name, pos) VALUES ($1, 0) \
        ON CONFLICT (name) DO NOTHING";
    sqlx::query(sql).bind(NAME).execute(&mut *connection).await?;
    let sql = "SELECT pos FROM projection_position WHERE name = $1";
    let pos: i64 = sqlx::query_scalar(sql).bind(NAME).fetch_one(connection).await?;
    Ok(Position(u64::try_from(pos).unwrap_or(0)))
}

/// Rows and position move together, or not at all.
async fn apply_page(
    connection: &mut SqliteConnection,
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
