//! The limit: a plain append with fdatasync in the same folder.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// Bytes of one append: about what a small commit writes.
const APPEND_BYTES: usize = 512;
/// Appends in one measurement.
const APPENDS: usize = 300;

/// Microseconds of each append+fdatasync, sorted.
///
/// # Errors
/// The folder cannot be written to.
pub(super) fn append_sync_us(folder: &Path) -> std::io::Result<Vec<u64>> {
    let path = folder.join("raw.bench");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let bytes = [7_u8; APPEND_BYTES];
    let mut times = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let begun = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times)
}

/// A percentile of sorted values; 0 when there are none.
pub(super) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0)
}
