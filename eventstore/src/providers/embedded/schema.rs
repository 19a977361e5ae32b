//! The database file: its tables, migrations, and connection settings.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::sql_values::sqlite_error;
use crate::error::LogError;
use crate::private_files::{narrow_mode, open_private_file};

/// SQLite application id of this file format ("CVGL").
const APPLICATION_ID: i32 = 0x4356_474C;
const SCHEMA_VERSION: i32 = 4;
/// Pages of write-ahead log after which SQLite checkpoints them into the database.
const CHECKPOINT_PAGES: i32 = 4000;

/// Tables of the current version. `record.dedup` and `record.commit_end` are the halves of the
/// commit id. `record.delay` is the time in milliseconds from `time`, when the events occurred, to
/// their arrival. `payload.id` is `position * 64 + index`. The wake index is split, since nearly
/// all entries are due now.
const CREATE_TABLES: &str = "
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    kind INTEGER NOT NULL,
    uuid BLOB NOT NULL,
    UNIQUE (uuid, kind, tenant)
);
CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    time INTEGER NOT NULL,
    delay INTEGER NOT NULL,
    dedup INTEGER NOT NULL,
    commit_end INTEGER NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX record_stream ON record (stream, seq);
CREATE TABLE payload (id INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
CREATE TABLE wake_now (stream INTEGER PRIMARY KEY);
CREATE TABLE wake (stream INTEGER PRIMARY KEY, due INTEGER NOT NULL);
CREATE INDEX wake_due ON wake (due);
";

/// Migration from version 3. Its tables are the same; payloads have been sealed in another format
/// since.
const MIGRATE_FROM_3: &str = "";

/// Migration from version 2, which stored heads with the streams, and an index of commit ids.
const MIGRATE_FROM_2: &str = "
DROP INDEX record_dedup;
ALTER TABLE stream DROP COLUMN position;
ALTER TABLE stream DROP COLUMN seq;
CREATE TABLE wake_now (stream INTEGER PRIMARY KEY);
INSERT INTO wake_now SELECT stream FROM wake WHERE due = 0;
DELETE FROM wake WHERE due = 0;
";

/// Opens the writer's connection; creates the tables of a new file and migrates older ones.
pub(super) fn open_writer(path: &Path) -> Result<Connection, LogError> {
    check_not_emptied(path)?;
    restrict_files(path)?;
    let connection = Connection::open(path).map_err(|error| file_error(path, &error))?;
    configure_writer(&connection).map_err(|error| file_error(path, &error))?;
    let version = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    match (version("application_id"), version("user_version")) {
        // A new or empty file has neither application id nor version.
        (Ok(0), Ok(0)) => {
            migrate_schema(&connection, CREATE_TABLES).map_err(|error| file_error(path, &error))?;
        }
        (Ok(APPLICATION_ID), Ok(2)) => {
            migrate_schema(&connection, MIGRATE_FROM_2)
                .map_err(|error| file_error(path, &error))?;
        }
        (Ok(APPLICATION_ID), Ok(3)) => {
            migrate_schema(&connection, MIGRATE_FROM_3)
                .map_err(|error| file_error(path, &error))?;
        }
        (Ok(APPLICATION_ID), Ok(SCHEMA_VERSION)) => {}
        (Ok(APPLICATION_ID), Ok(other)) => {
            let reason = format!("its version is {other}, this program reads {SCHEMA_VERSION}");
            return Err(LogError::corrupt(&path.display(), &reason));
        }
        (Ok(_), Ok(_)) => {
            return Err(LogError::corrupt(&path.display(), &"it is not a convergio log"));
        }
        (Err(error), _) | (_, Err(error)) => return Err(file_error(path, &error)),
    }
    Ok(connection)
}

/// Restricts the database's files to their owner. SQLite creates its side files with the mode of
/// the database, and follows links.
fn restrict_files(path: &Path) -> Result<(), LogError> {
    let made = open_private_file(path).and_then(|_| {
        let beside = |ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
        ["-wal", "-shm"].iter().try_for_each(|ending| narrow_mode(&beside(ending)).map(drop))
    });
    made.map_err(|error| LogError::Unavailable(format!("cannot use {}: {error}", path.display())))
}

/// Refuses an empty database beside a write-ahead log: SQLite would drop that log without an error.
fn check_not_emptied(path: &Path) -> Result<(), LogError> {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let write_ahead = format!("{}-wal", path.display());
    if bytes(path) == 0 && bytes(Path::new(&write_ahead)) > 0 {
        let reason = "it is empty, and its write-ahead log is not: restore it from a backup";
        return Err(LogError::corrupt(&path.display(), &reason));
    }
    Ok(())
}

fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", 4096)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the write-ahead log at each commit; NORMAL would lose commits in a power failure.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Overwrites erased payloads in the file.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    // Negative: KiB instead of pages.
    connection.pragma_update(None, "cache_size", -4_096)?;
    prepare_once(connection)
}

/// Makes SQLite prepare a statement once. By default it prepares it anew for each value of a LIMIT,
/// in the hope of a better plan, which dominates the cost of reading a short stream.
fn prepare_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Creates or migrates the tables in one transaction.
fn migrate_schema(connection: &Connection, statements: &str) -> rusqlite::Result<()> {
    // The pragmas are transactional: no crash leaves new tables with an old version.
    connection.execute_batch(&format!("BEGIN;{statements}"))?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    connection.execute_batch("COMMIT")
}

/// Writes the version that the file has already: fails as any write would, and changes nothing.
pub(super) fn rewrite_version(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// Opens a read-only connection.
pub(super) fn open_reader(path: &Path) -> Result<Connection, LogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| file_error(path, &error))?;
    prepare_once(&connection).map_err(|error| file_error(path, &error))?;
    Ok(connection)
}

fn file_error(path: &Path, error: &rusqlite::Error) -> LogError {
    match sqlite_error(error) {
        LogError::Corrupt { reason, .. } => LogError::corrupt(&path.display(), &reason),
        LogError::Unavailable(reason) => {
            LogError::Unavailable(format!("cannot use {}: {reason}", path.display()))
        }
        other => other,
    }
}
