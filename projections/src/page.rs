//! Pages of rows, and the cursors between them.

use serde::Serialize;
use sqlx::FromRow;
use sqlx::any::AnyRow;

use crate::error::{ProjectionError, Result};
use crate::read_model::to_column;

/// Maximum rows of one page.
const PAGE_ROWS_LIMIT: usize = 1000;

/// One page of rows with the cursor of the next.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowPage<T> {
    /// Rows of this page, in the query's order.
    pub items: Vec<T>,
    /// Opaque cursor; `None` on the last page.
    pub next_cursor: Option<String>,
}

/// SQL limit of a page: one row more than asked for, which shows whether there is another page.
pub(crate) fn limit_with_lookahead(limit: usize) -> i64 {
    to_column(limit.clamp(1, PAGE_ROWS_LIMIT) as u64 + 1)
}

/// Cuts the row of lookahead off and makes the next page's cursor from the last row that is left.
pub(crate) fn page_from_rows<T>(
    mut rows: Vec<T>,
    limit: usize,
    cursor_of: impl Fn(&T) -> String,
) -> RowPage<T>
where
    T: for<'r> FromRow<'r, AnyRow>,
{
    let limit = limit.clamp(1, PAGE_ROWS_LIMIT);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| has_more).map(cursor_of);
    RowPage { items: rows, next_cursor }
}

/// Position below which the next page of a descending list starts.
pub(crate) fn parse_descending_cursor(cursor: Option<&str>) -> Result<i64> {
    let Some(cursor) = cursor else { return Ok(i64::MAX) };
    parse_position(cursor).ok_or_else(|| bad_cursor(cursor))
}

/// Position and key after which the next page of an ascending list starts.
pub(crate) fn parse_ascending_cursor(cursor: Option<&str>) -> Result<(i64, String)> {
    let Some(cursor) = cursor else { return Ok((0, String::new())) };
    let (pos, key) = cursor.split_once('.').ok_or_else(|| bad_cursor(cursor))?;
    let pos = parse_position(pos).ok_or_else(|| bad_cursor(cursor))?;
    Ok((pos, key.to_owned()))
}

/// Parses a log position. Positions start at 1.
fn parse_position(text: &str) -> Option<i64> {
    text.parse().ok().filter(|pos| *pos > 0)
}

pub(crate) fn bad_cursor(cursor: &str) -> ProjectionError {
    // A client may send anything: the error message repeats only its beginning.
    ProjectionError::BadCursor(cursor.chars().take(80).collect())
}
