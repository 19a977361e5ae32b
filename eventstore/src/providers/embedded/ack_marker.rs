//! The acknowledgement marker: a small file that holds the end of the last acknowledged group.
//!
//! SQLite treats a damaged frame of its write-ahead log as its end, and starts anew where its files
//! are gone, so acknowledged commits could vanish without an error. The marker is written after
//! each group, once that is durable, and is not synced itself: after a power failure it may be old,
//! but it is never ahead of the disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::LogError;
use crate::private_files::open_private_file;
use crate::record::{Hash, Position};

/// Length: position, hash, and eight bytes of BLAKE3 over both.
const MARKER_BYTES: usize = 8 + 32 + 8;

/// The marker's file, open for writing.
pub(super) struct AckMarkerFile(File);

impl AckMarkerFile {
    /// Opens the marker beside a database, and compares it with the end of the log. `hash` looks up
    /// the hash of a position.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if acknowledged commits are missing or differ.
    pub(super) fn open(
        database: &Path,
        end: Position,
        hash: impl Fn(Position) -> Result<Option<Hash>, LogError>,
    ) -> Result<Self, LogError> {
        let path = database.with_file_name("log.end");
        let file = open_private_file(&path).map_err(|error| {
            LogError::Unavailable(format!("cannot use {}: {error}", path.display()))
        })?;
        let witness = Self(file);
        if let Some((position, witnessed)) = read_marker(&witness.0) {
            check_log_end(database, end, position, hash(position)?.is_none_or(|h| h == witnessed))?;
        }
        // Commits that were durable but not acknowledged before a crash count from now on: readers
        // see them.
        if let Some(last) = hash(end)? {
            witness.write_marker(end, &last);
        }
        Ok(witness)
    }

    /// Writes the end of a durable group.
    pub(super) fn write_marker(&self, position: Position, hash: &Hash) {
        let mut bytes = [0; MARKER_BYTES];
        bytes[..8].copy_from_slice(&position.0.to_be_bytes());
        bytes[8..40].copy_from_slice(hash);
        let check = *blake3::hash(&bytes[..40]).as_bytes();
        bytes[40..].copy_from_slice(&check[..8]);
        if let Err(error) = self.0.write_all_at(&bytes, 0) {
            // The log itself is safe; only a later loss would go unnoticed.
            tracing::warn!(%error, "the witness of the log's end was not written");
        }
    }
}

/// Checks that the log reaches the marker and holds the same record there.
fn check_log_end(
    database: &Path,
    end: Position,
    witnessed: Position,
    is_same: bool,
) -> Result<(), LogError> {
    if witnessed > end {
        let reason = format!(
            "it ends at position {}, and commits up to {} were acknowledged: its write-ahead log \
             is damaged or gone; restore the log from a backup",
            end.0, witnessed.0
        );
        return Err(LogError::corrupt(&database.display(), &reason));
    }
    if !is_same {
        let reason = format!("the record at position {} is not the one written", witnessed.0);
        return Err(LogError::corrupt(&database.display(), &reason));
    }
    Ok(())
}

/// Reads the marker; `None` if it is damaged or empty, which a crash may cause.
fn read_marker(file: &File) -> Option<(Position, Hash)> {
    let mut bytes = [0; MARKER_BYTES];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let check = *blake3::hash(&bytes[..40]).as_bytes();
    let position = bytes.first_chunk::<8>().copied().map(u64::from_be_bytes)?;
    let hash: Hash = bytes[8..40].try_into().ok()?;
    (bytes[40..] == check[..8]).then_some((Position(position), hash))
}
