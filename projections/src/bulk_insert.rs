//! Inserts of many rows in one statement: a statement costs far more than a row.

use std::sync::OnceLock;

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection};

/// Rows per statement, the largest first. Few distinct texts, so that each is prepared once.
const ROWS_PER_STATEMENT: [usize; 3] = [64, 8, 1];

const SQLITE_BACKEND: &str = "SQLite";

/// A statement with values being bound.
pub(super) type BoundQuery<'q> = Query<'q, Any, AnyArguments>;

/// An insert that takes any number of rows.
pub(super) struct BulkInsert {
    /// Text before the rows: table and columns.
    prefix: &'static str,
    columns: usize,
    /// Text after the rows: the conflict clause.
    suffix: &'static str,
    numbered_texts: StatementTexts,
    plain_texts: StatementTexts,
}

/// Text of the statement for each size, built on first use.
type StatementTexts = [OnceLock<String>; ROWS_PER_STATEMENT.len()];

impl BulkInsert {
    pub(super) const fn new(prefix: &'static str, columns: usize, suffix: &'static str) -> Self {
        let numbered = [const { OnceLock::new() }; ROWS_PER_STATEMENT.len()];
        let unnumbered = [const { OnceLock::new() }; ROWS_PER_STATEMENT.len()];
        Self { prefix, columns, suffix, numbered_texts: numbered, plain_texts: unnumbered }
    }

    /// Writes rows; `bind` binds the values of one row in the order of the columns.
    pub(super) async fn write<'q, T>(
        &'static self,
        connection: &mut AnyConnection,
        rows: &'q [T],
        bind: impl Fn(BoundQuery<'q>, &'q T) -> BoundQuery<'q>,
    ) -> sqlx::Result<()> {
        // SQLite searches all earlier parameters for each numbered one, which is quadratic in the
        // rows; PostgreSQL accepts numbered ones only.
        let is_numbered = connection.backend_name() != SQLITE_BACKEND;
        let statements = if is_numbered { &self.numbered_texts } else { &self.plain_texts };
        let mut remaining = rows;
        for (size, statement) in ROWS_PER_STATEMENT.iter().zip(statements) {
            // Full statements of the largest size first, then the rest by smaller ones.
            while remaining.len() >= *size {
                let (rows, after) = remaining.split_at(*size);
                let sql: &'static str =
                    statement.get_or_init(|| self.statement_text(*size, is_numbered));
                rows.iter().fold(sqlx::query(sql), &bind).execute(&mut *connection).await?;
                remaining = after;
            }
        }
        Ok(())
    }

    fn statement_text(&self, rows: usize, is_numbered: bool) -> String {
        let parameter = |place| if is_numbered { format!("${place}") } else { "?".to_owned() };
        let row = |number: usize| {
            let from = number * self.columns;
            let places = (from + 1..=from + self.columns).map(parameter);
            format!("({})", places.collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<_> = (0..rows).map(row).collect();
        format!("{} VALUES {} {}", self.prefix, rows.join(", "), self.suffix)
    }
}
