//! Usage lines and the ledger. A usage id counts once, for ever.

use convergio_domain::event::run::UsageRecorded;
use convergio_domain::id::RunId;
use convergio_domain::metering::{Meter, usage_id};
use convergio_domain::money::Money;
use sqlx::{AnyConnection, Row};

use super::{Applied, signed, storable};

pub(super) async fn apply(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    usage: &UsageRecorded,
) -> sqlx::Result<()> {
    let run = RunId(a.record.stream.id);
    for (meter, quantity) in &usage.usage.0 {
        let tenant = &a.record.stream.tenant;
        let id = usage_id(tenant, run, &usage.step, (usage.attempt, usage.turn), *meter);
        let amount = usage.charge.as_ref().and_then(|c| c.lines.get(meter)).copied();
        if insert(to, a, usage, &id, *meter, *quantity, amount).await? {
            if let (Some(amount), Some(charge)) = (amount, &usage.charge) {
                post(to, a, usage, &id, charge.currency.code(), amount).await?;
            }
        } else {
            compare(to, a, &id, *quantity).await?;
        }
    }
    Ok(())
}

/// Whether the line is new.
async fn insert(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    usage: &UsageRecorded,
    id: &str,
    meter: Meter,
    quantity: u64,
    amount: Option<Money>,
) -> sqlx::Result<bool> {
    let charge = usage.charge.as_ref();
    let sql = "INSERT INTO usage_line (usage_id, tenant, run, step, attempt, meter, quantity, \
        provider, model, confirmed, price, currency, amount, at_ms, event, pos) VALUES \
        ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
        ON CONFLICT (usage_id) DO NOTHING";
    let done = sqlx::query(sql)
        .bind(id)
        .bind(a.tenant())
        .bind(a.id())
        .bind(usage.step.to_string())
        .bind(i64::from(usage.attempt))
        .bind(meter.as_str())
        .bind(signed(quantity))
        .bind(storable(&usage.provider))
        .bind(storable(&usage.model))
        .bind(i64::from(usage.confirmed))
        .bind(charge.map(|charge| charge.price.as_str()))
        .bind(charge.map(|charge| charge.currency.code()))
        .bind(amount.map(|amount| amount.scaled().to_string()))
        .bind(a.at().0)
        .bind(a.event_id())
        .bind(a.pos())
        .execute(to)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The same id with another quantity is a conflict: noted, and never billed.
async fn compare(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    id: &str,
    quantity: u64,
) -> sqlx::Result<()> {
    let known = sqlx::query("SELECT quantity FROM usage_line WHERE usage_id = $1").bind(id);
    let known: i64 = known.fetch_one(&mut *to).await?.try_get(0)?;
    if known == signed(quantity) {
        return Ok(());
    }
    let sql = "INSERT INTO usage_conflict (usage_id, tenant, quantity, event, pos) \
        VALUES ($1, $2, $3, $4, $5)";
    let conflict = sqlx::query(sql).bind(id).bind(a.tenant()).bind(signed(quantity));
    conflict.bind(a.event_id()).bind(a.pos()).execute(to).await?;
    Ok(())
}

/// Double entry: what the run cost, and whom it is owed to.
async fn post(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    usage: &UsageRecorded,
    id: &str,
    currency: &str,
    amount: Money,
) -> sqlx::Result<()> {
    let debit = storable(&format!("cost:{}", usage.model));
    let credit = storable(&format!("payable:{}", usage.provider));
    let sql = "INSERT INTO ledger_entry (entry, tenant, run, debit, credit, currency, amount, \
        at_ms, pos) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    sqlx::query(sql)
        .bind(id)
        .bind(a.tenant())
        .bind(a.id())
        .bind(&debit)
        .bind(&credit)
        .bind(currency)
        .bind(amount.scaled().to_string())
        .bind(a.at().0)
        .bind(a.pos())
        .execute(&mut *to)
        .await?;
    balance(to, a, &debit, currency, amount.scaled()).await?;
    balance(to, a, &credit, currency, -amount.scaled()).await
}

async fn balance(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    account: &str,
    currency: &str,
    change: i128,
) -> sqlx::Result<()> {
    let sql = "SELECT amount FROM ledger_balance WHERE tenant = $1 AND account = $2 \
        AND currency = $3";
    let known: Option<String> = sqlx::query_scalar(sql)
        .bind(a.tenant())
        .bind(account)
        .bind(currency)
        .fetch_optional(&mut *to)
        .await?;
    let before: i128 = known.and_then(|amount| amount.parse().ok()).unwrap_or(0);
    let sql = "INSERT INTO ledger_balance (tenant, account, currency, amount) \
        VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant, account, currency) DO UPDATE SET amount = excluded.amount";
    let row = sqlx::query(sql).bind(a.tenant()).bind(account).bind(currency);
    row.bind((before + change).to_string()).execute(to).await?;
    Ok(())
}
