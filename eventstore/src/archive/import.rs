//! Making a log from an archive: every record again, with the hash it had.

use std::collections::HashMap;
use std::path::Path;

use convergio_domain::decider::{Decider, Recorded, Wake};
use convergio_domain::run::{Run, RunState};
use convergio_domain::stream::{Seq, StreamKey, StreamKind};

use super::segment::{self, ArchiveKey, Authorship, Entry, Segment, corrupt};
use super::{Inspected, Inventory, files, inspect, stream_name};
use crate::error::AppendError;
use crate::log::{Archived, EventLog};
use crate::prepare::Prepared;
use crate::record::{Body, Head};

/// What an archive is read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Import {
    /// An empty log, or one that an earlier try has begun to fill.
    Restore,
    /// A log with streams of its own.
    Merge,
}

/// What an archive held that was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedArchive {
    /// What it holds.
    pub held: Inventory,
    /// Whether it was written by who has the payload key. Archives of earlier programs do not say:
    /// when they are merged, runs that have not ended rest until somebody goes on with them.
    pub is_authentic: bool,
}

/// Appends every record of an archive that the log does not have; gives what the archive holds.
/// It can be done again after it was interrupted.
///
/// # Errors
/// The archive is corrupt or was written by who does not have the key, a stream of the log is
/// another, or the log does not take a record.
pub async fn import(
    log: &dyn EventLog,
    key: &[u8; 32],
    folder: &Path,
    how: Import,
) -> Result<ImportedArchive, AppendError> {
    let key = ArchiveKey::of(key);
    let Inspected { found: held, ends, authorship } = inspect(folder, Some(&key))?;
    let tail = log.read_all(crate::Position::START, 0).await?.tail;
    if how == Import::Restore && tail.0 > held.records {
        let reason = format!("the log has {} records, more than the archive", tail.0);
        return Err(AppendError::Unavailable(reason));
    }
    let is_authentic = authorship == Authorship::KeyHolder;
    let ends = ends.into_iter().map(|(stream, (seq, _))| (stream, seq)).collect();
    let mut importer = Importer {
        log,
        heads: HashMap::new(),
        runs: HashMap::new(),
        ends,
        runs_rest: how == Import::Merge && !is_authentic,
    };
    for path in files(folder)? {
        let file = Segment::read(&path)?;
        // It may have become another one since it was looked at.
        if file.check_key(&path, &key)? != authorship && is_authentic {
            return Err(corrupt(&path, "it was changed meanwhile").into());
        }
        for entry in file.entries(&path)? {
            importer.restore(&path, &entry).await?;
        }
    }
    Ok(ImportedArchive { held, is_authentic })
}

struct Importer<'a> {
    log: &'a dyn EventLog,
    heads: HashMap<StreamKey, Head>,
    /// Runs that are not done, folded: when they want to be looked at is not in the chain.
    runs: HashMap<StreamKey, RunState>,
    /// The last event of each stream.
    ends: HashMap<String, Seq>,
    /// Whether runs rest that have not ended.
    runs_rest: bool,
}

impl Importer<'_> {
    async fn restore(&mut self, path: &Path, entry: &Entry<'_>) -> Result<(), AppendError> {
        let body = entry.record(path)?;
        let stream = StreamKey::parse(body.tenant.clone(), &body.stream);
        let stream = stream.map_err(|error| corrupt(path, &error.to_string()))?;
        let expected = self.heads.get(&stream).copied();
        let next = expected.map_or(Seq(0), |head| head.seq).plus(1);
        let hash = expected.map_or(segment::FIRST, |head| head.hash);
        if body.seq != next || entry.previous != hash {
            let reason = format!("{stream}: event {} does not follow {next}", body.seq);
            return Err(corrupt(path, &reason).into());
        }
        let wake = self.wake(&stream, &body);
        let payloads = entry.payloads.iter();
        let prepared = Prepared {
            commit: body.commit,
            expected,
            prev_hash: entry.previous,
            hash: entry.hash,
            canonical: entry.body.to_vec(),
            // Nothing stands for what is erased.
            sealed: payloads.map(|sealed| sealed.unwrap_or_default().to_vec()).collect(),
            wake,
            stream: stream.clone(),
            body,
            fresh: Vec::new(),
            is_continued: false,
        };
        let head = self.log.restore(Archived::new(prepared)?).await?;
        if head.hash != entry.hash {
            let reason = format!("{stream} of the log is another from event {next} on");
            return Err(corrupt(path, &reason).into());
        }
        self.heads.insert(stream, head);
        Ok(())
    }

    fn wake(&mut self, stream: &StreamKey, body: &Body) -> Wake {
        if stream.kind != StreamKind::Run {
            return Wake::Done;
        }
        let state = self.runs.entry(stream.clone()).or_default();
        for (seq, event) in (body.seq.0..).zip(&body.events) {
            Run::evolve(state, Recorded { seq: Seq(seq), time: body.time, event });
        }
        let wake = Run::wake(state);
        if wake == Wake::Done {
            self.runs.remove(stream);
            return wake;
        }
        // A part of a run wakes nobody: what follows may be its end.
        let last = body.seq.plus(body.events.len() as u64 - 1);
        let is_whole = self.ends.get(&stream_name(body)) == Some(&last);
        if is_whole && !self.runs_rest { wake } else { Wake::Parked }
    }
}
