//! The write side of the read models: one connection that writes a batch of records, rows and
//! position in one transaction.

use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::{Position, Record};
use sqlx::{AnyConnection, AnyPool, Connection};

use crate::error::ProjectionError;
use crate::read_model::to_column;
use crate::registry::ReadModelSet;
use crate::store::StoreCopy;

/// Table with the position, one row for all read models.
pub(crate) const POSITION_TABLE: &str = "read_position";
/// All read models share a position, and move in one transaction. Programs of before know this name
/// only: a position for each model would let them apply records twice.
const POSITION_NAME: &str = "all";
const SELECT_POSITION: &str = "SELECT pos FROM read_position WHERE name = $1";

/// Maximum time to close a connection after an error before it is dropped instead.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A writing connection with the read models that write by it, and the position it has reached.
pub(crate) struct BatchWriter {
    connection: AnyConnection,
    read_models: ReadModelSet,
    position: Position,
}

impl BatchWriter {
    pub(crate) async fn open(place: &StoreCopy) -> Result<Self, ProjectionError> {
        let mut connection = place.connect_writer().await?;
        // The position is read on the connection that will write, so that both see one state.
        let position = ensure_position(&mut connection).await?;
        Ok(Self { connection, read_models: ReadModelSet::default(), position })
    }

    /// Position of the last record that was committed.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Applies a batch: rows and position are committed together, or not at all. Consumes the
    /// writer on error, because after a failed commit the connection may still be inside its
    /// transaction, and what it wrote next no reader would see.
    pub(crate) async fn apply(mut self, records: &[Arc<Record>]) -> Result<Self, ProjectionError> {
        match self.write_batch(records).await {
            Ok(()) => Ok(self),
            Err(error) => {
                // Closed in time or not, the caller opens another connection.
                let _closed = tokio::time::timeout(CLOSE_TIMEOUT, self.connection.close()).await;
                Err(error)
            }
        }
    }

    async fn write_batch(&mut self, records: &[Arc<Record>]) -> Result<(), ProjectionError> {
        let Some(last) = records.last() else { return Ok(()) };
        let mut transaction = self.connection.begin().await?;
        // Compare-and-set of the position: a second projector on the same store loses here, before
        // it writes a row, and its transaction is rolled back.
        let sql = "UPDATE read_position SET pos = $1 WHERE name = $2 AND pos = $3";
        let moved = sqlx::query(sql)
            .bind(to_column(last.position.0))
            .bind(POSITION_NAME)
            .bind(to_column(self.position.0))
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() != 1 {
            return Err(ProjectionError::ConcurrentProjector);
        }
        for record in records {
            self.read_models.apply_record(&mut transaction, record).await?;
        }
        // Rows change many times within a batch but are written once, at its end.
        self.read_models.flush_rows(&mut transaction).await?;
        transaction.commit().await?;
        self.position = last.position;
        Ok(())
    }

    pub(crate) async fn close(self) -> Result<(), ProjectionError> {
        Ok(self.connection.close().await?)
    }
}

/// Position of the read models; inserts the row that holds it if it is missing.
pub(crate) async fn ensure_position(
    connection: &mut AnyConnection,
) -> Result<Position, ProjectionError> {
    let sql = "INSERT INTO read_position (name, pos) VALUES ($1, 0) \
        ON CONFLICT (name) DO NOTHING";
    sqlx::query(sql).bind(POSITION_NAME).execute(&mut *connection).await?;
    let pos: i64 =
        sqlx::query_scalar(SELECT_POSITION).bind(POSITION_NAME).fetch_one(connection).await?;
    Ok(Position(u64::try_from(pos).unwrap_or(0)))
}

/// Position of the read models as stored in the database, for readers that do not share a process
/// with the projector.
pub(crate) async fn load_position(pool: &AnyPool) -> Result<Position, ProjectionError> {
    let pos: i64 = sqlx::query_scalar(SELECT_POSITION).bind(POSITION_NAME).fetch_one(pool).await?;
    Ok(Position(u64::try_from(pos).unwrap_or(0)))
}
