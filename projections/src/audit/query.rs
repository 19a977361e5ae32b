//! Query over the audit trail.

use super::rows::AuditRow;
use crate::error::Result;
use crate::page::{
    RowPage, bad_cursor, limit_with_lookahead, page_from_rows, parse_ascending_cursor,
};
use crate::query::Queries;

impl Queries {
    /// Lists the audit trail, the oldest first. `filter` is stream, actor and event type.
    ///
    /// # Errors
    /// The database fails, or the cursor is not from this query.
    pub async fn list_audit_events(
        &self,
        tenant: &str,
        filter: [Option<&str>; 3],
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<RowPage<AuditRow>> {
        let [stream, actor, kind] = filter;
        let sql = "SELECT * FROM audit WHERE tenant = $1 AND ($2 IS NULL OR stream = $2) AND \
            ($3 IS NULL OR actor = $3) AND ($4 IS NULL OR type = $4) AND \
            (pos > $5 OR (pos = $5 AND idx > $6)) ORDER BY pos, idx LIMIT $7";
        let (pos, index) = parse_ascending_cursor(cursor)?;
        // Index 0 is a real index, so a list without a cursor starts below it.
        let index: i64 = match cursor {
            None => -1,
            Some(cursor) => index.parse().map_err(|_| bad_cursor(cursor))?,
        };
        let rows = sqlx::query_as(sql).bind(tenant).bind(stream).bind(actor).bind(kind);
        let rows = rows
            .bind(pos)
            .bind(index)
            .bind(limit_with_lookahead(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(page_from_rows(rows, limit, |row: &AuditRow| format!("{}.{}", row.pos, row.idx)))
    }
}
