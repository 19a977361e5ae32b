//! Read models are disposable: rebuilt equals live, byte for byte; tenants see their own.

use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::decider::Context;
use convergio_domain::id::{ApprovalId, ExecutorId, GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::metering::{Meter, PriceBook, Usage};
use convergio_domain::payload::{PayloadSlot, Purpose};
use convergio_domain::run::{
    Advance, Budget, CallReport, CreateRun, End, Intent, Outcome, Run, RunCommand, Start,
    StepResult,
};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_eventstore::{Clock, EventLog, MemoryLog, Payload, Repository, SystemClock};
use convergio_projections::{ProjectionError, Projections, RunFilter, rebuild};
use tokio::sync::oneshot;
use uuid::Uuid;

const PRICES: &str = r#"[{"provider": "local", "model": "*", "from_ms": 0, "currency": "USD",
    "per_token": {"in_fresh": "0.000001", "out_text": "0.000002"}}]"#;

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a name")
}

/// A log with runs of several shapes and tenants.
async fn filled() -> Arc<dyn EventLog> {
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
    let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
    for number in 0..60_u32 {
        let tenant = tenant(if number.is_multiple_of(3) { "one" } else { "two" });
        run(&repository, &tenant, number).await;
    }
    log
}

async fn run(repository: &Repository, tenant: &TenantId, number: u32) {
    let stream = StreamKey::run(tenant.clone(), RunId(Uuid::now_v7()));
    let context = Context { now: SystemClock.now(), actor: "tester".parse().expect("a name") };
    let payload = Payload {
        bytes: Bytes::from_static(b"{}"),
        media_type: "application/json".into(),
        purpose: Purpose::Input,
        subject: None,
    };
    let tell = async |command: RunCommand, payloads: usize| {
        let payloads = vec![payload.clone(); payloads];
        let commands = |_: &_, _| (command.clone(), payloads.clone());
        repository.execute::<Run>(&stream, &context, commands).await.expect("the run takes it");
    };
    let create = CreateRun {
        graph: GraphId(Uuid::from_u128(u128::from(number % 5))),
        version: GraphVersion::of(b"{}"),
        input: PayloadSlot(0),
        budget: Budget::default(),
        request_hash: "r".into(),
    };
    tell(RunCommand::Create(create), 1).await;
    tell(RunCommand::Advance(Advance { starts: starts(number), ..advance() }), 2).await;
    if number % 4 == 3 {
        return tell(RunCommand::Cancel { reason: None }, 0).await;
    }
    let mut outcomes = vec![answered(number)];
    outcomes.push(Outcome {
        step: "tool".parse().expect("a step"),
        attempt: 1,
        call: None,
        result: StepResult::Completed { output: Some(PayloadSlot(0)), case: None },
        skipped: vec!["other".parse().expect("a node")],
    });
    let end = (number.is_multiple_of(2)).then_some(End::Completed { output: Some(PayloadSlot(1)) });
    tell(RunCommand::Advance(Advance { outcomes, end, ..advance() }), 2).await;
}

fn advance() -> Advance {
    let executor = ExecutorId(Uuid::nil());
    let (outcomes, instant, ready) = (Vec::new(), Vec::new(), Vec::new());
    Advance { executor, outcomes, instant, ready, starts: Vec::new(), end: None }
}

fn starts(number: u32) -> Vec<Start> {
    let call = Intent::CallModel {
        provider: "local".into(),
        model: "m".into(),
        route: "cheapest".into(),
        prompt: PayloadSlot(0),
        reserved_tokens: 100,
        reserved_cost: None,
    };
    let ask = Intent::Ask {
        approval: ApprovalId(Uuid::now_v7()),
        role: "teacher".into(),
        content: PayloadSlot(1),
        content_hash: "h".into(),
        expires: Some(Timestamp(i64::from(number))),
    };
    let start = |id: &str, intent| Start { step: id.parse().expect("a step"), intent };
    vec![start("agent", call), start("tool", Intent::Compute), start("ask", ask)]
}

fn answered(number: u32) -> Outcome {
    let prices = PriceBook::parse(PRICES).expect("a book");
    let usage = Usage([(Meter::InFresh, 10), (Meter::OutText, u64::from(number))].into());
    let model = if number.is_multiple_of(5) { "unknown" } else { "local" };
    let charge = prices.charge(model, "m", Timestamp(1), &usage);
    let call = CallReport {
        provider: "local".into(),
        model: "m".into(),
        finish: Some("stop".into()),
        duration_ms: 7,
        first_token_ms: None,
        usage: Some(usage),
        confirmed: true,
        charge,
    };
    let result = StepResult::Completed { output: Some(PayloadSlot(0)), case: None };
    let step = "agent".parse().expect("a step");
    Outcome { step, attempt: 1, result, call: Some(call), skipped: Vec::new() }
}

#[tokio::test]
async fn a_rebuild_equals_the_live_read_models_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = filled().await;
    let live = Projections::open(&folder.path().join("live.db")).await.expect("opens");
    // Followed in pieces: stopped and started again in the middle.
    let (queries, tail) = (live.queries(), log.read_all(convergio_eventstore::Position(0), 1));
    let tail = tail.await.expect("readable").tail;
    let (stop, stopped) = oneshot::channel();
    let running = live.run(Arc::clone(&log), stopped);
    let (ran, _) = tokio::join!(running, async {
        assert!(queries.wait_for(tail, std::time::Duration::from_secs(30)).await);
        stop.send(()).expect("it runs");
    });
    ran.expect("it works");
    let fresh = folder.path().join("fresh.db");
    rebuild(&fresh, &*log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(&fresh).await.expect("opens");
    let (live, fresh) = (queries.dump().await.expect("rows"), fresh.queries().dump().await);
    assert!(live.lines().count() > 500, "there is something to compare");
    assert_eq!(live, fresh.expect("rows"));
}

#[tokio::test]
async fn two_projectors_on_one_file_do_not_both_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("read.db");
    let log = filled().await;
    let (one, two) = (Projections::open(&file).await, Projections::open(&file).await);
    let (one, two) = (one.expect("opens"), two.expect("opens"));
    let (a, b) = tokio::join!(one.catch_up(&*log, |_, _| {}), two.catch_up(&*log, |_, _| {}));
    let refused = |result: &Result<(), ProjectionError>| {
        matches!(result, Err(ProjectionError::NotAlone | ProjectionError::Database(_)))
    };
    assert!(a.is_ok() || b.is_ok());
    assert!(a.is_ok() && b.is_ok() || refused(&a) || refused(&b));
    rebuild(&folder.path().join("fresh.db"), &*log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(&folder.path().join("fresh.db")).await.expect("opens");
    let rows = one.queries().dump().await.expect("rows");
    assert_eq!(rows, fresh.queries().dump().await.expect("rows"), "nothing is counted twice");
}

#[tokio::test]
async fn queries_show_a_tenant_its_own_rows_and_pages_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = filled().await;
    let projections = Projections::open(&folder.path().join("read.db")).await.expect("opens");
    projections.catch_up(&*log, |_, _| {}).await.expect("applies");
    let queries = projections.queries();
    let (mut runs, mut cursor) = (Vec::new(), None);
    loop {
        let filter = RunFilter::default();
        let page = queries.runs("one", &filter, cursor.as_deref(), 7).await.expect("rows");
        runs.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(runs.len(), 20);
    let ids: std::collections::BTreeSet<_> = runs.iter().map(|run| run.run.clone()).collect();
    assert_eq!(ids.len(), 20, "no page repeats a run");
    let all = queries.usage("one", None, None, 1000).await.expect("rows");
    assert!(all.items.iter().all(|line| ids.contains(&line.run)));
    let (lines, mut cursor) = (all.items.len(), None);
    let mut paged = 0;
    loop {
        let page = queries.usage("one", None, cursor.as_deref(), 3).await.expect("rows");
        paged += page.items.len();
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, lines);
    let nobody = queries.run("nobody", &runs[0].run).await.expect("rows");
    assert_eq!(nobody, None);
    assert!(queries.steps("two", &runs[0].run).await.expect("rows").is_empty());
    let balances = queries.balances("one").await.expect("rows");
    let sum: i128 = balances.iter().map(|b| b.amount.parse::<i128>().expect("a number")).sum();
    assert_eq!(sum, 0, "double entry: {balances:?}");
    assert!(queries.unpriced("one").await.expect("rows") > 0);
    assert!(queries.runs("one", &RunFilter::default(), Some("x"), 7).await.is_err());
}
