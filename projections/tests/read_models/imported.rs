//! An imported run is shown, and nothing of it is booked, answered or audited as this log's own.

use std::sync::Arc;

use convergio_domain::decider::Wake;
use convergio_domain::event::Event;
use convergio_domain::run::event::{RunEvent, RunImported};
use convergio_domain::stream::{StreamKey, StreamKind};
use convergio_eventstore::{LogWriter, Position, SystemClock, UndecidedCommit, WallClock};
use convergio_projections::{Projections, Queries, rebuild_read_models};

use crate::support::filled;

/// Adds what an import writes behind the records of a run.
async fn mark(log: &Arc<dyn LogWriter>, stream: &StreamKey) {
    let event = Event::Run(RunEvent::RunImported(RunImported {
        by: "ann".parse().expect("a name"),
        file_hash: "abcd".into(),
        signer: Some("5e88".into()),
    }));
    let commit = UndecidedCommit {
        stream: stream.clone(),
        expected: log.stream_head(stream).await.expect("readable"),
        time: SystemClock.now(),
        actor: "ann".parse().expect("a name"),
        events: vec![event],
        payloads: Vec::new(),
        wake: Wake::Done,
    };
    log.append(commit.into()).await.expect("it is next");
}

/// The runs of a tenant, the oldest first.
async fn runs(log: &Arc<dyn LogWriter>, tenant: &str) -> Vec<StreamKey> {
    let page = log.read_all(Position::START, 10_000).await.expect("readable");
    let is_first =
        |stream: &StreamKey| stream.kind == StreamKind::Run && stream.tenant.as_str() == tenant;
    let first = page.records.iter().filter(|record| record.first_seq().0 == 1);
    first.map(|record| record.stream.clone()).filter(is_first).collect()
}

async fn booked(queries: &Queries, run: &StreamKey) -> (usize, usize) {
    let (tenant, id) = (run.tenant.as_str(), run.id.to_string());
    let usage = queries.list_usage_lines(tenant, Some(&id), None, 1000).await.expect("rows");
    let ledger = queries.list_ledger_entries(tenant, Some(&id), None, 1000).await.expect("rows");
    (usage.items.len(), ledger.items.len())
}

#[tokio::test]
async fn what_was_folded_before_the_mark_is_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = filled().await;
    let live = Projections::open(&folder.path().join("live.db")).await.expect("opens");
    live.catch_up(&*log, |_, _| {}).await.expect("folds");
    let queries = live.query_handle();
    let mut imported = Vec::new();
    for run in runs(&log, "one").await.into_iter().step_by(2) {
        imported.push((booked(&queries, &run).await, run));
    }
    let used: usize = imported.iter().map(|((usage, ledger), _)| usage + ledger).sum();
    assert!(used > 10, "there is something to take back");
    let unpriced = queries.count_unpriced_usage("one").await.expect("rows");
    for (_, run) in &imported {
        mark(&log, run).await;
    }
    live.catch_up(&*log, |_, _| {}).await.expect("folds");
    assert!(queries.count_unpriced_usage("one").await.expect("rows") < unpriced);
    for (_, run) in &imported {
        let (tenant, id) = (run.tenant.as_str(), run.id.to_string());
        assert_eq!(booked(&queries, run).await, (0, 0));
        let row = queries.find_run(tenant, &id).await.expect("rows").expect("it is shown");
        assert_eq!(row.imported_by.as_deref(), Some("ann"));
        assert_eq!(row.imported_signer.as_deref(), Some("5e88"));
        let steps = queries.list_steps(tenant, &id).await.expect("rows").len();
        assert_eq!(i64::try_from(steps).expect("few"), row.steps_total, "all of it is shown");
        let open = queries.list_approvals(tenant, [Some(&id), Some("open")], None, 10).await;
        assert_eq!(open.expect("rows").items, []);
        let stream = run.stream_name();
        let acts = queries.list_audit_events(tenant, [Some(&stream), None, None], None, 10).await;
        let acts: Vec<_> = acts.expect("rows").items.into_iter().map(|act| act.kind).collect();
        assert_eq!(acts, ["run.imported.v1"]);
    }
    assert_eq!(sums_of_entries(&queries).await, balances(&queries).await);
    let fresh = folder.path().join("fresh.db");
    rebuild_read_models(&fresh, &*log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(&fresh).await.expect("opens");
    assert_eq!(
        queries.dump_tables().await.expect("rows"),
        fresh.query_handle().dump_tables().await.expect("rows")
    );
}

#[tokio::test]
async fn accounts_that_only_imported_runs_have_moved_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = filled().await;
    for run in runs(&log, "one").await {
        mark(&log, &run).await;
    }
    let models = Projections::open(&folder.path().join("read.db")).await.expect("opens");
    models.catch_up(&*log, |_, _| {}).await.expect("folds");
    assert_eq!(models.query_handle().list_balances("one").await.expect("rows"), []);
    assert_ne!(models.query_handle().list_balances("two").await.expect("rows"), []);
}

/// What each account of the tenant holds by its entries.
async fn sums_of_entries(queries: &Queries) -> Vec<(String, i128)> {
    let mut sums = std::collections::BTreeMap::new();
    for entry in queries.list_ledger_entries("one", None, None, 1000).await.expect("rows").items {
        let amount: i128 = entry.amount.parse().expect("a number");
        *sums.entry(entry.debit).or_insert(0) += amount;
        *sums.entry(entry.credit).or_insert(0) -= amount;
    }
    sums.into_iter().collect()
}

async fn balances(queries: &Queries) -> Vec<(String, i128)> {
    let rows = queries.list_balances("one").await.expect("rows").into_iter();
    rows.map(|row| (row.account, row.amount.parse().expect("a number"))).collect()
}
