//! Limits of the device: plain appends with fdatasync in the same folder, alone and in groups.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Bytes of one append, about those of a small commit.
const APPEND_BYTES: usize = 512;
/// Number of appends in one measurement.
const APPENDS_COUNT: usize = 300;

/// Sorted latencies in microseconds of appends with fdatasync.
///
/// # Errors
/// The folder cannot be written to.
pub(super) fn append_sync_us(folder: &Path) -> std::io::Result<Vec<u64>> {
    let path = folder.join("raw.bench");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let bytes = [7_u8; APPEND_BYTES];
    let mut times = Vec::with_capacity(APPENDS_COUNT);
    for _ in 0..APPENDS_COUNT {
        let begun = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(elapsed_us(begun));
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times)
}

/// Microseconds that have passed since `start`.
pub(super) fn elapsed_us(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Value at a percentile of sorted values; 0 if there are none.
pub(super) fn value_at_percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0)
}

/// A record that waits for the writing thread.
struct PendingRecord {
    bytes: Vec<u8>,
    written: oneshot::Sender<()>,
}

/// Records per second that `writers` get through one file. Each waits for its own record; one
/// thread takes all that wait, writes them at once and syncs once.
///
/// # Errors
/// The folder cannot be written to.
pub(super) async fn group_commit_per_s(
    folder: &Path,
    writers: usize,
    bytes: usize,
    span: Duration,
) -> std::io::Result<u64> {
    let path = folder.join("segment.bench");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let (queue, mut waiting) = mpsc::channel::<PendingRecord>(1024);
    let thread = std::thread::spawn(move || -> std::io::Result<()> {
        let mut group = Vec::new();
        // Everything that waits goes into one write and one sync, as the log's writer does it.
        while waiting.blocking_recv_many(&mut group, 256) > 0 {
            let all: Vec<u8> = group.iter().flat_map(|record| record.bytes.clone()).collect();
            file.write_all(&all)?;
            file.sync_data()?;
            for record in group.drain(..) {
                // The writer may have stopped waiting at the end of the measurement.
                let _left = record.written.send(());
            }
        }
        Ok(())
    });
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let queue = queue.clone();
        tasks.spawn(async move {
            let mut count = 0_u64;
            while begun.elapsed() < span {
                let (written, done) = oneshot::channel();
                let sent = queue.send(PendingRecord { bytes: vec![7; bytes], written }).await;
                if sent.is_err() || done.await.is_err() {
                    break;
                }
                count += 1;
            }
            count
        });
    }
    drop(queue);
    let total: u64 = tasks.join_all().await.into_iter().sum();
    let per_s = total as f64 / begun.elapsed().as_secs_f64();
    thread.join().map_err(|_| std::io::Error::other("the writer panicked"))??;
    std::fs::remove_file(path)?;
    Ok(per_s as u64)
}
