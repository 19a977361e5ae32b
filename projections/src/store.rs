//! Location of the read models: an SQLite file, or a schema on a PostgreSQL server.

use std::path::{Path, PathBuf};
use std::sync::Once;

use convergio_eventstore::private_files::{narrow_mode, open_private_file};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection, Executor};

use crate::error::ProjectionError;

/// PostgreSQL schema of the copy in use.
const SCHEMA: &str = "convergio";
/// PostgreSQL schema of the copy that a rebuild writes.
const FRESH_SCHEMA: &str = "convergio_fresh";
/// Maximum connections of the readers' pool.
const READERS_LIMIT: u32 = 4;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Settings of each writing connection to a file. NORMAL is safe because read models are
/// disposable: what a power cut loses is applied again from the log. Statement journals stay in
/// memory, else SQLite writes one to the machine's temporary folder for every batch.
const FILE_SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
    PRAGMA temp_store = MEMORY; PRAGMA busy_timeout = 10000";

/// A database for read models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadModelStore {
    /// An SQLite file, written by one process.
    File(PathBuf),
    /// URL of a PostgreSQL server, shared by several processes.
    Server(String),
}

impl From<&Path> for ReadModelStore {
    fn from(file: &Path) -> Self {
        Self::File(file.to_owned())
    }
}

impl From<&PathBuf> for ReadModelStore {
    fn from(file: &PathBuf) -> Self {
        Self::File(file.clone())
    }
}

impl ReadModelStore {
    /// True if other processes may write here too.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Server(_))
    }
}

/// A store and which of its two copies is meant: the one in use or the one being rebuilt.
#[derive(Debug, Clone)]
pub(crate) struct StoreCopy {
    pub(crate) store: ReadModelStore,
    pub(crate) is_fresh: bool,
}

impl StoreCopy {
    pub(crate) fn in_use(store: ReadModelStore) -> Self {
        Self { store, is_fresh: false }
    }

    /// Opens a writing connection; creates and migrates the tables.
    pub(crate) async fn open(&self) -> Result<AnyConnection, ProjectionError> {
        if let ReadModelStore::File(_) = self.store {
            // SQLite would create the file with the mode that the umask leaves.
            make_private(&self.file_path())?;
        }
        let mut connection = self.connect_options("rwc")?.connect().await?;
        // The schema must exist before `search_path` can name it.
        if let ReadModelStore::Server(_) = self.store {
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", self.schema_name());
            connection.execute(sqlx::AssertSqlSafe(sql)).await?;
        }
        // Migrations are applied by the first process that opens the store; sqlx locks against
        // others.
        connection.execute(sqlx::AssertSqlSafe(self.connection_settings())).await?;
        MIGRATIONS.run_direct(None, &mut connection, false).await?;
        Ok(connection)
    }

    /// Opens a writing connection to tables that exist.
    pub(crate) async fn connect_writer(&self) -> Result<AnyConnection, ProjectionError> {
        let mut connection = self.connect_options("rw")?.connect().await?;
        connection.execute(sqlx::AssertSqlSafe(self.connection_settings())).await?;
        Ok(connection)
    }

    /// Opens a pool of read-only connections.
    pub(crate) async fn connect_readers(&self) -> Result<AnyPool, ProjectionError> {
        let settings = match self.store {
            ReadModelStore::File(_) => {
                "PRAGMA query_only = ON; PRAGMA busy_timeout = 10000".to_owned()
            }
            ReadModelStore::Server(_) => self.connection_settings(),
        };
        // SQLite allows many readers beside one writer in WAL mode; more connections would not be
        // faster.
        let options = AnyPoolOptions::new().max_connections(READERS_LIMIT);
        let options = options.after_connect(move |connection, _| {
            let settings = settings.clone();
            Box::pin(
                async move { connection.execute(sqlx::AssertSqlSafe(settings)).await.map(drop) },
            )
        });
        Ok(options.connect_with(self.connect_options("rw")?).await?)
    }

    /// Deletes whatever the fresh copy's location holds.
    pub(crate) async fn clear_fresh_copy(&self) -> Result<(), ProjectionError> {
        match &self.store {
            ReadModelStore::File(_) => Ok(remove_database_files(&self.file_path())?),
            ReadModelStore::Server(_) => {
                let mut connection = self.connect_options("rw")?.connect().await?;
                let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema_name());
                connection.execute(sqlx::AssertSqlSafe(sql)).await?;
                Ok(connection.close().await?)
            }
        }
    }

    /// Replaces the copy in use by the fresh copy, which must have no open connections.
    pub(crate) async fn swap_into_use(&self) -> Result<(), ProjectionError> {
        match &self.store {
            ReadModelStore::File(file) => {
                let mut connection = self.connect_writer().await?;
                // After a full checkpoint the file alone is the database, and a rename moves all of
                // it.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
                connection.close().await?;
                // The old journals go with the old file, or SQLite would replay them into the new
                // one.
                remove_database_files(file)?;
                std::fs::rename(self.file_path(), file)?;
                Ok(remove_database_files(&self.file_path())?)
            }
            ReadModelStore::Server(_) => {
                let mut connection = self.connect_options("rw")?.connect().await?;
                // Both statements in one transaction: readers see the old schema or the new one,
                // never none.
                let mut transaction = connection.begin().await?;
                let sql = format!(
                    "DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; \
                     ALTER SCHEMA {FRESH_SCHEMA} RENAME TO {SCHEMA}"
                );
                transaction.execute(sqlx::AssertSqlSafe(sql)).await?;
                transaction.commit().await?;
                Ok(connection.close().await?)
            }
        }
    }

    fn schema_name(&self) -> &'static str {
        if self.is_fresh { FRESH_SCHEMA } else { SCHEMA }
    }

    /// Path of this copy's file; empty on a server.
    fn file_path(&self) -> PathBuf {
        match &self.store {
            ReadModelStore::File(file) if self.is_fresh => file.with_extension("rebuild"),
            ReadModelStore::File(file) => file.clone(),
            ReadModelStore::Server(_) => PathBuf::new(),
        }
    }

    fn connection_settings(&self) -> String {
        match self.store {
            ReadModelStore::File(_) => FILE_SETTINGS.to_owned(),
            ReadModelStore::Server(_) => format!("SET search_path TO {}", self.schema_name()),
        }
    }

    fn connect_options(&self, mode: &str) -> Result<AnyConnectOptions, ProjectionError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let url = match &self.store {
            ReadModelStore::File(_) => {
                format!("sqlite://{}?mode={mode}", percent_encode(&self.file_path()))
            }
            ReadModelStore::Server(url) => url.clone(),
        };
        Ok(url.parse::<AnyConnectOptions>()?.disable_statement_logging())
    }
}

/// Creates the database file with owner-only mode. SQLite gives its journals the mode of the
/// database and follows links, so existing journals are narrowed as well.
fn make_private(file: &Path) -> std::io::Result<()> {
    open_private_file(file)?;
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", file.display()));
    ["-wal", "-shm"].iter().try_for_each(|ending| narrow_mode(&beside(ending)).map(drop))
}

/// Percent-encodes a path for an `sqlite:` URL.
fn percent_encode(path: &Path) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    let bytes = path.as_os_str().as_encoded_bytes();
    let encode_byte = |byte: &u8| match is_plain(byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    bytes.iter().map(encode_byte).collect()
}

/// Removes an SQLite database with its journals; files that do not exist are no error.
pub(crate) fn remove_database_files(file: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::remove_file(format!("{}{suffix}", file.display())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
