//! Rebuilt equals live, byte for byte; nothing is counted twice; tenants see their own.

use convergio_projections::{ProjectionError, Projections, RunFilter, rebuild_read_models};
use tokio::sync::oneshot;

use crate::support::filled;

#[tokio::test]
async fn a_rebuild_equals_the_live_read_models_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = filled().await;
    let live = Projections::open(&folder.path().join("live.db")).await.expect("opens");
    // Followed in pieces: stopped and started again in the middle.
    let (queries, tail) = (live.query_handle(), log.read_all(convergio_eventstore::Position(0), 1));
    let tail = tail.await.expect("readable").tail;
    let (stop, stopped) = oneshot::channel();
    let running = live.run(log.clone(), stopped);
    let (ran, _) = tokio::join!(running, async {
        assert!(queries.wait_for_position(tail, std::time::Duration::from_secs(30)).await);
        stop.send(()).expect("it runs");
    });
    ran.expect("it works");
    let fresh = folder.path().join("fresh.db");
    rebuild_read_models(&fresh, &*log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(&fresh).await.expect("opens");
    let (live, fresh) =
        (queries.dump_tables().await.expect("rows"), fresh.query_handle().dump_tables().await);
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
        matches!(result, Err(ProjectionError::ConcurrentProjector | ProjectionError::Database(_)))
    };
    assert!(a.is_ok() || b.is_ok());
    assert!(a.is_ok() && b.is_ok() || refused(&a) || refused(&b));
    rebuild_read_models(&folder.path().join("fresh.db"), &*log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(&folder.path().join("fresh.db")).await.expect("opens");
    let rows = one.query_handle().dump_tables().await.expect("rows");
    assert_eq!(
        rows,
        fresh.query_handle().dump_tables().await.expect("rows"),
        "nothing is counted twice"
    );
}

#[tokio::test]
async fn queries_show_a_tenant_its_own_rows_and_pages_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = filled().await;
    let projections = Projections::open(&folder.path().join("read.db")).await.expect("opens");
    projections.catch_up(&*log, |_, _| {}).await.expect("applies");
    let queries = projections.query_handle();
    let (mut runs, mut cursor) = (Vec::new(), None);
    loop {
        let filter = RunFilter::default();
        let page = queries.list_runs("one", &filter, cursor.as_deref(), 7).await.expect("rows");
        runs.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(runs.len(), 23);
    let ids: std::collections::BTreeSet<_> = runs.iter().map(|run| run.run.clone()).collect();
    assert_eq!(ids.len(), 23, "no page repeats a run");
    let all = queries.list_usage_lines("one", None, None, 1000).await.expect("rows");
    assert!(all.items.iter().all(|line| ids.contains(&line.run)));
    let (lines, mut cursor) = (all.items.len(), None);
    let mut paged = 0;
    loop {
        let page = queries.list_usage_lines("one", None, cursor.as_deref(), 3).await.expect("rows");
        paged += page.items.len();
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, lines);
    let agents = queries.list_agents("one", None, None, 10).await.expect("rows").items;
    let told: Vec<_> = agents.iter().map(|a| (&*a.name, &*a.status, a.runs)).collect();
    assert_eq!(told, [("judge", "active", 1), ("tutor", "terminated", 2)]);
    assert_eq!(queries.find_agent("two", &agents[0].agent).await.expect("rows"), None);
    let nobody = queries.find_run("nobody", &runs[0].run).await.expect("rows");
    assert_eq!(nobody, None);
    assert!(queries.list_steps("two", &runs[0].run).await.expect("rows").is_empty());
    let balances = queries.list_balances("one").await.expect("rows");
    let sum: i128 = balances.iter().map(|b| b.amount.parse::<i128>().expect("a number")).sum();
    assert_eq!(sum, 0, "double entry: {balances:?}");
    assert!(queries.count_unpriced_usage("one").await.expect("rows") > 0);
    assert!(queries.list_runs("one", &RunFilter::default(), Some("x"), 7).await.is_err());
}
