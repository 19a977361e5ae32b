//! A second, independent copy of a log: files of records and sealed payloads, chained by hash, from
//! which any provider's log can be made again.
//!
//! What is in a file does not depend on the provider: the same records in the same order are the
//! same bytes. The files alone tell nothing of payloads: the key is not in them.

mod backup;
mod export;
mod import;
mod segment;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use convergio_domain::stream::Seq;

pub use backup::backup_embedded;
pub use export::export;
pub use import::{Import, ImportedArchive, import};

use crate::error::LogError;
use crate::record::{Body, Hash};
use segment::{ArchiveKey, Authorship, Segment};

/// What an archive holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Files.
    pub segments: u64,
    /// Records.
    pub records: u64,
    /// Events in them.
    pub events: u64,
}

/// Reads every file and checks every hash.
///
/// # Errors
/// [`LogError::Corrupt`] names the first file that is not what was written.
pub fn verify(folder: &Path) -> Result<Inventory, LogError> {
    Ok(inspect(folder, None)?.found)
}

/// An archive that was read whole.
struct Inspected {
    found: Inventory,
    /// The end of each stream, by tenant and name.
    ends: HashMap<String, (Seq, Hash)>,
    /// Who wrote all of it.
    authorship: Authorship,
}

/// Reads every file and checks every hash; with a key also who wrote each.
fn inspect(folder: &Path, key: Option<&ArchiveKey>) -> Result<Inspected, LogError> {
    let (mut found, mut authorship) = (Inventory::default(), Authorship::KeyHolder);
    let mut previous = segment::FIRST;
    let mut ends: HashMap<String, (Seq, Hash)> = HashMap::new();
    for path in files(folder)? {
        let segment = Segment::read(&path)?;
        segment.follows(&path, previous, found.records)?;
        if key.map(|key| segment.check_key(&path, key)).transpose()? == Some(Authorship::Unknown) {
            authorship = Authorship::Unknown;
        }
        for entry in segment.entries(&path)? {
            let body = entry.record(&path)?;
            let events = body.events.len() as u64;
            let end = (body.seq.plus(events.saturating_sub(1)), entry.hash);
            let (seq, hash) =
                ends.insert(stream_name(&body), end).unwrap_or((Seq(0), segment::FIRST));
            if body.seq != seq.plus(1) || entry.previous != hash {
                let reason = format!("{}: event {} does not follow {seq}", body.stream, body.seq);
                return Err(segment::corrupt(&path, &reason));
            }
            found.records += 1;
            found.events += events;
        }
        found.segments += 1;
        previous = segment.hash;
    }
    Ok(Inspected { found, ends, authorship })
}

/// The name of a record's stream among all tenants' streams.
fn stream_name(body: &Body) -> String {
    format!("{}:{}", body.tenant, body.stream)
}

/// The files of an archive, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, LogError> {
    let entries = std::fs::read_dir(folder).map_err(|error| unusable(folder, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unusable(folder, &error))?.path();
        if path.extension().is_some_and(|ending| ending == segment::ENDING) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unusable(path: &Path, error: &std::io::Error) -> LogError {
    LogError::Unavailable(format!("cannot use {}: {error}", path.display()))
}
