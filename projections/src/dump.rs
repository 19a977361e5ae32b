//! All rows as text: of every table for a comparison of whole databases, and of one run.

use convergio_domain::stream::StreamKey;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Column, Row};

use crate::batch_writer::POSITION_TABLE;
use crate::error::Result;
use crate::query::Queries;
use crate::read_model::RunColumn;
use crate::registry::all_tables;

/// One row of any table as text, for comparison.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableRow {
    /// Name of the row's table.
    pub table: &'static str,
    /// Columns as JSON values joined by `|`, in the order of the migration.
    pub row: String,
}

impl Queries {
    /// All tables of all tenants as text in a fixed order: equal for equal logs, on every database.
    ///
    /// # Errors
    /// The database fails.
    pub async fn dump_tables(&self) -> Result<String> {
        let mut dump = String::new();
        let tables = all_tables().map(|table| table.name);
        for table in std::iter::once(POSITION_TABLE).chain(tables) {
            dump.push_str(&format!("-- {table}\n"));
            let sql = sqlx::AssertSqlSafe(format!("SELECT * FROM {table}"));
            let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
            let mut lines = rows.iter().map(row_text).collect::<Result<Vec<_>>>()?;
            // Collations differ between databases, so rows are sorted here.
            lines.sort_unstable();
            dump.extend(lines.into_iter().map(|line| line + "\n"));
        }
        Ok(dump)
    }

    /// Lists all rows of a run in a fixed order: equal for equal records.
    ///
    /// # Errors
    /// The database fails.
    pub async fn list_run_rows(&self, run: &StreamKey) -> Result<Vec<TableRow>> {
        let mut found = Vec::new();
        for table in all_tables() {
            let (column, name) = match table.runs {
                RunColumn::Absent => continue,
                RunColumn::Id => ("run", run.id.to_string()),
                RunColumn::StreamName => ("stream", run.stream_name()),
            };
            let table = table.name;
            let sql = format!("SELECT * FROM {table} WHERE tenant = $1 AND {column} = $2");
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(run.tenant.as_str()).bind(name);
            for row in rows.fetch_all(&self.pool).await? {
                found.push(TableRow { table, row: row_text(&row)? });
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Columns of a row as JSON values joined by `|`.
fn row_text(row: &AnyRow) -> Result<String> {
    let column_text = |index: usize| -> Result<String> {
        // The tables have no other types than these two.
        if let Ok(number) = row.try_get::<Option<i64>, _>(index) {
            return Ok(number.map_or_else(|| "null".to_owned(), |number| number.to_string()));
        }
        let text: Option<String> = row.try_get(index)?;
        Ok(serde_json::Value::from(text).to_string())
    };
    let columns = row.columns().iter().map(|column| column_text(column.ordinal()));
    Ok(columns.collect::<Result<Vec<_>>>()?.join("|"))
}
