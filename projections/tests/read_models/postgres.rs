//! PostgreSQL says the same as SQLite, and is shared by projectors of several processes.

use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::{EventLog, HealthRegistry, Position};
use convergio_projections::{Projections, ReadModelStore, RunFilter, rebuild_read_models};
use sqlx::{AnyConnection, Connection, Executor};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::support::filled;

const PATIENCE: Duration = Duration::from_secs(60);

/// A database of its own on the server that `make test` starts; `None` without one.
async fn database() -> Option<ReadModelStore> {
    let Ok(server) = std::env::var("CONVERGIO_TEST_DATABASE_URL") else {
        eprintln!("skipped: CONVERGIO_TEST_DATABASE_URL names no PostgreSQL server");
        return None;
    };
    sqlx::any::install_default_drivers();
    let name = format!("test_{}", Uuid::now_v7().simple());
    let mut connection = AnyConnection::connect(&server).await.expect("the server answers");
    let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    connection.execute(sql).await.expect("a database");
    let (base, _) = server.rsplit_once('/').expect("a URL");
    Some(ReadModelStore::Server(format!("{base}/{name}")))
}

async fn tail(log: &dyn EventLog) -> Position {
    log.read_all(Position::START, 1).await.expect("readable").tail
}

#[tokio::test]
async fn both_databases_hold_the_same_rows() {
    let Some(store) = database().await else { return };
    let (log, folder) = (filled().await, tempfile::tempdir().expect("a folder"));
    let file = Projections::open(&folder.path().join("read.db")).await.expect("opens");
    file.catch_up(&*log, |_, _| {}).await.expect("applies");
    let server = Projections::open(store.clone()).await.expect("opens");
    server.catch_up(&*log, |_, _| {}).await.expect("applies");
    let rows = server.query_handle().dump_tables().await.expect("rows");
    assert!(rows.lines().count() > 500);
    assert_eq!(file.query_handle().dump_tables().await.expect("rows"), rows);
    rebuild_read_models(store, &*log, |_, _| {}).await.expect("rebuilds");
    assert_eq!(
        server.query_handle().dump_tables().await.expect("rows"),
        rows,
        "a rebuild changes nothing"
    );
}

#[tokio::test]
async fn a_dump_has_every_table_of_the_schema() {
    let Some(store) = database().await else { return };
    let ReadModelStore::Server(url) = &store else { panic!("it is a server") };
    let models = Projections::open(store.clone()).await.expect("opens");
    let dump = models.query_handle().dump_tables().await.expect("rows");
    let mut dumped: Vec<_> = dump.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
    let mut connection = AnyConnection::connect(url).await.expect("connects");
    let sql = "SELECT CAST(table_name AS TEXT) FROM information_schema.tables \
        WHERE table_schema = 'convergio' AND table_name NOT LIKE '\\_%'";
    let tables: Vec<String> =
        sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("rows");
    let mut tables: Vec<_> = tables.iter().map(String::as_str).collect();
    dumped.sort_unstable();
    tables.sort_unstable();
    assert_eq!(dumped, tables);
}

#[tokio::test]
async fn every_query_answers_alike() {
    let Some(store) = database().await else { return };
    let (log, folder) = (filled().await, tempfile::tempdir().expect("a folder"));
    let mut answers = Vec::new();
    for store in [ReadModelStore::File(folder.path().join("read.db")), store] {
        let projections = Projections::open(store).await.expect("opens");
        projections.catch_up(&*log, |_, _| {}).await.expect("applies");
        let queries = projections.query_handle();
        let filter = RunFilter { status: Some("running".into()), ..RunFilter::default() };
        let runs = queries.list_runs("two", &filter, None, 7).await.expect("runs");
        let run = runs.items[0].run.clone();
        answers.push(serde_json::json!([
            runs,
            queries.find_run("two", &run).await.expect("a run"),
            queries.list_steps("two", &run).await.expect("steps"),
            queries.list_usage_lines("two", Some(&run), None, 5).await.expect("usage"),
            queries
                .list_ledger_entries("two", None, None, 1000)
                .await
                .expect("entries")
                .items
                .len(),
            queries.list_balances("two").await.expect("balances"),
            queries.count_unpriced_usage("two").await.expect("a count"),
            queries
                .list_audit_events("two", [None, Some("tester"), None], None, 9)
                .await
                .expect("audit"),
            queries.list_approvals("two", [None, Some("open")], None, 3).await.expect("approvals"),
            queries.list_graphs("two", None, 9).await.expect("graphs"),
        ]));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_projector_that_stands_by_takes_over() {
    let Some(store) = database().await else { return };
    let log = filled().await;
    let (one, two) = (Projections::open(store.clone()).await, Projections::open(store).await);
    let (one, two) = (one.expect("opens"), two.expect("opens"));
    let (stop_one, stopped_one) = oneshot::channel();
    let (stop_two, stopped_two) = oneshot::channel();
    let queries = two.query_handle();
    let (first, second) = (Arc::clone(&log), Arc::clone(&log));
    let one = tokio::spawn(async move { one.run(first, stopped_one).await });
    let two = tokio::spawn(async move { two.run(second, stopped_two).await });
    assert!(queries.wait_for_position(tail(&*log).await, PATIENCE).await);
    stop_one.send(()).expect("it runs");
    one.await.expect("ends").expect("in order");
    crate::support::more(&log).await;
    assert!(queries.wait_for_position(tail(&*log).await, PATIENCE).await, "the other one goes on");
    stop_two.send(()).expect("it runs");
    two.await.expect("ends").expect("in order");
}

/// Ends the connection that waits for a lock, as an operator's hand or a lost network would.
async fn end_waiting(admin: &mut AnyConnection) {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE \
        datname = current_database() AND wait_event_type = 'Lock'";
    loop {
        let ended: i64 = sqlx::query_scalar(sql).fetch_one(&mut *admin).await.expect("a count");
        if ended > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_projector_whose_connection_is_lost_within_a_transaction_goes_on() {
    let Some(store) = database().await else { return };
    let (log, registry) = (filled().await, HealthRegistry::default());
    let models = Projections::open(store.clone()).await.expect("opens");
    let models = models.with_health(registry.component_health("read models"));
    let (queries, (stop, stopped)) = (models.query_handle(), oneshot::channel());
    let followed = Arc::clone(&log);
    let running = tokio::spawn(async move { models.run(followed, stopped).await });
    assert!(queries.wait_for_position(tail(&*log).await, PATIENCE).await);
    let ReadModelStore::Server(url) = &store else { panic!("a server") };
    let mut admin = AnyConnection::connect(url).await.expect("the server answers");
    for _ in 0..3 {
        // The page is written as far as its rows, then its connection ends.
        let mut lock = admin.begin().await.expect("begins");
        (&mut *lock).execute("LOCK TABLE convergio.run_status").await.expect("locks");
        crate::support::more(&log).await;
        end_waiting(&mut lock).await;
        lock.commit().await.expect("frees");
        assert!(
            queries.wait_for_position(tail(&*log).await, PATIENCE).await,
            "it goes on by itself"
        );
    }
    stop.send(()).expect("it runs");
    running.await.expect("ends").expect("in order");
    assert_eq!(registry.current_failures(), []);
    let rows = queries.dump_tables().await.expect("rows");
    rebuild_read_models(store.clone(), &*log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(store).await.expect("opens");
    assert_eq!(
        rows,
        fresh.query_handle().dump_tables().await.expect("rows"),
        "nothing is lost or doubled"
    );
}
