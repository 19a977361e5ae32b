//! Queries over approvals.

use super::rows::ApprovalRow;
use crate::error::Result;
use crate::page::{RowPage, limit_with_lookahead, page_from_rows, parse_ascending_cursor};
use crate::query::Queries;

impl Queries {
    /// Lists approvals, the oldest first; of one run and in one state if these are given.
    ///
    /// # Errors
    /// The database fails, or the cursor is not from this query.
    pub async fn list_approvals(
        &self,
        tenant: &str,
        [run, state]: [Option<&str>; 2],
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<RowPage<ApprovalRow>> {
        // Positions may repeat within a record, so the key completes the order.
        let sql = "SELECT * FROM approval WHERE tenant = $1 AND ($2 IS NULL OR run = $2) AND \
            ($3 IS NULL OR state = $3) AND (pos > $4 OR (pos = $4 AND approval > $5)) \
            ORDER BY pos, approval LIMIT $6";
        let (pos, id) = parse_ascending_cursor(cursor)?;
        let rows = sqlx::query_as(sql).bind(tenant).bind(run).bind(state).bind(pos).bind(id);
        let rows = rows.bind(limit_with_lookahead(limit)).fetch_all(&self.pool).await?;
        Ok(page_from_rows(rows, limit, |row: &ApprovalRow| format!("{}.{}", row.pos, row.approval)))
    }

    /// Finds one approval. A copy of its run may have been imported under another id, with the same
    /// approval: the one with the lowest position is returned.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_approval(&self, tenant: &str, approval: &str) -> Result<Option<ApprovalRow>> {
        let sql = "SELECT * FROM approval WHERE tenant = $1 AND approval = $2 \
            ORDER BY pos LIMIT 1";
        Ok(sqlx::query_as(sql).bind(tenant).bind(approval).fetch_optional(&self.pool).await?)
    }
}
