//! Rows of usage and ledger that wait to be written, balances, and what runs under way have used.

use std::collections::{BTreeMap, HashMap};

use convergio_domain::billing::Meter;
use convergio_domain::id::TenantId;
use convergio_domain::money::Money;
use convergio_domain::stream::StreamKey;
use sqlx::AnyConnection;

use crate::bulk_insert::BulkInsert;
use crate::read_model::{ApplyBatch, CACHED_ROWS_LIMIT};

/// A batch as usage and ledger see it.
pub(super) type BillingBatch<'a> = ApplyBatch<'a, BillingRowCache>;

/// A usage line that waits to be written: a quantity of one meter and its price.
pub(super) struct UsageLineInsert {
    pub(super) id: String,
    pub(super) tenant: TenantId,
    pub(super) run: String,
    pub(super) step: String,
    pub(super) attempt: i64,
    pub(super) meter: Meter,
    pub(super) quantity: i64,
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) confirmed: i64,
    pub(super) price: Option<String>,
    pub(super) currency: Option<&'static str>,
    pub(super) amount: Option<Money>,
    pub(super) at_ms: i64,
    pub(super) event: String,
    pub(super) pos: i64,
}

/// A ledger entry that waits to be written. Double entry: a cost account is debited, the provider's
/// payable account credited.
pub(super) struct LedgerEntryInsert {
    pub(super) usage_id: String,
    pub(super) tenant: TenantId,
    pub(super) run: String,
    pub(super) debit: String,
    pub(super) credit: String,
    pub(super) currency: &'static str,
    pub(super) amount: Money,
    pub(super) at_ms: i64,
    pub(super) pos: i64,
}

/// Name of an account and its currency.
pub(super) type AccountKey = (String, String);

/// Balance of an account in units of 1e-15, and whether the table lags behind it.
pub(super) struct CachedBalance {
    pub(super) amount: i128,
    pub(super) is_changed: bool,
}

/// Usage of a run under way.
#[derive(Default)]
pub(super) struct RunUsage {
    /// True if the run began while it was cached: the database has no usage of it that is not here.
    pub(super) is_complete: bool,
    pub(super) has_ended: bool,
    /// Quantities by usage id.
    pub(super) quantities: BTreeMap<String, i64>,
}

/// Rows that wait to be written, and those known to equal the database's.
#[derive(Default)]
pub(super) struct BillingRowCache {
    runs: HashMap<StreamKey, RunUsage>,
    pub(super) balances: HashMap<(TenantId, AccountKey), CachedBalance>,
    pub(super) usage: Vec<UsageLineInsert>,
    pub(super) entries: Vec<LedgerEntryInsert>,
}

impl BillingRowCache {
    /// Caches a run that begins, which the database does not have yet.
    pub(super) fn insert_new_run(&mut self, stream: &StreamKey) {
        self.runs.insert(stream.clone(), RunUsage { is_complete: true, ..RunUsage::default() });
    }

    /// Notes that a run has ended, or goes on after all.
    pub(super) fn note_end(&mut self, stream: &StreamKey, has_ended: bool) {
        if let Some(run) = self.runs.get_mut(stream) {
            run.has_ended = has_ended;
        }
    }

    /// Usage of a run as far as it is cached.
    pub(super) fn run_usage(&mut self, stream: &StreamKey) -> &mut RunUsage {
        self.runs.entry(stream.clone()).or_default()
    }

    /// Writes every pending change, then evicts what is no longer needed.
    pub(super) async fn write_rows(&mut self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        write_usage(connection, &std::mem::take(&mut self.usage)).await?;
        write_entries(connection, &std::mem::take(&mut self.entries)).await?;
        write_balances(connection, &mut self.balances).await?;
        self.evict_rows();
        Ok(())
    }

    /// Keeps the runs whose usage is all here. Over the limit everything is dropped: rows are
    /// loaded again on demand.
    fn evict_rows(&mut self) {
        self.runs.retain(|_, run| run.is_complete && !run.has_ended);
        if self.runs.values().map(|run| 1 + run.quantities.len()).sum::<usize>() > CACHED_ROWS_LIMIT
        {
            self.runs.clear();
        }
        if self.balances.len() > CACHED_ROWS_LIMIT {
            self.balances.clear();
        }
    }
}

static USAGE_INSERT: BulkInsert = BulkInsert::new(
    "INSERT INTO usage_line (usage_id, tenant, run, step, attempt, meter, quantity, provider, \
     model, confirmed, price, currency, amount, at_ms, event, pos)",
    16,
    "",
);

async fn write_usage(
    connection: &mut AnyConnection,
    lines: &[UsageLineInsert],
) -> sqlx::Result<()> {
    USAGE_INSERT
        .write(connection, lines, |query, line| {
            query
                .bind(&line.id)
                .bind(line.tenant.as_str())
                .bind(&line.run)
                .bind(&line.step)
                .bind(line.attempt)
                .bind(line.meter.as_str())
                .bind(line.quantity)
                .bind(&line.provider)
                .bind(&line.model)
                .bind(line.confirmed)
                .bind(line.price.as_deref())
                .bind(line.currency)
                // Amounts are text: `i128` in units of 1e-15 exceeds every integer column.
                .bind(line.amount.map(|amount| amount.as_scaled().to_string()))
                .bind(line.at_ms)
                .bind(&line.event)
                .bind(line.pos)
        })
        .await
}

static ENTRY_INSERT: BulkInsert = BulkInsert::new(
    "INSERT INTO ledger_entry (entry, tenant, run, debit, credit, currency, amount, at_ms, pos)",
    9,
    "",
);

async fn write_entries(
    connection: &mut AnyConnection,
    entries: &[LedgerEntryInsert],
) -> sqlx::Result<()> {
    ENTRY_INSERT
        .write(connection, entries, |query, entry| {
            query
                .bind(&entry.usage_id)
                .bind(entry.tenant.as_str())
                .bind(&entry.run)
                .bind(&entry.debit)
                .bind(&entry.credit)
                .bind(entry.currency)
                .bind(entry.amount.as_scaled().to_string())
                .bind(entry.at_ms)
                .bind(entry.pos)
        })
        .await
}

static BALANCE_UPSERT: BulkInsert = BulkInsert::new(
    "INSERT INTO ledger_balance (tenant, account, currency, amount)",
    4,
    "ON CONFLICT (tenant, account, currency) DO UPDATE SET amount = excluded.amount",
);

/// Writes the balances that changed since the last batch.
async fn write_balances(
    connection: &mut AnyConnection,
    balances: &mut HashMap<(TenantId, AccountKey), CachedBalance>,
) -> sqlx::Result<()> {
    let changed = balances.iter_mut().filter_map(|(key, balance)| {
        std::mem::take(&mut balance.is_changed).then_some((key, balance.amount))
    });
    let changed: Vec<_> = changed.collect();
    BALANCE_UPSERT
        .write(connection, &changed, |query, ((tenant, (account, currency)), amount)| {
            query.bind(tenant.as_str()).bind(account).bind(currency).bind(amount.to_string())
        })
        .await
}
