//! Recovery of the writer after an error: neither its connection nor its memory is trusted until
//! both were compared with the file.

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::schema;
use super::sql_values::{sqlite_error, to_unsigned};
use super::writer::EmbeddedWriter;
use crate::error::{AppendError, LogError};
use crate::record::StreamHead;

impl EmbeddedWriter {
    /// Begins a transaction, after recovery if the last one failed.
    pub(super) fn begin_transaction(&mut self) -> Result<(), WriteError> {
        if !self.is_in_sync {
            self.recover_state()?;
        }
        Ok(self.execute_statement("BEGIN IMMEDIATE")?)
    }

    /// Resets connection and memory to what the file holds, whatever became of the last
    /// transaction: after some errors SQLite has rolled back by itself, after others the
    /// transaction is still open.
    pub(super) fn recover_state(&mut self) -> Result<(), WriteError> {
        self.is_in_sync = false;
        self.summaries.clear();
        self.subscribers.recent_payloads.forget_all();
        if !self.connection.is_autocommit() {
            // The next check finds out whether it worked.
            let _rolled_back = self.connection.execute_batch("ROLLBACK");
        }
        if !self.connection.is_autocommit() {
            self.connection = schema::open_writer(&self.database)?;
        }
        self.last_position = last_position(&self.connection)?;
        self.is_in_sync = true;
        Ok(())
    }

    /// Rejects the commits of a failed group, once none of them can appear in the file any more.
    pub(super) fn refuse_commits(
        &mut self,
        replies: impl Iterator<Item = oneshot::Sender<Result<StreamHead, AppendError>>>,
        error: &WriteError,
    ) {
        tracing::error!(%error, "a group of commits was not written");
        // Recovery comes before the replies: a caller that retries must meet a consistent writer.
        if let Err(error) = self.recover_state() {
            tracing::error!(%error, "the log's writer cannot go on for now");
        }
        let error = AppendError::from(error);
        self.failure = Some(error.clone());
        for reply in replies {
            let _delivered = reply.send(Err(error.clone()));
        }
    }

    /// Checks that a commit could be written. After a failure only a write can prove it.
    pub(super) fn check_writable(&mut self) -> Result<(), AppendError> {
        if self.failure.is_none() {
            return Ok(());
        }
        self.recover_state().map_err(|error| AppendError::from(&error))?;
        let written = schema::rewrite_version(&self.connection).map_err(WriteError::from);
        self.failure = written.err().map(|error| AppendError::from(&error));
        self.failure.clone().map_or(Ok(()), Err)
    }
}

/// Reads the log's last position from the file.
pub(super) fn last_position(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(max(position), 0) FROM record";
    connection.query_row(sql, [], |row| row.get(0)).map(to_unsigned)
}

/// Error that aborted a group of commits.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// A statement or the commit failed.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// A replacement connection could not be opened.
    #[error(transparent)]
    Open(#[from] LogError),
}

impl From<&WriteError> for AppendError {
    fn from(error: &WriteError) -> Self {
        match error {
            WriteError::Database(error) if is_full(error) => Self::Full,
            WriteError::Database(error) => sqlite_error(error).into(),
            WriteError::Open(error) => error.clone().into(),
        }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull))
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::path::Path;

    use super::super::schema;
    use super::super::writer::{EmbeddedWriter, LogSubscribers};
    use crate::error::AppendError;

    fn open_writer(folder: &Path) -> EmbeddedWriter {
        let database = folder.join("log.db");
        let connection = schema::open_writer(&database).unwrap();
        EmbeddedWriter::new(connection, LogSubscribers::new(), Default::default(), &database)
            .unwrap()
    }

    #[test]
    fn a_writer_left_inside_a_transaction_comes_out_of_it_with_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open_writer(folder.path());
        writer.connection.execute_batch("BEGIN; INSERT INTO wake_now VALUES (7)").unwrap();
        writer.last_position = 99;
        let error = writer.begin_transaction().unwrap_err();
        writer.refuse_commits(iter::empty(), &error);
        assert_eq!(writer.last_position, 0, "what the file says");
        writer.begin_transaction().expect("it is in no transaction");
        writer.execute_statement("COMMIT").unwrap();
        let sql = "SELECT count(*) FROM wake_now";
        let rows: i64 = writer.connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0);
    }

    #[test]
    fn a_log_is_writable_again_once_a_write_passes() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open_writer(folder.path());
        writer.check_writable().expect("nothing has failed yet");
        writer.connection.execute_batch("PRAGMA query_only = ON").unwrap();
        writer.failure = Some(AppendError::Full);
        assert!(matches!(writer.check_writable(), Err(AppendError::Unavailable(_))));
        writer.connection.execute_batch("PRAGMA query_only = OFF").unwrap();
        writer.check_writable().expect("a write passes");
        assert!(writer.failure.is_none());
    }
}
