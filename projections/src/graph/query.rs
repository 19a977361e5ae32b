//! Queries over graph versions.

use super::rows::GraphRow;
use crate::error::Result;
use crate::page::{RowPage, limit_with_lookahead, page_from_rows, parse_descending_cursor};
use crate::query::Queries;

impl Queries {
    /// Lists graph versions, the newest first.
    ///
    /// # Errors
    /// The database fails, or the cursor is not from this query.
    pub async fn list_graphs(
        &self,
        tenant: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<RowPage<GraphRow>> {
        let sql = "SELECT * FROM graph_version WHERE tenant = $1 AND pos < $2 AND derived = 0 \
            ORDER BY pos DESC LIMIT $3";
        let before_pos = parse_descending_cursor(cursor)?;
        let rows =
            sqlx::query_as(sql).bind(tenant).bind(before_pos).bind(limit_with_lookahead(limit));
        Ok(page_from_rows(rows.fetch_all(&self.pool).await?, limit, |row: &GraphRow| {
            row.pos.to_string()
        }))
    }

    /// Lists at most 100 versions of one graph, the newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn list_graph_versions(&self, tenant: &str, graph: &str) -> Result<Vec<GraphRow>> {
        let sql = "SELECT * FROM graph_version WHERE tenant = $1 AND graph = $2 \
            AND derived = 0 ORDER BY pos DESC LIMIT 100";
        Ok(sqlx::query_as(sql).bind(tenant).bind(graph).fetch_all(&self.pool).await?)
    }
}
