//! Archives: an independent second copy of a log in files ("segments") of records and sealed
//! payloads, chained by hash, from which the log of any provider can be restored.
//!
//! The bytes of a segment do not depend on the provider: the same records in the same order give
//! the same bytes. Segments alone reveal nothing about payloads, since the payload key is not in
//! them.
//!
//! Map: `segment` is the file format, which all others use. `export` appends what the archive
//! lacks, `import` restores into a log, `backup` copies the folder of an embedded log without the
//! format of this module. [`verify_archive`] checks an archive without a log. Not here: files of
//! single runs (`run_file`).

mod backup;
mod export;
mod import;
mod segment;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use convergio_domain::stream::Seq;

pub use backup::backup_embedded;
pub use export::export_archive;
pub use import::{ArchiveImportReport, ImportMode, import_archive};

use crate::error::LogError;
use crate::record::{Hash, RecordBody};
use segment::{ArchiveKey, Authorship, Segment};

/// Number of segments, records and events in an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Number of segment files.
    pub segments: u64,
    /// Number of records.
    pub records: u64,
    /// Number of events in the records.
    pub events: u64,
}

/// Reads every segment and checks every hash.
///
/// # Errors
/// [`LogError::Corrupt`] names the first segment that is damaged.
pub fn verify_archive(folder: &Path) -> Result<Inventory, LogError> {
    Ok(inspect_archive(folder, None)?.inventory)
}

/// Result of reading a whole archive.
struct ArchiveInspection {
    inventory: Inventory,
    /// Last event and hash of each stream, by tenant and name.
    ends: HashMap<String, (Seq, Hash)>,
    /// Weakest authorship among the segments.
    authorship: Authorship,
}

/// Reads every segment and checks every hash; with a key also each segment's authentication.
fn inspect_archive(folder: &Path, key: Option<&ArchiveKey>) -> Result<ArchiveInspection, LogError> {
    let (mut found, mut authorship) = (Inventory::default(), Authorship::KeyHolder);
    let mut previous = segment::FIRST_PREVIOUS_HASH;
    let mut ends: HashMap<String, (Seq, Hash)> = HashMap::new();
    for path in segment_files(folder)? {
        let segment = Segment::read_file(&path)?;
        segment.check_follows(&path, previous, found.records)?;
        // One segment without authentication makes the whole archive unauthenticated.
        if key.map(|key| segment.check_key(&path, key)).transpose()? == Some(Authorship::Unknown) {
            authorship = Authorship::Unknown;
        }
        for entry in segment.parse_entries(&path)? {
            let body = entry.decode_body(&path)?;
            let events = body.events.len() as u64;
            let end = (body.seq.offset_by(events.saturating_sub(1)), entry.hash);
            let (seq, hash) = ends
                .insert(stream_name(&body), end)
                .unwrap_or((Seq(0), segment::FIRST_PREVIOUS_HASH));
            if body.seq != seq.offset_by(1) || entry.previous_hash != hash {
                let reason = format!("{}: event {} does not follow {seq}", body.stream, body.seq);
                return Err(segment::corrupt_archive(&path, &reason));
            }
            found.records += 1;
            found.events += events;
        }
        found.segments += 1;
        previous = segment.hash;
    }
    Ok(ArchiveInspection { inventory: found, ends, authorship })
}

/// Returns the name of a record's stream that is unique across tenants.
fn stream_name(body: &RecordBody) -> String {
    format!("{}:{}", body.tenant, body.stream)
}

/// Lists an archive's segment files in order: their names are padded record numbers.
fn segment_files(folder: &Path) -> Result<Vec<PathBuf>, LogError> {
    let entries = std::fs::read_dir(folder).map_err(|error| unusable_path(folder, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unusable_path(folder, &error))?.path();
        if path.extension().is_some_and(|ending| ending == segment::SEGMENT_EXTENSION) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unusable_path(path: &Path, error: &std::io::Error) -> LogError {
    LogError::Unavailable(format!("cannot use {}: {error}", path.display()))
}
