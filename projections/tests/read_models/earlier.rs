//! Read models of an earlier program: opening brings their tables up, and following fills them.

use std::path::Path;

use convergio_eventstore::Position;
use convergio_projections::{Projections, rebuild_read_models};
use sqlx::{AnyConnection, Connection, Executor};

use crate::support::filled;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// The tables' form before steps of ended runs were abandoned.
const BEFORE: i64 = 40;

/// Makes read models of an earlier program that say that they hold everything up to a position.
async fn make_earlier(file: &Path, position: Position) {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=rwc", file.display());
    let mut connection = AnyConnection::connect(&url).await.expect("opens");
    MIGRATIONS.run_direct(Some(BEFORE), &mut connection, false).await.expect("makes tables");
    let sql = format!(
        "INSERT INTO projection_position (name, pos) VALUES ('all', {});
         INSERT INTO step VALUES ('one', 'r', 'a', 'a', -1, 'tool', 'started', 1, 5, NULL, NULL, \
            NULL, 0, 0, '0', NULL, NULL, NULL, 3);
         INSERT INTO ledger_balance VALUES ('one', 'spent', 'USD', '7')",
        position.0
    );
    connection.execute(sqlx::AssertSqlSafe(sql)).await.expect("rows");
    connection.close().await.expect("closes");
}

#[tokio::test]
async fn read_models_of_an_earlier_program_come_up_by_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = filled().await;
    let tail = log.read_all(Position::START, 1).await.expect("readable").tail;
    let (file, fresh) = (folder.path().join("read.db"), folder.path().join("fresh.db"));
    make_earlier(&file, tail).await;
    let models = Projections::open(&file).await.expect("brings them up");
    let queries = models.query_handle();
    assert_eq!(queries.read_position().await.expect("a position"), Position::START);
    models.catch_up(&*log, |_, _| {}).await.expect("folds");
    rebuild_read_models(&fresh, &*log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(&fresh).await.expect("opens");
    let rebuilt = fresh.query_handle().dump_tables().await.expect("rows");
    assert_eq!(queries.dump_tables().await.expect("rows"), rebuilt);
}

#[tokio::test]
async fn an_earlier_program_finds_no_position_to_go_on_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("read.db");
    Projections::open(&file).await.expect("opens").close().await;
    let mut connection =
        AnyConnection::connect(&format!("sqlite://{}", file.display())).await.expect("opens");
    // As it would move on: it stops, in place of writing rows of the form before.
    let moved = connection.execute("UPDATE projection_position SET pos = 9").await;
    assert!(moved.expect_err("no such table").to_string().contains("projection_position"));
}
