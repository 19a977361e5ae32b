//! Batches of commits, of any number, that are written atomically: those of an import.

use std::sync::Arc;

use super::recovery::WriteError;
use super::writer::Writer;
use crate::error::AppendError;
use crate::prepare::Prepared;
use crate::record::Record;

/// Failure of a batch; nothing was written.
enum Failure {
    /// A commit does not follow its stream's head.
    Refused(AppendError),
    /// The database failed.
    Write(WriteError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Write(error.into())
    }
}

impl Writer {
    /// Writes commits in one transaction, each after the previous one of its stream.
    pub(super) fn write_all(
        &mut self,
        commits: Vec<(Prepared, Vec<u8>)>,
    ) -> Result<(), AppendError> {
        match self.insert_all(commits) {
            Ok(records) => {
                self.acknowledge_all(records);
                Ok(())
            }
            Err(Failure::Refused(error)) => {
                // Recovery rolls back the commits before the refused one.
                self.recover().map_err(|error| AppendError::from(&error))?;
                Err(error)
            }
            Err(Failure::Write(error)) => {
                self.refuse(std::iter::empty(), &error);
                Err(AppendError::from(&error))
            }
        }
    }

    fn insert_all(
        &mut self,
        commits: Vec<(Prepared, Vec<u8>)>,
    ) -> Result<Vec<Arc<Record>>, Failure> {
        self.begin().map_err(Failure::Write)?;
        let mut records = Vec::with_capacity(commits.len());
        for (mut prepared, body) in commits {
            let known = self.known(&prepared.stream)?;
            let known = known.map_err(|error| Failure::Refused(error.into()))?;
            prepared.follow(known.map(|known| known.head)).map_err(Failure::Refused)?;
            records.push(self.insert(prepared, &body, known)?.1);
        }
        self.transaction("COMMIT")?;
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::stream::Seq;

    use crate::conformance::{commit, stream};
    use crate::embedded::{Config, EmbeddedLog};
    use crate::log::{Archived, EventLog};
    use crate::prepare::prepare;
    use crate::record::{Head, Position};
    use crate::seal::MasterKey;
    use crate::{AppendError, Commit};

    /// A commit as an import has it: its place in the log is not known yet.
    fn archived(commit: Commit, after: Option<([u8; 32], u64)>) -> (Archived, ([u8; 32], u64)) {
        let expected = after.map(|(hash, seq)| {
            let (position, seq) = (Position::START, Seq(seq));
            Head { position, seq, hash }
        });
        let mut prepared =
            prepare(Commit { expected, ..commit }, &MasterKey::new([7; 32])).unwrap();
        prepared.expected = None;
        let end = (prepared.hash, prepared.last_seq().0);
        (Archived::new(prepared).unwrap(), end)
    }

    #[tokio::test]
    async fn commits_of_an_import_are_written_all_or_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("payload.key"), [7; 32]).unwrap();
        let log = EmbeddedLog::open(&Config::new(folder.path())).unwrap();
        let (one, two) = (stream(), stream());
        let there = log.append(commit(&two, None, "there")).await.unwrap();
        let make = |last: Option<([u8; 32], u64)>| {
            let (first, end) = archived(commit(&one, None, "first"), None);
            let (second, _) = archived(commit(&one, None, "second"), Some(end));
            let (third, _) = archived(commit(&two, None, "third"), last);
            vec![first, second, third]
        };
        let refused = log.restore_all(make(Some(([9; 32], 1)))).await.unwrap_err();
        assert!(matches!(refused, AppendError::Conflict { .. }), "{refused}");
        assert_eq!(log.head(&one).await.unwrap(), None);
        assert_eq!(log.head(&two).await.unwrap(), Some(there));
        log.restore_all(make(Some((there.hash, 1)))).await.unwrap();
        assert_eq!(log.head(&one).await.unwrap().unwrap().seq, Seq(2));
        assert_eq!(log.head(&two).await.unwrap().unwrap().position, Position(4));
        log.append(commit(&one, log.head(&one).await.unwrap(), "next")).await.unwrap();
        assert_eq!(log.verify().await.unwrap(), (5, 5));
    }
}
