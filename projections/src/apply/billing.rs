//! Usage lines and the ledger. A usage id counts once, for ever.

use std::collections::{BTreeSet, HashMap};

use convergio_domain::event::run::UsageRecorded;
use convergio_domain::id::{RunId, TenantId};
use convergio_domain::metering::{Meter, usage_id};
use convergio_domain::money::Money;
use sqlx::AnyConnection;

use super::bulk::Bulk;
use super::{Applied, Page, signed, storable};

/// A usage line that waits to be written: a quantity of one meter and its price.
pub(super) struct UsageLine {
    id: String,
    tenant: TenantId,
    run: String,
    step: String,
    attempt: i64,
    meter: Meter,
    quantity: i64,
    provider: String,
    model: String,
    confirmed: i64,
    price: Option<String>,
    currency: Option<&'static str>,
    amount: Option<Money>,
    at_ms: i64,
    event: String,
    pos: i64,
}

/// A ledger entry that waits to be written. Double entry: a cost account is debited, the provider's
/// payable account credited.
pub(super) struct Entry {
    line: String,
    tenant: TenantId,
    run: String,
    debit: String,
    credit: String,
    currency: &'static str,
    amount: Money,
    at_ms: i64,
    pos: i64,
}

/// Name of an account and its currency.
pub(super) type Account = (String, String);

/// Balance of an account in units of 1e-15, and whether the table lags behind it.
pub(super) struct Balance {
    amount: i128,
    is_changed: bool,
}

pub(super) async fn apply(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    usage: &UsageRecorded,
) -> sqlx::Result<()> {
    let (tenant, run) = (&a.record.stream.tenant, RunId(a.record.stream.id));
    for (meter, quantity) in &usage.usage.0 {
        let id = usage_id(tenant, run, &usage.step, (usage.attempt, usage.turn), *meter);
        // The log may hold the same usage twice, after a retry or an import. Equal quantities are
        // the same usage; a different one is a conflict.
        match known(page, a, &id).await? {
            None => add(page, a, usage, (id, *meter, signed(*quantity))).await?,
            Some(known) if known != signed(*quantity) => {
                conflict(page.to, a, &id, signed(*quantity)).await?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Quantity of a usage line that was recorded before, if any.
async fn known(page: &mut Page<'_>, a: &Applied<'_>, id: &str) -> sqlx::Result<Option<i64>> {
    let run = page.held.run(page.to, &a.record.stream).await?;
    let known = run.lines.get(id).copied();
    // A run that is cached since its start has all its usage here: no look-up is needed.
    if known.is_some() || run.is_whole {
        return Ok(known);
    }
    let sql = "SELECT quantity FROM usage_line WHERE usage_id = $1";
    sqlx::query_scalar(sql).bind(id).fetch_optional(&mut *page.to).await
}

async fn add(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    usage: &UsageRecorded,
    (id, meter, quantity): (String, Meter, i64),
) -> sqlx::Result<()> {
    let charge = usage.charge.as_ref();
    let amount = charge.and_then(|charge| charge.lines.get(&meter)).copied();
    let run = page.held.run(page.to, &a.record.stream).await?;
    run.lines.insert(id.clone(), quantity);
    page.held.usage.push(UsageLine {
        id: id.clone(),
        tenant: a.record.stream.tenant.clone(),
        run: a.id(),
        step: usage.step.to_string(),
        attempt: i64::from(usage.attempt),
        meter,
        quantity,
        provider: storable(&usage.provider),
        model: storable(&usage.model),
        confirmed: i64::from(usage.confirmed),
        price: charge.map(|charge| charge.price.to_string()),
        currency: charge.map(|charge| charge.currency.code()),
        amount,
        at_ms: a.at().0,
        event: a.event_id(),
        pos: a.pos(),
    });
    match (amount, charge) {
        (Some(amount), Some(charge)) => {
            post(page, a, usage, (id, charge.currency.code(), amount)).await
        }
        _ => Ok(()),
    }
}

/// Notes a conflict: the same usage id with another quantity. It is never billed.
async fn conflict(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    id: &str,
    quantity: i64,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO usage_conflict (usage_id, tenant, quantity, event, pos) \
        VALUES ($1, $2, $3, $4, $5)";
    let conflict = sqlx::query(sql).bind(id).bind(a.tenant()).bind(quantity);
    conflict.bind(a.event_id()).bind(a.pos()).execute(to).await?;
    Ok(())
}

/// Posts a priced usage line: both balances move, and the entry is queued.
async fn post(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    usage: &UsageRecorded,
    (line, currency, amount): (String, &'static str, Money),
) -> sqlx::Result<()> {
    // The model is the cost account and the provider the creditor, so that balances answer both
    // questions.
    let debit = storable(&format!("cost:{}", usage.model));
    let credit = storable(&format!("payable:{}", usage.provider));
    move_balance(page, a, (debit.clone(), currency.to_owned()), amount.scaled()).await?;
    move_balance(page, a, (credit.clone(), currency.to_owned()), -amount.scaled()).await?;
    page.held.entries.push(Entry {
        line,
        tenant: a.record.stream.tenant.clone(),
        run: a.id(),
        debit,
        credit,
        currency,
        amount,
        at_ms: a.at().0,
        pos: a.pos(),
    });
    Ok(())
}

async fn move_balance(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    account: Account,
    change: i128,
) -> sqlx::Result<()> {
    let key = (a.record.stream.tenant.clone(), account);
    if let Some(balance) = page.held.balances.get_mut(&key) {
        (balance.amount, balance.is_changed) = (balance.amount + change, true);
        return Ok(());
    }
    let sql = "SELECT amount FROM ledger_balance WHERE tenant = $1 AND account = $2 \
        AND currency = $3";
    let (tenant, (account, currency)) = &key;
    let known = sqlx::query_scalar(sql).bind(tenant.as_str()).bind(account).bind(currency);
    let known: Option<String> = known.fetch_optional(&mut *page.to).await?;
    let before: i128 = known.and_then(|amount| amount.parse().ok()).unwrap_or(0);
    page.held.balances.insert(key, Balance { amount: before + change, is_changed: true });
    Ok(())
}

/// Takes back what was booked of a run: its usage lines, its entries, and their effect on balances.
/// The caller has flushed the row cache, so everything is in the tables.
pub(super) async fn unbook(page: &mut Page<'_>, a: &Applied<'_>) -> sqlx::Result<()> {
    let sql = "SELECT debit, credit, currency, amount FROM ledger_entry \
        WHERE tenant = $1 AND run = $2";
    let entries = sqlx::query_as(sql).bind(a.tenant()).bind(a.id());
    let entries: Vec<(String, String, String, String)> = entries.fetch_all(&mut *page.to).await?;
    // Conflicts first: they are found by the usage lines that the next statement removes.
    for sql in [
        "DELETE FROM usage_conflict WHERE usage_id IN \
            (SELECT usage_id FROM usage_line WHERE tenant = $1 AND run = $2)",
        "DELETE FROM usage_line WHERE tenant = $1 AND run = $2",
        "DELETE FROM ledger_entry WHERE tenant = $1 AND run = $2",
    ] {
        sqlx::query(sql).bind(a.tenant()).bind(a.id()).execute(&mut *page.to).await?;
    }
    let mut accounts = BTreeSet::new();
    for (debit, credit, currency, amount) in entries {
        let amount: i128 = amount.parse().unwrap_or(0);
        move_balance(page, a, (debit.clone(), currency.clone()), -amount).await?;
        move_balance(page, a, (credit.clone(), currency.clone()), amount).await?;
        accounts.extend([(debit, currency.clone()), (credit, currency)]);
    }
    for account in accounts {
        close_account(page, a, account).await?;
    }
    Ok(())
}

/// Removes an account without entries, so that the tables equal those of a log without the run.
async fn close_account(page: &mut Page<'_>, a: &Applied<'_>, account: Account) -> sqlx::Result<()> {
    let sql = "SELECT count(*) FROM ledger_entry WHERE tenant = $1 AND currency = $2 \
        AND (debit = $3 OR credit = $3)";
    let (name, currency) = &account;
    let entries = sqlx::query_scalar(sql).bind(a.tenant()).bind(currency).bind(name);
    let entries: i64 = entries.fetch_one(&mut *page.to).await?;
    if entries > 0 {
        return Ok(());
    }
    let sql = "DELETE FROM ledger_balance WHERE tenant = $1 AND currency = $2 AND account = $3";
    let query = sqlx::query(sql).bind(a.tenant()).bind(currency).bind(name);
    query.execute(&mut *page.to).await?;
    page.held.balances.remove(&(a.record.stream.tenant.clone(), account));
    Ok(())
}

static USAGE: Bulk = Bulk::new(
    "INSERT INTO usage_line (usage_id, tenant, run, step, attempt, meter, quantity, provider, \
     model, confirmed, price, currency, amount, at_ms, event, pos)",
    16,
    "",
);

pub(super) async fn write_usage(to: &mut AnyConnection, lines: &[UsageLine]) -> sqlx::Result<()> {
    USAGE
        .write(to, lines, |query, line| {
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
                .bind(line.amount.map(|amount| amount.scaled().to_string()))
                .bind(line.at_ms)
                .bind(&line.event)
                .bind(line.pos)
        })
        .await
}

static ENTRIES: Bulk = Bulk::new(
    "INSERT INTO ledger_entry (entry, tenant, run, debit, credit, currency, amount, at_ms, pos)",
    9,
    "",
);

pub(super) async fn write_entries(to: &mut AnyConnection, entries: &[Entry]) -> sqlx::Result<()> {
    ENTRIES
        .write(to, entries, |query, entry| {
            query
                .bind(&entry.line)
                .bind(entry.tenant.as_str())
                .bind(&entry.run)
                .bind(&entry.debit)
                .bind(&entry.credit)
                .bind(entry.currency)
                .bind(entry.amount.scaled().to_string())
                .bind(entry.at_ms)
                .bind(entry.pos)
        })
        .await
}

static BALANCES: Bulk = Bulk::new(
    "INSERT INTO ledger_balance (tenant, account, currency, amount)",
    4,
    "ON CONFLICT (tenant, account, currency) DO UPDATE SET amount = excluded.amount",
);

/// Writes the balances that changed since the last batch.
pub(super) async fn write_balances(
    to: &mut AnyConnection,
    balances: &mut HashMap<(TenantId, Account), Balance>,
) -> sqlx::Result<()> {
    let changed = balances.iter_mut().filter_map(|(key, balance)| {
        std::mem::take(&mut balance.is_changed).then_some((key, balance.amount))
    });
    let changed: Vec<_> = changed.collect();
    BALANCES
        .write(to, &changed, |query, ((tenant, (account, currency)), amount)| {
            query.bind(tenant.as_str()).bind(account).bind(currency).bind(amount.to_string())
        })
        .await
}
