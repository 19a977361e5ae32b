//! Restoring a log from an archive: every record with the hash that it had.

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

/// Kind of log that an archive is imported into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Import {
    /// An empty log, or one that an interrupted import has begun to fill.
    Restore,
    /// A log that has streams of its own.
    Merge,
}

/// Summary of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedArchive {
    /// Contents of the archive, whether or not the log had them already.
    pub held: Inventory,
    /// True if every segment was written by a holder of the payload key. Archives of earlier
    /// versions do not prove it: when they are merged, unfinished runs stay parked until they are
    /// resumed.
    pub is_authentic: bool,
}

/// Appends every record of an archive that the log lacks. The import may be repeated after an
/// interruption: records that are there already are recognised by their commit ids.
///
/// # Errors
/// The archive is corrupt or was not written by a holder of the key, a stream of the log differs,
/// or the log does not accept a record.
pub async fn import(
    log: &dyn EventLog,
    key: &[u8; 32],
    folder: &Path,
    how: Import,
) -> Result<ImportedArchive, AppendError> {
    let key = ArchiveKey::of(key);
    let Inspected { found: held, ends, authorship } = inspect(folder, Some(&key))?;
    let tail = log.read_all(crate::Position::START, 0).await?.tail;
    // An interrupted restore has left a prefix of this archive; a longer log is another one.
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
        // The file may have been replaced since the first pass.
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
    /// Unfinished runs, folded: their wake times are not in the hash chain and must be computed.
    runs: HashMap<StreamKey, RunState>,
    /// Last event of each stream in the archive.
    ends: HashMap<String, Seq>,
    /// True if unfinished runs are parked instead of being resumed.
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
            // An erased payload is represented by empty bytes.
            sealed: payloads.map(|sealed| sealed.unwrap_or_default().to_vec()).collect(),
            wake,
            stream: stream.clone(),
            body,
            fresh: Vec::new(),
            is_continued: false,
        };
        let head = self.log.restore(Archived::new(prepared)?).await?;
        // A commit that is there already returns its own head: another hash is another history.
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
        // Only a stream's last record wakes its run: an executor must not resume a run whose end is
        // still to be imported.
        let last = body.seq.plus(body.events.len() as u64 - 1);
        let is_whole = self.ends.get(&stream_name(body)) == Some(&last);
        if is_whole && !self.runs_rest { wake } else { Wake::Parked }
    }
}
