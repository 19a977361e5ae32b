//! Queries over the directory of agents.

use super::rows::AgentRow;
use crate::error::Result;
use crate::page::{RowPage, limit_with_lookahead, page_from_rows, parse_descending_cursor};
use crate::query::Queries;

impl Queries {
    /// Lists agents, the last defined first; in one status if it is given.
    ///
    /// # Errors
    /// The database fails, or the cursor is not from this query.
    pub async fn list_agents(
        &self,
        tenant: &str,
        status: Option<&str>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<RowPage<AgentRow>> {
        let sql = "SELECT * FROM agent_directory WHERE tenant = $1 AND \
            ($2 IS NULL OR status = $2) AND pos < $3 ORDER BY pos DESC LIMIT $4";
        let rows =
            sqlx::query_as(sql).bind(tenant).bind(status).bind(parse_descending_cursor(cursor)?);
        let rows = rows.bind(limit_with_lookahead(limit)).fetch_all(&self.pool).await?;
        Ok(page_from_rows(rows, limit, |row: &AgentRow| row.pos.to_string()))
    }

    /// Finds one agent.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_agent(&self, tenant: &str, agent: &str) -> Result<Option<AgentRow>> {
        let sql = "SELECT * FROM agent_directory WHERE tenant = $1 AND agent = $2";
        Ok(sqlx::query_as(sql).bind(tenant).bind(agent).fetch_optional(&self.pool).await?)
    }
}
