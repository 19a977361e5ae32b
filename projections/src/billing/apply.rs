//! What events change in usage lines and the ledger. A usage id counts once, for ever.

use std::collections::BTreeSet;

use convergio_domain::billing::{LedgerPosting, Meter, post_usage, usage_id};
use convergio_domain::id::RunId;
use convergio_domain::run::event::UsageRecorded;
use sqlx::AnyConnection;

use super::row_cache::{
    AccountKey, BillingBatch, CachedBalance, LedgerEntryInsert, UsageLineInsert,
};
use crate::read_model::{AppliedEvent, replace_nul, to_column};

pub(super) async fn record_usage(
    batch: &mut BillingBatch<'_>,
    applied: &AppliedEvent<'_>,
    usage: &UsageRecorded,
) -> sqlx::Result<()> {
    let (tenant, run) = (&applied.record.stream.tenant, RunId(applied.record.stream.id));
    for (meter, quantity) in &usage.usage.0 {
        let id = usage_id(tenant, run, &usage.step, (usage.attempt, usage.turn), *meter);
        // The log may hold the same usage twice, after a retry or an import. Equal quantities are
        // the same usage; a different one is a conflict.
        match find_usage_quantity(batch, applied, &id).await? {
            None => {
                add_usage_line(batch, applied, usage, (id, *meter, to_column(*quantity))).await?;
            }
            Some(recorded_quantity) if recorded_quantity != to_column(*quantity) => {
                insert_usage_conflict(batch.transaction, applied, &id, to_column(*quantity))
                    .await?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Quantity of a usage line that was recorded before, if any.
async fn find_usage_quantity(
    batch: &mut BillingBatch<'_>,
    applied: &AppliedEvent<'_>,
    id: &str,
) -> sqlx::Result<Option<i64>> {
    let run = batch.row_cache.run_usage(&applied.record.stream);
    let quantity = run.quantities.get(id).copied();
    // A run that is cached since its start has all its usage here: no look-up is needed.
    if quantity.is_some() || run.is_complete {
        return Ok(quantity);
    }
    let sql = "SELECT quantity FROM usage_line WHERE usage_id = $1";
    sqlx::query_scalar(sql).bind(id).fetch_optional(&mut *batch.transaction).await
}

async fn add_usage_line(
    batch: &mut BillingBatch<'_>,
    applied: &AppliedEvent<'_>,
    usage: &UsageRecorded,
    (id, meter, quantity): (String, Meter, i64),
) -> sqlx::Result<()> {
    let charge = usage.charge.as_ref();
    let posting = post_usage(usage, meter);
    let run = batch.row_cache.run_usage(&applied.record.stream);
    run.quantities.insert(id.clone(), quantity);
    batch.row_cache.usage.push(UsageLineInsert {
        id: id.clone(),
        tenant: applied.record.stream.tenant.clone(),
        run: applied.stream_id(),
        step: usage.step.to_string(),
        attempt: i64::from(usage.attempt),
        meter,
        quantity,
        provider: replace_nul(&usage.provider),
        model: replace_nul(&usage.model),
        confirmed: i64::from(usage.confirmed),
        price: charge.map(|charge| charge.price.to_string()),
        currency: charge.map(|charge| charge.currency.iso_code()),
        amount: posting.as_ref().map(|posting| posting.amount),
        at_ms: applied.recorded_at().0,
        event: applied.event_id(),
        pos: applied.log_position(),
    });
    match posting {
        Some(posting) => post_ledger_entry(batch, applied, id, posting).await,
        None => Ok(()),
    }
}

/// Notes a conflict: the same usage id with another quantity. It is never billed.
async fn insert_usage_conflict(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    id: &str,
    quantity: i64,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO usage_conflict (usage_id, tenant, quantity, event, pos) \
        VALUES ($1, $2, $3, $4, $5)";
    let conflict = sqlx::query(sql).bind(id).bind(applied.tenant_id()).bind(quantity);
    conflict.bind(applied.event_id()).bind(applied.log_position()).execute(connection).await?;
    Ok(())
}

/// Posts a priced usage line: both balances move, and the entry is queued.
async fn post_ledger_entry(
    batch: &mut BillingBatch<'_>,
    applied: &AppliedEvent<'_>,
    usage_id: String,
    posting: LedgerPosting,
) -> sqlx::Result<()> {
    let currency = posting.currency.iso_code();
    for (account, change) in posting.balance_changes() {
        move_balance(batch, applied, (replace_nul(account), currency.to_owned()), change).await?;
    }
    batch.row_cache.entries.push(LedgerEntryInsert {
        usage_id,
        tenant: applied.record.stream.tenant.clone(),
        run: applied.stream_id(),
        debit: replace_nul(&posting.debit),
        credit: replace_nul(&posting.credit),
        currency,
        amount: posting.amount,
        at_ms: applied.recorded_at().0,
        pos: applied.log_position(),
    });
    Ok(())
}

async fn move_balance(
    batch: &mut BillingBatch<'_>,
    applied: &AppliedEvent<'_>,
    account: AccountKey,
    change: i128,
) -> sqlx::Result<()> {
    let key = (applied.record.stream.tenant.clone(), account);
    if let Some(balance) = batch.row_cache.balances.get_mut(&key) {
        (balance.amount, balance.is_changed) = (balance.amount + change, true);
        return Ok(());
    }
    let sql = "SELECT amount FROM ledger_balance WHERE tenant = $1 AND account = $2 \
        AND currency = $3";
    let (tenant, (account, currency)) = &key;
    let amount = sqlx::query_scalar(sql).bind(tenant.as_str()).bind(account).bind(currency);
    let amount: Option<String> = amount.fetch_optional(&mut *batch.transaction).await?;
    let before: i128 = amount.and_then(|amount| amount.parse().ok()).unwrap_or(0);
    batch
        .row_cache
        .balances
        .insert(key, CachedBalance { amount: before + change, is_changed: true });
    Ok(())
}

/// Takes back what was booked of a run: its usage lines, its entries, and their effect on balances.
/// Costs of an imported run were paid to providers elsewhere, and must not enter this ledger.
pub(super) async fn reverse_billing(
    batch: &mut BillingBatch<'_>,
    applied: &AppliedEvent<'_>,
) -> sqlx::Result<()> {
    // The statements below work on tables, so cached rows are written first.
    batch.row_cache.write_rows(&mut *batch.transaction).await?;
    let sql = "SELECT debit, credit, currency, amount FROM ledger_entry \
        WHERE tenant = $1 AND run = $2";
    let entries = sqlx::query_as(sql).bind(applied.tenant_id()).bind(applied.stream_id());
    let entries: Vec<(String, String, String, String)> =
        entries.fetch_all(&mut *batch.transaction).await?;
    // Conflicts first: they are found by the usage lines that the next statement removes.
    for sql in [
        "DELETE FROM usage_conflict WHERE usage_id IN \
            (SELECT usage_id FROM usage_line WHERE tenant = $1 AND run = $2)",
        "DELETE FROM usage_line WHERE tenant = $1 AND run = $2",
        "DELETE FROM ledger_entry WHERE tenant = $1 AND run = $2",
    ] {
        sqlx::query(sql)
            .bind(applied.tenant_id())
            .bind(applied.stream_id())
            .execute(&mut *batch.transaction)
            .await?;
    }
    let mut accounts = BTreeSet::new();
    for (debit, credit, currency, amount) in entries {
        let amount: i128 = amount.parse().unwrap_or(0);
        move_balance(batch, applied, (debit.clone(), currency.clone()), -amount).await?;
        move_balance(batch, applied, (credit.clone(), currency.clone()), amount).await?;
        accounts.extend([(debit, currency.clone()), (credit, currency)]);
    }
    for account in accounts {
        close_account(batch, applied, account).await?;
    }
    Ok(())
}

/// Removes an account without entries, so that the tables equal those of a log without the run.
async fn close_account(
    batch: &mut BillingBatch<'_>,
    applied: &AppliedEvent<'_>,
    account: AccountKey,
) -> sqlx::Result<()> {
    let sql = "SELECT count(*) FROM ledger_entry WHERE tenant = $1 AND currency = $2 \
        AND (debit = $3 OR credit = $3)";
    let (name, currency) = &account;
    let entries = sqlx::query_scalar(sql).bind(applied.tenant_id()).bind(currency).bind(name);
    let entries: i64 = entries.fetch_one(&mut *batch.transaction).await?;
    if entries > 0 {
        return Ok(());
    }
    let sql = "DELETE FROM ledger_balance WHERE tenant = $1 AND currency = $2 AND account = $3";
    let query = sqlx::query(sql).bind(applied.tenant_id()).bind(currency).bind(name);
    query.execute(&mut *batch.transaction).await?;
    batch.row_cache.balances.remove(&(applied.record.stream.tenant.clone(), account));
    Ok(())
}
