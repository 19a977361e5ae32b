//! Reading the read models. Every query is bound to one tenant.

use std::time::Duration;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::Position;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyPool, Column, FromRow, Row};
use tokio::sync::watch;

use crate::apply::signed;
use crate::error::ProjectionError;
use crate::page::written_position;
use crate::rows::{
    AgentRow, ApprovalRow, AuditRow, BalanceRow, GraphRow, LedgerRow, Listed, RunRow, StepRow,
    UsageRow,
};

/// Rows of one page at most.
const PAGE_LIMIT: usize = 1000;

/// How often a shared store is asked how far it has come, while somebody waits.
const LOOK: Duration = Duration::from_millis(10);

/// Every table.
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

/// The tables with rows of a run, and the column that names it.
const OF_RUN: [(&str, &str); 6] = [
    ("run_status", "run"),
    ("step", "run"),
    ("usage_line", "run"),
    ("ledger_entry", "run"),
    ("audit", "stream"),
    ("approval", "run"),
];

/// A row as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableRow {
    /// Its table.
    pub table: &'static str,
    /// Its columns as JSON values, in the order of the migration.
    pub row: String,
}

/// Which runs are listed, by the runs that they are within.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RunFamily {
    /// Only runs that are within no other.
    #[default]
    Top,
    /// Only runs right within this one.
    ChildrenOf(String),
    /// All.
    All,
}

impl RunFamily {
    /// The condition in SQL; `$3` is the run.
    fn condition(&self) -> &'static str {
        match self {
            // A value that is not used must be mentioned all the same.
            Self::Top => "r.parent IS NULL AND CAST($3 AS TEXT) IS NULL",
            Self::ChildrenOf(_) => "r.parent = $3",
            Self::All => "CAST($3 AS TEXT) IS NULL",
        }
    }

    fn run(&self) -> Option<&str> {
        match self {
            Self::ChildrenOf(run) => Some(run),
            Self::Top | Self::All => None,
        }
    }
}

/// Which runs are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only of this family.
    pub family: RunFamily,
    /// Only of this graph.
    pub graph: Option<String>,
    /// Only in this status.
    pub status: Option<String>,
    /// Only created by this actor.
    pub actor: Option<String>,
}

/// Reads the read models. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    pool: AnyPool,
    applied: watch::Receiver<Position>,
    /// The last position that somebody waits for.
    wanted: watch::Sender<Position>,
    is_shared: bool,
}

type Result<T> = std::result::Result<T, ProjectionError>;

impl Queries {
    pub(crate) fn new(
        pool: AnyPool,
        applied: watch::Receiver<Position>,
        wanted: watch::Sender<Position>,
        is_shared: bool,
    ) -> Self {
        Self { pool, applied, wanted, is_shared }
    }

    /// How far the read models have come.
    pub fn applied(&self) -> Position {
        *self.applied.borrow()
    }

    /// How far the read models have come, as the database tells a reader: not the projector's word.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn read_position(&self) -> Result<Position> {
        written_position(&self.pool).await
    }

    /// Waits until the read models have come as far as a position; tells whether they have.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> bool {
        let mut applied = self.applied.clone();
        self.wanted.send_if_modified(|wanted| {
            let is_later = position > *wanted;
            *wanted = position.max(*wanted);
            is_later
        });
        let reached = async {
            if self.is_shared {
                return self.looks_for(position).await;
            }
            applied.wait_for(|at| *at >= position).await.is_ok()
        };
        tokio::time::timeout(timeout, reached).await.unwrap_or(false)
    }

    /// Another process may be the one that writes: only the database knows.
    async fn looks_for(&self, position: Position) -> bool {
        loop {
            match written_position(&self.pool).await {
                Ok(at) if at >= position => return true,
                Ok(_) => tokio::time::sleep(LOOK).await,
                Err(_) => return false,
            }
        }
    }

    /// Graph versions, the newest first.
    ///
    /// # Errors
    /// The database fails, or the cursor is not ours.
    pub async fn graphs(
        &self,
        tenant: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Listed<GraphRow>> {
        let sql = "SELECT * FROM graph_version WHERE tenant = $1 AND pos < $2 AND derived = 0 \
            ORDER BY pos DESC LIMIT $3";
        let before = before(cursor)?;
        let rows = sqlx::query_as(sql).bind(tenant).bind(before).bind(more(limit));
        Ok(listed(rows.fetch_all(&self.pool).await?, limit, |row: &GraphRow| row.pos.to_string()))
    }

    /// The versions of one graph, the newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn graph(&self, tenant: &str, graph: &str) -> Result<Vec<GraphRow>> {
        let sql = "SELECT * FROM graph_version WHERE tenant = $1 AND graph = $2 \
            AND derived = 0 ORDER BY pos DESC LIMIT 100";
        Ok(sqlx::query_as(sql).bind(tenant).bind(graph).fetch_all(&self.pool).await?)
    }

    /// Runs, the newest first.
    ///
    /// # Errors
    /// The database fails, or the cursor is not ours.
    pub async fn runs(
        &self,
        tenant: &str,
        filter: &RunFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Listed<RunRow>> {
        let sql = format!(
            "SELECT r.*, g.name FROM run_status r LEFT JOIN graph_version g ON \
            g.tenant = r.tenant AND g.graph = r.graph AND g.version = r.version \
            WHERE r.tenant = $1 AND r.created_pos < $2 AND {} AND ($4 IS NULL OR r.graph = $4) \
            AND ($5 IS NULL OR r.status = $5) AND ($6 IS NULL OR r.actor = $6) \
            ORDER BY r.created_pos DESC LIMIT $7",
            filter.family.condition()
        );
        let rows = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(tenant)
            .bind(before(cursor)?)
            .bind(filter.family.run())
            .bind(filter.graph.as_deref())
            .bind(filter.status.as_deref())
            .bind(filter.actor.as_deref())
            .bind(more(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(listed(rows, limit, |row: &RunRow| row.created_pos.to_string()))
    }

    /// One run.
    ///
    /// # Errors
    /// The database fails.
    pub async fn run(&self, tenant: &str, run: &str) -> Result<Option<RunRow>> {
        let sql = "SELECT r.*, g.name FROM run_status r LEFT JOIN graph_version g ON \
            g.tenant = r.tenant AND g.graph = r.graph AND g.version = r.version \
            WHERE r.tenant = $1 AND r.run = $2";
        Ok(sqlx::query_as(sql).bind(tenant).bind(run).fetch_optional(&self.pool).await?)
    }

    /// How many runs are right within a run.
    ///
    /// # Errors
    /// The database fails.
    pub async fn count_children(&self, tenant: &str, run: &str) -> Result<u64> {
        let sql = "SELECT count(*) FROM run_status WHERE tenant = $1 AND parent = $2";
        let count: i64 =
            sqlx::query_scalar(sql).bind(tenant).bind(run).fetch_one(&self.pool).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// The steps of a run, in the order in which they were first heard of.
    ///
    /// # Errors
    /// The database fails.
    pub async fn steps(&self, tenant: &str, run: &str) -> Result<Vec<StepRow>> {
        let sql = "SELECT * FROM step WHERE tenant = $1 AND run = $2 \
            ORDER BY first_seq, node, item LIMIT 20000";
        Ok(sqlx::query_as(sql).bind(tenant).bind(run).fetch_all(&self.pool).await?)
    }

    /// Usage lines, the oldest first; of one run when it is named.
    ///
    /// # Errors
    /// The database fails, or the cursor is not ours.
    pub async fn usage(
        &self,
        tenant: &str,
        run: Option<&str>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Listed<UsageRow>> {
        let sql = "SELECT * FROM usage_line WHERE tenant = $1 AND ($2 IS NULL OR run = $2) AND \
            (pos > $3 OR (pos = $3 AND usage_id > $4)) ORDER BY pos, usage_id LIMIT $5";
        let (pos, id) = after(cursor)?;
        let rows = sqlx::query_as(sql).bind(tenant).bind(run).bind(pos).bind(id);
        let rows = rows.bind(more(limit)).fetch_all(&self.pool).await?;
        Ok(listed(rows, limit, |row: &UsageRow| format!("{}.{}", row.pos, row.usage_id)))
    }

    /// Ledger entries, the oldest first; of one run when it is named.
    ///
    /// # Errors
    /// The database fails, or the cursor is not ours.
    pub async fn ledger(
        &self,
        tenant: &str,
        run: Option<&str>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Listed<LedgerRow>> {
        let sql = "SELECT * FROM ledger_entry WHERE tenant = $1 AND ($2 IS NULL OR run = $2) AND \
            (pos > $3 OR (pos = $3 AND entry > $4)) ORDER BY pos, entry LIMIT $5";
        let (pos, id) = after(cursor)?;
        let rows = sqlx::query_as(sql).bind(tenant).bind(run).bind(pos).bind(id);
        let rows = rows.bind(more(limit)).fetch_all(&self.pool).await?;
        Ok(listed(rows, limit, |row: &LedgerRow| format!("{}.{}", row.pos, row.entry)))
    }

    /// The balances of all accounts. They sum to zero in each currency.
    ///
    /// # Errors
    /// The database fails.
    pub async fn balances(&self, tenant: &str) -> Result<Vec<BalanceRow>> {
        let sql = "SELECT account, currency, amount FROM ledger_balance WHERE tenant = $1 \
            ORDER BY account, currency";
        Ok(sqlx::query_as(sql).bind(tenant).fetch_all(&self.pool).await?)
    }

    /// How many usage lines have no price.
    ///
    /// # Errors
    /// The database fails.
    pub async fn unpriced(&self, tenant: &str) -> Result<i64> {
        let sql = "SELECT count(*) FROM usage_line WHERE tenant = $1 AND amount IS NULL";
        Ok(sqlx::query_scalar(sql).bind(tenant).fetch_one(&self.pool).await?)
    }

    /// The audit trail, the oldest first; of one stream, actor or type when named.
    ///
    /// # Errors
    /// The database fails, or the cursor is not ours.
    pub async fn audit(
        &self,
        tenant: &str,
        filter: [Option<&str>; 3],
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Listed<AuditRow>> {
        let [stream, actor, kind] = filter;
        let sql = "SELECT * FROM audit WHERE tenant = $1 AND ($2 IS NULL OR stream = $2) AND \
            ($3 IS NULL OR actor = $3) AND ($4 IS NULL OR type = $4) AND \
            (pos > $5 OR (pos = $5 AND idx > $6)) ORDER BY pos, idx LIMIT $7";
        let (pos, index) = after(cursor)?;
        let index: i64 = match cursor {
            None => -1,
            Some(cursor) => index.parse().map_err(|_| bad_cursor(cursor))?,
        };
        let rows = sqlx::query_as(sql).bind(tenant).bind(stream).bind(actor).bind(kind);
        let rows = rows.bind(pos).bind(index).bind(more(limit)).fetch_all(&self.pool).await?;
        Ok(listed(rows, limit, |row: &AuditRow| format!("{}.{}", row.pos, row.idx)))
    }

    /// Questions to people, the oldest first; in one state when it is named.
    ///
    /// # Errors
    /// The database fails, or the cursor is not ours.
    pub async fn approvals(
        &self,
        tenant: &str,
        [run, state]: [Option<&str>; 2],
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Listed<ApprovalRow>> {
        let sql = "SELECT * FROM approval WHERE tenant = $1 AND ($2 IS NULL OR run = $2) AND \
            ($3 IS NULL OR state = $3) AND (pos > $4 OR (pos = $4 AND approval > $5)) \
            ORDER BY pos, approval LIMIT $6";
        let (pos, id) = after(cursor)?;
        let rows = sqlx::query_as(sql).bind(tenant).bind(run).bind(state).bind(pos).bind(id);
        let rows = rows.bind(more(limit)).fetch_all(&self.pool).await?;
        Ok(listed(rows, limit, |row: &ApprovalRow| format!("{}.{}", row.pos, row.approval)))
    }

    /// One question. A copy of the run that asked it may have been imported under another id: the
    /// first one counts.
    ///
    /// # Errors
    /// The database fails.
    pub async fn approval(&self, tenant: &str, approval: &str) -> Result<Option<ApprovalRow>> {
        let sql = "SELECT * FROM approval WHERE tenant = $1 AND approval = $2 \
            ORDER BY pos LIMIT 1";
        Ok(sqlx::query_as(sql).bind(tenant).bind(approval).fetch_optional(&self.pool).await?)
    }

    /// Agents, those defined last first; in one status when it is named.
    ///
    /// # Errors
    /// The database fails, or the cursor is not ours.
    pub async fn agents(
        &self,
        tenant: &str,
        status: Option<&str>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Listed<AgentRow>> {
        let sql = "SELECT * FROM agent_directory WHERE tenant = $1 AND \
            ($2 IS NULL OR status = $2) AND pos < $3 ORDER BY pos DESC LIMIT $4";
        let rows = sqlx::query_as(sql).bind(tenant).bind(status).bind(before(cursor)?);
        let rows = rows.bind(more(limit)).fetch_all(&self.pool).await?;
        Ok(listed(rows, limit, |row: &AgentRow| row.pos.to_string()))
    }

    /// One agent.
    ///
    /// # Errors
    /// The database fails.
    pub async fn agent(&self, tenant: &str, agent: &str) -> Result<Option<AgentRow>> {
        let sql = "SELECT * FROM agent_directory WHERE tenant = $1 AND agent = $2";
        Ok(sqlx::query_as(sql).bind(tenant).bind(agent).fetch_optional(&self.pool).await?)
    }

    /// All tables as text, in a fixed order: equal for equal logs, on every database.
    ///
    /// # Errors
    /// The database fails.
    pub async fn dump(&self) -> Result<String> {
        let mut dump = String::new();
        for table in TABLES {
            dump.push_str(&format!("-- {table}\n"));
            let sql = sqlx::AssertSqlSafe(format!("SELECT * FROM {table}"));
            let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
            let mut lines = rows.iter().map(line).collect::<Result<Vec<_>>>()?;
            // Databases order text each in their own way.
            lines.sort_unstable();
            dump.extend(lines.into_iter().map(|line| line + "\n"));
        }
        Ok(dump)
    }
}

impl Queries {
    /// All rows of a run, in a fixed order: equal for equal records.
    ///
    /// # Errors
    /// The database fails.
    pub async fn rows_of(&self, run: &StreamKey) -> Result<Vec<TableRow>> {
        let mut found = Vec::new();
        for (table, column) in OF_RUN {
            let name = if column == "stream" { run.name() } else { run.id.to_string() };
            let sql = format!("SELECT * FROM {table} WHERE tenant = $1 AND {column} = $2");
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(run.tenant.as_str()).bind(name);
            for row in rows.fetch_all(&self.pool).await? {
                found.push(TableRow { table, row: line(&row)? });
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// A row's columns as JSON values.
fn line(row: &AnyRow) -> Result<String> {
    let value = |index: usize| -> Result<String> {
        if let Ok(number) = row.try_get::<Option<i64>, _>(index) {
            return Ok(number.map_or_else(|| "null".to_owned(), |number| number.to_string()));
        }
        let text: Option<String> = row.try_get(index)?;
        Ok(serde_json::Value::from(text).to_string())
    };
    let columns = row.columns().iter().map(|column| value(column.ordinal()));
    Ok(columns.collect::<Result<Vec<_>>>()?.join("|"))
}

/// One row more than asked for tells whether there is another page.
fn more(limit: usize) -> i64 {
    signed(limit.clamp(1, PAGE_LIMIT) as u64 + 1)
}

fn listed<T>(mut rows: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Listed<T>
where
    T: for<'r> FromRow<'r, AnyRow>,
{
    let limit = limit.clamp(1, PAGE_LIMIT);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| has_more).map(cursor);
    Listed { items: rows, next_cursor }
}

/// The position below which a page that runs backwards goes on.
fn before(cursor: Option<&str>) -> Result<i64> {
    let Some(cursor) = cursor else { return Ok(i64::MAX) };
    position(cursor).ok_or_else(|| bad_cursor(cursor))
}

/// The position and key after which a page that runs forwards goes on.
fn after(cursor: Option<&str>) -> Result<(i64, String)> {
    let Some(cursor) = cursor else { return Ok((0, String::new())) };
    let (pos, key) = cursor.split_once('.').ok_or_else(|| bad_cursor(cursor))?;
    let pos = position(pos).ok_or_else(|| bad_cursor(cursor))?;
    Ok((pos, key.to_owned()))
}

/// A position of the log: from 1 on.
fn position(text: &str) -> Option<i64> {
    text.parse().ok().filter(|pos| *pos > 0)
}

fn bad_cursor(cursor: &str) -> ProjectionError {
    ProjectionError::BadCursor(cursor.chars().take(80).collect())
}
