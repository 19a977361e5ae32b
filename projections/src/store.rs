//! Where read models lie: in a file of SQLite, or in a schema of a PostgreSQL server.

use std::path::{Path, PathBuf};
use std::sync::Once;

use convergio_eventstore::private_files::{narrow_mode, open_private_file};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection, Executor};

use crate::error::ProjectionError;

/// The schema of a server's read models.
const SCHEMA: &str = "convergio";
/// Where they are built anew.
const FRESH: &str = "convergio_fresh";
/// Connections for readers.
const READERS: u32 = 4;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// What a file's connections are told. Read models are disposable: what a power cut takes is
/// applied again from the log. What a statement would undo is kept in memory: SQLite otherwise puts
/// it in a file of the machine's folder for such, at every page that is written.
const FILE_SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
    PRAGMA temp_store = MEMORY; PRAGMA busy_timeout = 10000";

/// A place for read models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A file of SQLite.
    File(PathBuf),
    /// A PostgreSQL server, by URL, shared by several processes.
    Server(String),
}

impl From<&Path> for Store {
    fn from(file: &Path) -> Self {
        Self::File(file.to_owned())
    }
}

impl From<&PathBuf> for Store {
    fn from(file: &PathBuf) -> Self {
        Self::File(file.clone())
    }
}

impl Store {
    /// Whether others may write here too.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Server(_))
    }
}

/// A place, and which of its two copies: the one in use, or the one that is being built.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) store: Store,
    pub(crate) is_fresh: bool,
}

impl Place {
    pub(crate) fn in_use(store: Store) -> Self {
        Self { store, is_fresh: false }
    }

    /// A connection that writes; makes or brings up the tables.
    pub(crate) async fn open(&self) -> Result<AnyConnection, ProjectionError> {
        if let Store::File(_) = self.store {
            make_private(&self.file())?;
        }
        let mut connection = self.options("rwc")?.connect().await?;
        if let Store::Server(_) = self.store {
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", self.schema());
            connection.execute(sqlx::AssertSqlSafe(sql)).await?;
        }
        connection.execute(sqlx::AssertSqlSafe(self.settings())).await?;
        MIGRATIONS.run_direct(None, &mut connection, false).await?;
        Ok(connection)
    }

    /// A connection that writes to tables that are there.
    pub(crate) async fn connect(&self) -> Result<AnyConnection, ProjectionError> {
        let mut connection = self.options("rw")?.connect().await?;
        connection.execute(sqlx::AssertSqlSafe(self.settings())).await?;
        Ok(connection)
    }

    /// Connections for readers.
    pub(crate) async fn readers(&self) -> Result<AnyPool, ProjectionError> {
        let settings = match self.store {
            Store::File(_) => "PRAGMA query_only = ON; PRAGMA busy_timeout = 10000".to_owned(),
            Store::Server(_) => self.settings(),
        };
        let options = AnyPoolOptions::new().max_connections(READERS);
        let options = options.after_connect(move |connection, _| {
            let settings = settings.clone();
            Box::pin(
                async move { connection.execute(sqlx::AssertSqlSafe(settings)).await.map(drop) },
            )
        });
        Ok(options.connect_with(self.options("rw")?).await?)
    }

    /// Empties the place of the fresh copy.
    pub(crate) async fn clear(&self) -> Result<(), ProjectionError> {
        match &self.store {
            Store::File(_) => Ok(remove(&self.file())?),
            Store::Server(_) => {
                let mut connection = self.options("rw")?.connect().await?;
                let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema());
                connection.execute(sqlx::AssertSqlSafe(sql)).await?;
                Ok(connection.close().await?)
            }
        }
    }

    /// Puts the fresh copy, which nobody has open any more, in the place of the one in use.
    pub(crate) async fn swap(&self) -> Result<(), ProjectionError> {
        match &self.store {
            Store::File(file) => {
                let mut last = self.connect().await?;
                // The file alone is the database then.
                last.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
                last.close().await?;
                remove(file)?;
                std::fs::rename(self.file(), file)?;
                Ok(remove(&self.file())?)
            }
            Store::Server(_) => {
                let mut connection = self.options("rw")?.connect().await?;
                let mut transaction = connection.begin().await?;
                let sql = format!(
                    "DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; \
                     ALTER SCHEMA {FRESH} RENAME TO {SCHEMA}"
                );
                transaction.execute(sqlx::AssertSqlSafe(sql)).await?;
                transaction.commit().await?;
                Ok(connection.close().await?)
            }
        }
    }

    fn schema(&self) -> &'static str {
        if self.is_fresh { FRESH } else { SCHEMA }
    }

    fn file(&self) -> PathBuf {
        match &self.store {
            Store::File(file) if self.is_fresh => file.with_extension("rebuild"),
            Store::File(file) => file.clone(),
            Store::Server(_) => PathBuf::new(),
        }
    }

    fn settings(&self) -> String {
        match self.store {
            Store::File(_) => FILE_SETTINGS.to_owned(),
            Store::Server(_) => format!("SET search_path TO {}", self.schema()),
        }
    }

    fn options(&self, mode: &str) -> Result<AnyConnectOptions, ProjectionError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let url = match &self.store {
            Store::File(_) => format!("sqlite://{}?mode={mode}", encoded(&self.file())),
            Store::Server(url) => url.clone(),
        };
        Ok(url.parse::<AnyConnectOptions>()?.disable_statement_logging())
    }
}

/// SQLite makes its files with the mode of the database, and follows links.
fn make_private(file: &Path) -> std::io::Result<()> {
    open_private_file(file)?;
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", file.display()));
    ["-wal", "-shm"].iter().try_for_each(|ending| narrow_mode(&beside(ending)).map(drop))
}

/// A path as a URL has it.
fn encoded(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    let bytes = path.as_os_str().as_encoded_bytes();
    let letter = |byte: &u8| match plain(byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    bytes.iter().map(letter).collect()
}

/// Removes a database with its journals.
pub(crate) fn remove(file: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::remove_file(format!("{}{suffix}", file.display())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
