//! Writing an archive: the whole log, going on where the last file ends, or one stream.

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

/// Records read at once.
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

/// Writes what the archive does not have yet; gives what was added. `key` seals the payloads, and
/// must be the log's own. With a stream, only that one, into an empty folder.
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
        Some(_) if stream.is_some() => {
            return Err(LogError::Unavailable(format!("{} is not empty", folder.display())));
        }
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

/// Checks that an archive's last record stands in the log where it stood: else this is another
/// log, or one that has lost records which the archive still has.
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
    /// Positions are dense, so the archive's length is where to go on.
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
            let opening = self.log.opening(&record.stream, place).await?;
            let key = self.key.key(&record.stream.tenant)?;
            // Sealing is deterministic: every log gives the same bytes.
            let sealed =
                opening.map(|opening| seal_again(&key, &record.stream, place, &opening, meta));
            payloads.push(sealed.transpose()?);
        }
        self.open.push(&record.prev_hash, &record.hash, &record.body, &payloads);
        self.done.events += outline.events();
        if self.open.is_full() { self.flush() } else { Ok(()) }
    }

    /// Ends the open file, if it holds anything.
    fn flush(&mut self) -> Result<(), LogError> {
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
