//! Batches of commits, of any number, that are written atomically: those of an import.

use std::sync::Arc;

use super::recovery::WriteError;
use super::writer::EmbeddedWriter;
use crate::error::AppendError;
use crate::prepare::PreparedCommit;
use crate::record::Record;

/// Failure of a batch; nothing was written.
enum BatchFailure {
    /// A commit does not follow its stream's head.
    Refused(AppendError),
    /// The database failed.
    Write(WriteError),
}

impl From<rusqlite::Error> for BatchFailure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Write(error.into())
    }
}

impl EmbeddedWriter {
    /// Writes commits in one transaction, each after the previous one of its stream.
    pub(super) fn write_batch(
        &mut self,
        commits: Vec<(PreparedCommit, Vec<u8>)>,
    ) -> Result<(), AppendError> {
        match self.insert_batch(commits) {
            Ok(records) => {
                self.acknowledge_batch(records);
                Ok(())
            }
            Err(BatchFailure::Refused(error)) => {
                // Recovery rolls back the commits before the refused one.
                self.recover_state().map_err(|error| AppendError::from(&error))?;
                Err(error)
            }
            Err(BatchFailure::Write(error)) => {
                self.refuse_commits(std::iter::empty(), &error);
                Err(AppendError::from(&error))
            }
        }
    }

    fn insert_batch(
        &mut self,
        commits: Vec<(PreparedCommit, Vec<u8>)>,
    ) -> Result<Vec<Arc<Record>>, BatchFailure> {
        self.begin_transaction().map_err(BatchFailure::Write)?;
        let mut records = Vec::with_capacity(commits.len());
        for (mut prepared, body) in commits {
            let known = self.load_summary(&prepared.stream)?;
            let known = known.map_err(|error| BatchFailure::Refused(error.into()))?;
            prepared.expect_head(known.map(|known| known.head)).map_err(BatchFailure::Refused)?;
            records.push(self.insert_commit(prepared, &body, known)?.1);
        }
        self.execute_statement("COMMIT")?;
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::stream::Seq;

    use crate::conformance::{new_commit, new_stream};
    use crate::embedded::{EmbeddedConfig, EmbeddedLog};
    use crate::log::{ArchivedRecord, LogReader, LogWriter};
    use crate::prepare::prepare_commit;
    use crate::record::{Position, StreamHead};
    use crate::seal::MasterKey;
    use crate::{AppendError, Commit};

    /// A commit as an import has it: its place in the log is not known yet.
    fn archive_commit(
        commit: Commit,
        after: Option<([u8; 32], u64)>,
    ) -> (ArchivedRecord, ([u8; 32], u64)) {
        let expected = after.map(|(hash, seq)| {
            let (position, seq) = (Position::START, Seq(seq));
            StreamHead { position, seq, hash }
        });
        let mut prepared =
            prepare_commit(Commit { expected, ..commit }, &MasterKey::new([7; 32])).unwrap();
        prepared.expected = None;
        let end = (prepared.hash, prepared.last_seq().0);
        (ArchivedRecord::new(prepared).unwrap(), end)
    }

    #[tokio::test]
    async fn commits_of_an_import_are_written_all_or_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("payload.key"), [7; 32]).unwrap();
        let log = EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).unwrap();
        let (one, two) = (new_stream(), new_stream());
        let there = log.append(new_commit(&two, None, "there")).await.unwrap();
        let make = |last: Option<([u8; 32], u64)>| {
            let (first, end) = archive_commit(new_commit(&one, None, "first"), None);
            let (second, _) = archive_commit(new_commit(&one, None, "second"), Some(end));
            let (third, _) = archive_commit(new_commit(&two, None, "third"), last);
            vec![first, second, third]
        };
        let refused = log.restore_records(make(Some(([9; 32], 1)))).await.unwrap_err();
        assert!(matches!(refused, AppendError::Conflict { .. }), "{refused}");
        assert_eq!(log.stream_head(&one).await.unwrap(), None);
        assert_eq!(log.stream_head(&two).await.unwrap(), Some(there));
        log.restore_records(make(Some((there.hash, 1)))).await.unwrap();
        assert_eq!(log.stream_head(&one).await.unwrap().unwrap().seq, Seq(2));
        assert_eq!(log.stream_head(&two).await.unwrap().unwrap().position, Position(4));
        log.append(new_commit(&one, log.stream_head(&one).await.unwrap(), "next")).await.unwrap();
        assert_eq!(log.verify_chains().await.unwrap(), (5, 5));
    }
}
