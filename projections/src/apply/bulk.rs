//! Inserts of many rows in one statement: a statement costs far more than a row.

use std::sync::OnceLock;

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection};

/// Rows per statement, the largest first. Few distinct texts, so that each is prepared once.
const SIZES: [usize; 3] = [64, 8, 1];

const SQLITE: &str = "SQLite";

/// A statement with values being bound.
pub(super) type Bound<'q> = Query<'q, Any, AnyArguments>;

/// An insert that takes any number of rows.
pub(super) struct Bulk {
    /// Text before the rows: table and columns.
    start: &'static str,
    columns: usize,
    /// Text after the rows: the conflict clause.
    end: &'static str,
    numbered: Texts,
    unnumbered: Texts,
}

/// Text of the statement for each size, built on first use.
type Texts = [OnceLock<String>; SIZES.len()];

impl Bulk {
    pub(super) const fn new(start: &'static str, columns: usize, end: &'static str) -> Self {
        let numbered = [const { OnceLock::new() }; SIZES.len()];
        let unnumbered = [const { OnceLock::new() }; SIZES.len()];
        Self { start, columns, end, numbered, unnumbered }
    }

    /// Writes rows; `bind` binds the values of one row in the order of the columns.
    pub(super) async fn write<'q, T>(
        &'static self,
        to: &mut AnyConnection,
        rows: &'q [T],
        bind: impl Fn(Bound<'q>, &'q T) -> Bound<'q>,
    ) -> sqlx::Result<()> {
        // SQLite searches all earlier parameters for each numbered one, which is quadratic in the
        // rows; PostgreSQL accepts numbered ones only.
        let is_numbered = to.backend_name() != SQLITE;
        let statements = if is_numbered { &self.numbered } else { &self.unnumbered };
        let mut rest = rows;
        for (size, statement) in SIZES.iter().zip(statements) {
            // Full statements of the largest size first, then the rest by smaller ones.
            while rest.len() >= *size {
                let (rows, after) = rest.split_at(*size);
                let sql: &'static str = statement.get_or_init(|| self.text(*size, is_numbered));
                rows.iter().fold(sqlx::query(sql), &bind).execute(&mut *to).await?;
                rest = after;
            }
        }
        Ok(())
    }

    fn text(&self, rows: usize, is_numbered: bool) -> String {
        let place = |place| if is_numbered { format!("${place}") } else { "?".to_owned() };
        let row = |number: usize| {
            let from = number * self.columns;
            let places = (from + 1..=from + self.columns).map(place);
            format!("({})", places.collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<_> = (0..rows).map(row).collect();
        format!("{} VALUES {} {}", self.start, rows.join(", "), self.end)
    }
}
