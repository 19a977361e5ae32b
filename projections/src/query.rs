//! Queries over the read models. Every query is bound to one tenant, except
//! [`Queries::dump_tables`].

use std::time::Duration;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::Position;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyPool, Column, FromRow, Row};
use tokio::sync::watch;

use crate::apply::to_column;
use crate::batch_writer::load_position;
use crate::error::ProjectionError;
use crate::rows::{
    AgentRow, ApprovalRow, AuditRow, BalanceRow, GraphRow, LedgerRow, RowPage, RunRow, StepRow,
    UsageRow,
};

/// Maximum rows of one page.
const PAGE_ROWS_LIMIT: usize = 1000;

/// Interval at which the position of a shared store is polled while a reader waits for it.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Every table, in the order of a dump.
const TABLES: [&str; 11] = [
    "read_position",
    "graph_version",
    "run_status",
    "step",
    "usage_line",
    "usage_conflict",
    "ledger_entry",
    "ledger_balance",
    "audit",
    "approval",
    "agent_directory",
];

/// Tables with rows of a run, and the column that names the run.
const RUN_TABLES: [(&str, &str); 6] = [
    ("run_status", "run"),
    ("step", "run"),
    ("usage_line", "run"),
    ("ledger_entry", "run"),
    ("audit", "stream"),
    ("approval", "run"),
];

/// One row of any table as text, for comparison.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableRow {
    /// Name of the row's table.
    pub table: &'static str,
    /// Columns as JSON values joined by `|`, in the order of the migration.
    pub row: String,
}

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

/// Read access to the read models. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    pool: AnyPool,
    applied_position: watch::Receiver<Position>,
    /// Highest position that a reader waits for; the projector writes at once up to there.
    awaited_position: watch::Sender<Position>,
    is_shared: bool,
}

type Result<T> = std::result::Result<T, ProjectionError>;

impl Queries {
    pub(crate) fn new(
        pool: AnyPool,
        applied_position: watch::Receiver<Position>,
        awaited_position: watch::Sender<Position>,
        is_shared: bool,
    ) -> Self {
        Self { pool, applied_position, awaited_position, is_shared }
    }

    /// Position that this process's projector has applied.
    pub fn applied_position(&self) -> Position {
        *self.applied_position.borrow()
    }

    /// Position stored in the database, whichever process wrote it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn read_position(&self) -> Result<Position> {
        load_position(&self.pool).await
    }

    /// Waits until the read models have reached a position. Returns false after `timeout`, or when
    /// the projector or the database is gone.
    pub async fn wait_for_position(&self, position: Position, timeout: Duration) -> bool {
        let mut applied_position = self.applied_position.clone();
        // The projector is woken only by a later position than it knows of already.
        self.awaited_position.send_if_modified(|wanted| {
            let is_later = position > *wanted;
            *wanted = position.max(*wanted);
            is_later
        });
        let reach_position = async {
            if self.is_shared {
                return self.poll_for_position(position).await;
            }
            applied_position.wait_for(|at| *at >= position).await.is_ok()
        };
        tokio::time::timeout(timeout, reach_position).await.unwrap_or(false)
    }

    /// Polls the database for a position: another process may be the one that writes.
    async fn poll_for_position(&self, position: Position) -> bool {
        loop {
            match load_position(&self.pool).await {
                Ok(at) if at >= position => return true,
                Ok(_) => tokio::time::sleep(POLL_INTERVAL).await,
                Err(_) => return false,
            }
        }
    }

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

    /// All tables of all tenants as text in a fixed order: equal for equal logs, on every database.
    ///
    /// # Errors
    /// The database fails.
    pub async fn dump_tables(&self) -> Result<String> {
        let mut dump = String::new();
        for table in TABLES {
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
}

impl Queries {
    /// Lists all rows of a run in a fixed order: equal for equal records.
    ///
    /// # Errors
    /// The database fails.
    pub async fn list_run_rows(&self, run: &StreamKey) -> Result<Vec<TableRow>> {
        let mut found = Vec::new();
        for (table, column) in RUN_TABLES {
            let name = if column == "stream" { run.stream_name() } else { run.id.to_string() };
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

/// SQL limit of a page: one row more than asked for, which shows whether there is another page.
fn limit_with_lookahead(limit: usize) -> i64 {
    to_column(limit.clamp(1, PAGE_ROWS_LIMIT) as u64 + 1)
}

/// Cuts the row of lookahead off and makes the next page's cursor from the last row that is left.
fn page_from_rows<T>(mut rows: Vec<T>, limit: usize, cursor_of: impl Fn(&T) -> String) -> RowPage<T>
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
fn parse_descending_cursor(cursor: Option<&str>) -> Result<i64> {
    let Some(cursor) = cursor else { return Ok(i64::MAX) };
    parse_position(cursor).ok_or_else(|| bad_cursor(cursor))
}

/// Position and key after which the next page of an ascending list starts.
fn parse_ascending_cursor(cursor: Option<&str>) -> Result<(i64, String)> {
    let Some(cursor) = cursor else { return Ok((0, String::new())) };
    let (pos, key) = cursor.split_once('.').ok_or_else(|| bad_cursor(cursor))?;
    let pos = parse_position(pos).ok_or_else(|| bad_cursor(cursor))?;
    Ok((pos, key.to_owned()))
}

/// Parses a log position. Positions start at 1.
fn parse_position(text: &str) -> Option<i64> {
    text.parse().ok().filter(|pos| *pos > 0)
}

fn bad_cursor(cursor: &str) -> ProjectionError {
    // A client may send anything: the error message repeats only its beginning.
    ProjectionError::BadCursor(cursor.chars().take(80).collect())
}
