//! Queries over usage, the ledger and its balances.

use super::rows::{BalanceRow, LedgerRow, UsageRow};
use crate::error::Result;
use crate::page::{RowPage, limit_with_lookahead, page_from_rows, parse_ascending_cursor};
use crate::query::Queries;

impl Queries {
    /// Lists usage lines, the oldest first; of one run if `run` is given.
    ///
    /// # Errors
    /// The database fails, or the cursor is not from this query.
    pub async fn list_usage_lines(
        &self,
        tenant: &str,
        run: Option<&str>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<RowPage<UsageRow>> {
        let sql = "SELECT * FROM usage_line WHERE tenant = $1 AND ($2 IS NULL OR run = $2) AND \
            (pos > $3 OR (pos = $3 AND usage_id > $4)) ORDER BY pos, usage_id LIMIT $5";
        let (pos, id) = parse_ascending_cursor(cursor)?;
        let rows = sqlx::query_as(sql).bind(tenant).bind(run).bind(pos).bind(id);
        let rows = rows.bind(limit_with_lookahead(limit)).fetch_all(&self.pool).await?;
        Ok(page_from_rows(rows, limit, |row: &UsageRow| format!("{}.{}", row.pos, row.usage_id)))
    }

    /// Lists ledger entries, the oldest first; of one run if `run` is given.
    ///
    /// # Errors
    /// The database fails, or the cursor is not from this query.
    pub async fn list_ledger_entries(
        &self,
        tenant: &str,
        run: Option<&str>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<RowPage<LedgerRow>> {
        let sql = "SELECT * FROM ledger_entry WHERE tenant = $1 AND ($2 IS NULL OR run = $2) AND \
            (pos > $3 OR (pos = $3 AND entry > $4)) ORDER BY pos, entry LIMIT $5";
        let (pos, id) = parse_ascending_cursor(cursor)?;
        let rows = sqlx::query_as(sql).bind(tenant).bind(run).bind(pos).bind(id);
        let rows = rows.bind(limit_with_lookahead(limit)).fetch_all(&self.pool).await?;
        Ok(page_from_rows(rows, limit, |row: &LedgerRow| format!("{}.{}", row.pos, row.entry)))
    }

    /// Lists the balances of all accounts. They sum to zero in each currency.
    ///
    /// # Errors
    /// The database fails.
    pub async fn list_balances(&self, tenant: &str) -> Result<Vec<BalanceRow>> {
        let sql = "SELECT account, currency, amount FROM ledger_balance WHERE tenant = $1 \
            ORDER BY account, currency";
        Ok(sqlx::query_as(sql).bind(tenant).fetch_all(&self.pool).await?)
    }

    /// Counts the usage lines without a price.
    ///
    /// # Errors
    /// The database fails.
    pub async fn count_unpriced_usage(&self, tenant: &str) -> Result<i64> {
        let sql = "SELECT count(*) FROM usage_line WHERE tenant = $1 AND amount IS NULL";
        Ok(sqlx::query_scalar(sql).bind(tenant).fetch_one(&self.pool).await?)
    }
}
