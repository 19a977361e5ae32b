//! `convergio ledger`, `usage` and `audit`: listings with the same arguments.

use std::process::ExitCode;

use convergio_process::out_line;
use convergio_process::terminal::{self, print_json};
use convergio_schemas::wire::{AuditEntry, LedgerView, Page, UsageLine};

use crate::cli::{GlobalOptions, RunListArgs};
use crate::target::ServerTarget;
use crate::view;

fn list_query(args: &RunListArgs) -> Vec<(&'static str, String)> {
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.run.clone().map(|run| ("run", run)));
    query
}

/// Fetches one page of a listing from a server.
async fn fetch_page<T: serde::de::DeserializeOwned>(
    global: &GlobalOptions,
    path: &str,
    query: &[(&str, String)],
) -> anyhow::Result<T> {
    let target = ServerTarget::find_or_start(global, false).await?;
    let page = target.client.get(path, query).await;
    target.close().await?;
    page
}

pub(super) async fn show_ledger(
    global: &GlobalOptions,
    args: &RunListArgs,
) -> anyhow::Result<ExitCode> {
    let ledger: LedgerView = fetch_page(global, "/v1/ledger", &list_query(args)).await?;
    if global.json {
        print_json(&ledger)?;
    } else {
        print_ledger(&ledger);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the balances and the number of entries and unpriced lines.
pub(super) fn print_ledger(ledger: &LedgerView) {
    let rows = ledger.balances.iter().map(|balance| {
        vec![balance.account.clone(), balance.amount.clone(), balance.currency.clone()]
    });
    view::print_rows(&["account", "balance", "currency"], rows.collect());
    let more = if ledger.next_cursor.is_some() { " or more" } else { "" };
    out_line!(
        "{}{more} entries, {} usage lines without a price",
        ledger.entries.len(),
        ledger.unpriced_lines
    );
}

pub(super) async fn show_usage(
    global: &GlobalOptions,
    args: &RunListArgs,
) -> anyhow::Result<ExitCode> {
    let page: Page<UsageLine> = fetch_page(global, "/v1/usage", &list_query(args)).await?;
    if global.json {
        print_json(&page)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = page.items.into_iter().map(|line| {
        let confirmed = if line.confirmed { "" } else { "estimate" }.to_owned();
        let amount = line.amount.unwrap_or_else(|| "unpriced".to_owned());
        vec![
            line.at,
            line.step,
            line.attempt.to_string(),
            line.meter,
            line.quantity.to_string(),
            line.model,
            amount,
            confirmed,
        ]
    });
    let header = ["at", "step", "try", "meter", "quantity", "model", "amount", ""];
    view::print_rows(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show_audit(
    global: &GlobalOptions,
    args: &RunListArgs,
) -> anyhow::Result<ExitCode> {
    // The audit trail is filtered by stream, whichever kind it has.
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.run.as_ref().map(|run| ("stream", format!("run/{run}"))));
    let page: Page<AuditEntry> = fetch_page(global, "/v1/audit", &query).await?;
    if global.json {
        print_json(&page)?;
    } else {
        print_audit(&page.items);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints audit entries, one a line, with shortened facts.
pub(super) fn print_audit(entries: &[AuditEntry]) {
    let rows = entries.iter().map(|entry| {
        let facts = terminal::shorten_line(&entry.summary.to_string(), 90);
        vec![entry.at.clone(), entry.actor.clone(), entry.kind.clone(), facts]
    });
    view::print_rows(&["at", "who", "what", "facts"], rows.collect());
}
