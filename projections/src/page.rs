//! The write side of the read models: one connection that writes a batch of records, rows and
//! position in one transaction.

use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::{Position, Record};
use sqlx::{AnyConnection, AnyPool, Connection};

use crate::apply::{Held, Page, apply, signed};
use crate::error::ProjectionError;
use crate::store::Place;

const NAME: &str = "all";
const POSITION: &str = "SELECT pos FROM read_position WHERE name = $1";

/// Maximum time to close a connection after an error before it is dropped instead.
const CLOSING: Duration = Duration::from_secs(1);

/// A writing connection with its cache of rows and the position it has reached.
pub(crate) struct Writer {
    connection: AnyConnection,
    held: Held,
    at: Position,
}

impl Writer {
    pub(crate) async fn open(place: &Place) -> Result<Self, ProjectionError> {
        let mut connection = place.connect().await?;
        // The position is read on the connection that will write, so that both see one state.
        let at = position(&mut connection).await?;
        Ok(Self { connection, held: Held::default(), at })
    }

    /// Position of the last record that was committed.
    pub(crate) fn at(&self) -> Position {
        self.at
    }

    /// Applies a batch: rows and position are committed together, or not at all. Consumes the
    /// writer on error, because after a failed commit the connection may still be inside its
    /// transaction, and what it wrote next no reader would see.
    pub(crate) async fn apply(mut self, records: &[Arc<Record>]) -> Result<Self, ProjectionError> {
        match self.write_page(records).await {
            Ok(()) => Ok(self),
            Err(error) => {
                // Closed in time or not, the caller opens another connection.
                let _closed = tokio::time::timeout(CLOSING, self.connection.close()).await;
                Err(error)
            }
        }
    }

    async fn write_page(&mut self, records: &[Arc<Record>]) -> Result<(), ProjectionError> {
        let Some(last) = records.last() else { return Ok(()) };
        let mut transaction = self.connection.begin().await?;
        // Compare-and-set of the position: a second projector on the same store loses here, before
        // it writes a row, and its transaction is rolled back.
        let sql = "UPDATE read_position SET pos = $1 WHERE name = $2 AND pos = $3";
        let moved = sqlx::query(sql)
            .bind(signed(last.position.0))
            .bind(NAME)
            .bind(signed(self.at.0))
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() != 1 {
            return Err(ProjectionError::NotAlone);
        }
        let mut page = Page { to: &mut transaction, held: &mut self.held };
        for record in records {
            apply(&mut page, record).await?;
        }
        // Rows change many times within a batch but are written once, at its end.
        self.held.flush(&mut transaction).await?;
        transaction.commit().await?;
        self.at = last.position;
        Ok(())
    }

    pub(crate) async fn close(self) -> Result<(), ProjectionError> {
        Ok(self.connection.close().await?)
    }
}

/// Position of the read models; inserts the row that holds it if it is missing.
pub(crate) async fn position(connection: &mut AnyConnection) -> Result<Position, ProjectionError> {
    let sql = "INSERT INTO read_position (name, pos) VALUES ($1, 0) \
        ON CONFLICT (name) DO NOTHING";
    sqlx::query(sql).bind(NAME).execute(&mut *connection).await?;
    let pos: i64 = sqlx::query_scalar(POSITION).bind(NAME).fetch_one(connection).await?;
    Ok(Position(u64::try_from(pos).unwrap_or(0)))
}

/// Position of the read models as stored in the database, for readers that do not share a process
/// with the projector.
pub(crate) async fn written_position(pool: &AnyPool) -> Result<Position, ProjectionError> {
    let pos: i64 = sqlx::query_scalar(POSITION).bind(NAME).fetch_one(pool).await?;
    Ok(Position(u64::try_from(pos).unwrap_or(0)))
}
