//! Restoring a log from an archive: every record with the hash that it had.

use std::collections::HashMap;
use std::path::Path;

use convergio_domain::decider::{Decider, RecordedEvent, Wake};
use convergio_domain::run::{Run, RunState};
use convergio_domain::stream::{Seq, StreamKey, StreamKind};

use super::segment::{self, ArchiveKey, Authorship, Segment, SegmentEntry, corrupt_archive};
use super::{ArchiveInspection, Inventory, inspect_archive, segment_files, stream_name};
use crate::error::AppendError;
use crate::log::{ArchivedRecord, LogWriter};
use crate::prepare::PreparedCommit;
use crate::record::{RecordBody, StreamHead};

/// Kind of log that an archive is imported into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportMode {
    /// An empty log, or one that an interrupted import has begun to fill.
    Restore,
    /// A log that has streams of its own.
    Merge,
}

/// Summary of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveImportReport {
    /// Contents of the archive, whether or not the log had them already.
    pub inventory: Inventory,
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
pub async fn import_archive(
    log: &dyn LogWriter,
    key: &[u8; 32],
    folder: &Path,
    mode: ImportMode,
) -> Result<ArchiveImportReport, AppendError> {
    let key = ArchiveKey::from_payload_key(key);
    let ArchiveInspection { inventory: held, ends, authorship } =
        inspect_archive(folder, Some(&key))?;
    let tail = log.read_all(crate::Position::START, 0).await?.tail;
    // An interrupted restore has left a prefix of this archive; a longer log is another one.
    if mode == ImportMode::Restore && tail.0 > held.records {
        let reason = format!("the log has {} records, more than the archive", tail.0);
        return Err(AppendError::Unavailable(reason));
    }
    let is_authentic = authorship == Authorship::KeyHolder;
    let ends = ends.into_iter().map(|(stream, (seq, _))| (stream, seq)).collect();
    let mut importer = ArchiveImporter {
        log,
        heads: HashMap::new(),
        unfinished_runs: HashMap::new(),
        last_seqs: ends,
        parks_unfinished_runs: mode == ImportMode::Merge && !is_authentic,
    };
    for path in segment_files(folder)? {
        let file = Segment::read_file(&path)?;
        // The file may have been replaced since the first pass.
        if file.check_key(&path, &key)? != authorship && is_authentic {
            return Err(corrupt_archive(&path, "it was changed meanwhile").into());
        }
        for entry in file.parse_entries(&path)? {
            importer.restore_entry(&path, &entry).await?;
        }
    }
    Ok(ArchiveImportReport { inventory: held, is_authentic })
}

struct ArchiveImporter<'a> {
    log: &'a dyn LogWriter,
    heads: HashMap<StreamKey, StreamHead>,
    /// Unfinished runs, folded: their wake times are not in the hash chain and must be computed.
    unfinished_runs: HashMap<StreamKey, RunState>,
    /// Last event of each stream in the archive.
    last_seqs: HashMap<String, Seq>,
    /// True if unfinished runs are parked instead of being resumed.
    parks_unfinished_runs: bool,
}

impl ArchiveImporter<'_> {
    async fn restore_entry(
        &mut self,
        path: &Path,
        entry: &SegmentEntry<'_>,
    ) -> Result<(), AppendError> {
        let body = entry.decode_body(path)?;
        let stream = StreamKey::parse_name(body.tenant.clone(), &body.stream);
        let stream = stream.map_err(|error| corrupt_archive(path, &error.to_string()))?;
        let expected = self.heads.get(&stream).copied();
        let next = expected.map_or(Seq(0), |head| head.seq).offset_by(1);
        let hash = expected.map_or(segment::FIRST_PREVIOUS_HASH, |head| head.hash);
        if body.seq != next || entry.previous_hash != hash {
            let reason = format!("{stream}: event {} does not follow {next}", body.seq);
            return Err(corrupt_archive(path, &reason).into());
        }
        let wake = self.next_wake(&stream, &body);
        let payloads = entry.payloads.iter();
        let prepared = PreparedCommit {
            commit: body.commit,
            expected,
            prev_hash: entry.previous_hash,
            hash: entry.hash,
            canonical: entry.body.to_vec(),
            // An erased payload is represented by empty bytes.
            sealed: payloads.map(|sealed| sealed.unwrap_or_default().to_vec()).collect(),
            wake,
            stream: stream.clone(),
            body,
            recent_payloads: Vec::new(),
            is_continued: false,
        };
        let head = self.log.restore_record(ArchivedRecord::new(prepared)?).await?;
        // A commit that is there already returns its own head: another hash is another history.
        if head.hash != entry.hash {
            let reason = format!("{stream} of the log is another from event {next} on");
            return Err(corrupt_archive(path, &reason).into());
        }
        self.heads.insert(stream, head);
        Ok(())
    }

    fn next_wake(&mut self, stream: &StreamKey, body: &RecordBody) -> Wake {
        if stream.kind != StreamKind::Run {
            return Wake::Done;
        }
        let state = self.unfinished_runs.entry(stream.clone()).or_default();
        for (seq, event) in (body.seq.0..).zip(&body.events) {
            Run::fold_event(state, RecordedEvent { seq: Seq(seq), time: body.time, event });
        }
        let wake = Run::next_wake(state);
        if wake == Wake::Done {
            self.unfinished_runs.remove(stream);
            return wake;
        }
        // Only a stream's last record wakes its run: an executor must not resume a run whose end is
        // still to be imported.
        let last = body.seq.offset_by(body.events.len() as u64 - 1);
        let is_whole = self.last_seqs.get(&stream_name(body)) == Some(&last);
        if is_whole && !self.parks_unfinished_runs { wake } else { Wake::Parked }
    }
}
