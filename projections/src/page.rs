//! Writing a page: rows and position in one transaction.

use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::{Position, Record};
use sqlx::{AnyConnection, AnyPool, Connection};

use crate::apply::{Held, Page, apply, signed};
use crate::error::ProjectionError;
use crate::store::Place;

const NAME: &str = "all";
const POSITION: &str = "SELECT pos FROM read_position WHERE name = $1";

/// How long a connection that failed may take to close before it is left to itself.
const CLOSING: Duration = Duration::from_secs(1);

/// A connection that writes, with the rows that it holds.
pub(crate) struct Writer {
    connection: AnyConnection,
    held: Held,
    at: Position,
}

impl Writer {
    pub(crate) async fn open(place: &Place) -> Result<Self, ProjectionError> {
        let mut connection = place.connect().await?;
        let at = position(&mut connection).await?;
        Ok(Self { connection, held: Held::default(), at })
    }

    /// How far it has come.
    pub(crate) fn at(&self) -> Position {
        self.at
    }

    /// Rows and position move together, or not at all. An error ends the connection: after a failed
    /// commit it may still be inside its transaction, and what it wrote next nobody else would see.
    pub(crate) async fn apply(mut self, records: &[Arc<Record>]) -> Result<Self, ProjectionError> {
        match self.write_page(records).await {
            Ok(()) => Ok(self),
            Err(error) => {
                // Closed or not: another connection takes its place.
                let _closed = tokio::time::timeout(CLOSING, self.connection.close()).await;
                Err(error)
            }
        }
    }

    async fn write_page(&mut self, records: &[Arc<Record>]) -> Result<(), ProjectionError> {
        let Some(last) = records.last() else { return Ok(()) };
        let mut transaction = self.connection.begin().await?;
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
        self.held.flush(&mut transaction).await?;
        transaction.commit().await?;
        self.at = last.position;
        Ok(())
    }

    pub(crate) async fn close(self) -> Result<(), ProjectionError> {
        Ok(self.connection.close().await?)
    }
}

/// How far the read models have come; makes the row that says so.
pub(crate) async fn position(connection: &mut AnyConnection) -> Result<Position, ProjectionError> {
    let sql = "INSERT INTO read_position (name, pos) VALUES ($1, 0) \
        ON CONFLICT (name) DO NOTHING";
    sqlx::query(sql).bind(NAME).execute(&mut *connection).await?;
    let pos: i64 = sqlx::query_scalar(POSITION).bind(NAME).fetch_one(connection).await?;
    Ok(Position(u64::try_from(pos).unwrap_or(0)))
}

/// How far the read models have come, as the database tells any reader.
pub(crate) async fn written_position(pool: &AnyPool) -> Result<Position, ProjectionError> {
    let pos: i64 = sqlx::query_scalar(POSITION).bind(NAME).fetch_one(pool).await?;
    Ok(Position(u64::try_from(pos).unwrap_or(0)))
}
