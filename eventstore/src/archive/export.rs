//! Writing an archive: the whole log, continued where the last segment ends, or one stream.

use std::path::Path;

use convergio_domain::payload::PayloadSlot;
use convergio_domain::stream::{Seq, StreamKey};

use super::segment::{self, ArchiveKey, End, SegmentWriter, corrupt};
use super::{Inventory, files, unusable};
use crate::error::LogError;
use crate::log::{EventLog, Scan};
use crate::private_files::create_private_folder;
use crate::record::{Hash, Outline, Position, RawRecord};
use crate::seal::{MasterKey, PayloadKeys, seal_again};

/// Records per read.
const PAGE: usize = 256;

struct Exporter<'a> {
    log: &'a dyn EventLog,
    folder: &'a Path,
    key: MasterKey,
    archive_key: ArchiveKey,
    previous: Hash,
    open: SegmentWriter,
    done: Inventory,
}

/// Appends to the archive the records that it lacks, and returns what was added. `key` seals the
/// payloads and must be the log's own. With a stream, only that one is written, into an empty
/// folder.
///
/// # Errors
/// The log cannot be read, the folder cannot be written, or the archive is of another log or key.
pub async fn export(
    log: &dyn EventLog,
    key: &[u8; 32],
    folder: &Path,
    stream: Option<&StreamKey>,
) -> Result<Inventory, LogError> {
    create_private_folder(folder).map_err(|error| unusable(folder, &error))?;
    let archive_key = ArchiveKey::of(key);
    let (previous, records) = match segment::end(&files(folder)?)? {
        None => (segment::FIRST, 0),
        // A single stream is a copy of its own and cannot continue an archive of the whole log.
        Some(_) if stream.is_some() => {
            return Err(LogError::Unavailable(format!("{} is not empty", folder.display())));
        }
        // With another payload key the archive could be opened with neither key as a whole.
        Some(end) if end.print == archive_key.print => {
            continues(log, folder, &end).await?;
            (end.hash, end.records)
        }
        Some(_) => return Err(corrupt(folder, "the archive was made with another payload key")),
    };
    let open = SegmentWriter::new(&previous, records, &archive_key);
    let (key, done) = (MasterKey::new(*key), Inventory::default());
    let mut exporter = Exporter { log, folder, key, archive_key, previous, open, done };
    match stream {
        Some(stream) => exporter.stream(stream).await?,
        None => exporter.all(Position(records)).await?,
    }
    exporter.flush()?;
    Ok(exporter.done)
}

/// Checks that the archive's last record is in the log at the same position. Otherwise this is
/// another log, or one that has lost records which the archive still has.
async fn continues(log: &dyn EventLog, folder: &Path, end: &End) -> Result<(), LogError> {
    let Some(before) = end.records.checked_sub(1) else { return Ok(()) };
    let found = log.read_raw(Scan::All(Position(before)), 1).await?;
    match found.first() {
        Some(record) if record.hash == end.last => Ok(()),
        Some(_) => Err(corrupt(folder, "the archive is of another log")),
        None => {
            let reason = format!("the archive has {} records, and the log has fewer", end.records);
            Err(corrupt(folder, &reason))
        }
    }
}

impl Exporter<'_> {
    /// Exports the whole log. Positions are dense, so the archive's number of records is the
    /// position to continue after.
    async fn all(&mut self, mut at: Position) -> Result<(), LogError> {
        loop {
            let records = self.log.read_raw(Scan::All(at), PAGE).await?;
            for record in &records {
                self.push(record).await?;
            }
            let Some(last) = records.last() else { return Ok(()) };
            at = last.position;
        }
    }

    async fn stream(&mut self, stream: &StreamKey) -> Result<(), LogError> {
        let mut after = Seq(0);
        loop {
            let records = self.log.read_raw(Scan::Stream(stream, after), PAGE).await?;
            for record in &records {
                self.push(record).await?;
                after = record.seq;
            }
            if records.is_empty() {
                return Ok(());
            }
        }
    }

    async fn push(&mut self, record: &RawRecord) -> Result<(), LogError> {
        let outline = Outline::read(&record.body)?;
        let mut payloads = Vec::with_capacity(outline.payloads.len());
        for (index, meta) in (0_u16..).zip(&outline.payloads) {
            let place = PayloadSlot(index).at(outline.seq);
            // Opened and sealed again instead of copied: providers store payloads differently, and
            // only an opening tells an erased payload from a lost one.
            let opening = self.log.opening(&record.stream, place).await?;
            let key = self.key.key(&record.stream.tenant)?;
            // Sealing is deterministic: archives of the same records are equal byte for byte on
            // every provider.
            let sealed =
                opening.map(|opening| seal_again(&key, &record.stream, place, &opening, meta));
            payloads.push(sealed.transpose()?);
        }
        self.open.push(&record.prev_hash, &record.hash, &record.body, &payloads);
        self.done.events += outline.events();
        if self.open.is_full() { self.flush() } else { Ok(()) }
    }

    /// Writes the open segment if it holds a record, and starts the next one.
    fn flush(&mut self) -> Result<(), LogError> {
        // A segment without a record would have no end to continue from.
        if self.open.records() == 0 {
            return Ok(());
        }
        let (total, records) = (self.open.total(), self.open.records());
        self.previous = self.open.finish(self.folder)?;
        self.open = SegmentWriter::new(&self.previous, total, &self.archive_key);
        self.done.records += records;
        self.done.segments += 1;
        Ok(())
    }
}
