//! Queries over runs and their steps.

use super::rows::{RunRow, StepRow};
use crate::error::Result;
use crate::page::{RowPage, limit_with_lookahead, page_from_rows, parse_descending_cursor};
use crate::query::Queries;

/// Selects runs by the run that contains them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RunFamily {
    /// Only runs without a parent.
    #[default]
    TopLevel,
    /// Only direct children of this run.
    ChildrenOf(String),
    /// Runs at every depth.
    All,
}

impl RunFamily {
    /// SQL condition of this family; parameter `$3` is the parent run.
    fn sql_condition(&self) -> &'static str {
        match self {
            // PostgreSQL infers a parameter's type from its use: an unused one must be mentioned
            // with a cast.
            Self::TopLevel => "r.parent IS NULL AND CAST($3 AS TEXT) IS NULL",
            Self::ChildrenOf(_) => "r.parent = $3",
            Self::All => "CAST($3 AS TEXT) IS NULL",
        }
    }

    fn parent_run(&self) -> Option<&str> {
        match self {
            Self::ChildrenOf(run) => Some(run),
            Self::TopLevel | Self::All => None,
        }
    }
}

/// Filter of a list of runs; `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Position in the tree of runs.
    pub family: RunFamily,
    /// Only runs of this graph.
    pub graph: Option<String>,
    /// Only runs in this status.
    pub status: Option<String>,
    /// Only runs created by this actor.
    pub actor: Option<String>,
}

impl Queries {
    /// Lists runs, the newest first.
    ///
    /// # Errors
    /// The database fails, or the cursor is not from this query.
    pub async fn list_runs(
        &self,
        tenant: &str,
        filter: &RunFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<RowPage<RunRow>> {
        // All filters are in one statement, unused ones as NULL, so that each form is prepared
        // once.
        let sql = format!(
            "SELECT r.*, g.name FROM run_status r LEFT JOIN graph_version g ON \
            g.tenant = r.tenant AND g.graph = r.graph AND g.version = r.version \
            WHERE r.tenant = $1 AND r.created_pos < $2 AND {} AND ($4 IS NULL OR r.graph = $4) \
            AND ($5 IS NULL OR r.status = $5) AND ($6 IS NULL OR r.actor = $6) \
            ORDER BY r.created_pos DESC LIMIT $7",
            filter.family.sql_condition()
        );
        let rows = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(tenant)
            .bind(parse_descending_cursor(cursor)?)
            .bind(filter.family.parent_run())
            .bind(filter.graph.as_deref())
            .bind(filter.status.as_deref())
            .bind(filter.actor.as_deref())
            .bind(limit_with_lookahead(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(page_from_rows(rows, limit, |row: &RunRow| row.created_pos.to_string()))
    }

    /// Finds one run.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_run(&self, tenant: &str, run: &str) -> Result<Option<RunRow>> {
        let sql = "SELECT r.*, g.name FROM run_status r LEFT JOIN graph_version g ON \
            g.tenant = r.tenant AND g.graph = r.graph AND g.version = r.version \
            WHERE r.tenant = $1 AND r.run = $2";
        Ok(sqlx::query_as(sql).bind(tenant).bind(run).fetch_optional(&self.pool).await?)
    }

    /// Counts the direct children of a run.
    ///
    /// # Errors
    /// The database fails.
    pub async fn count_children(&self, tenant: &str, run: &str) -> Result<u64> {
        let sql = "SELECT count(*) FROM run_status WHERE tenant = $1 AND parent = $2";
        let count: i64 =
            sqlx::query_scalar(sql).bind(tenant).bind(run).fetch_one(&self.pool).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Lists at most 20,000 steps of a run, in the order of their first events.
    ///
    /// # Errors
    /// The database fails.
    pub async fn list_steps(&self, tenant: &str, run: &str) -> Result<Vec<StepRow>> {
        let sql = "SELECT * FROM step WHERE tenant = $1 AND run = $2 \
            ORDER BY first_seq, node, item LIMIT 20000";
        Ok(sqlx::query_as(sql).bind(tenant).bind(run).fetch_all(&self.pool).await?)
    }
}
