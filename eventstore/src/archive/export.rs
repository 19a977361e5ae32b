//! Writing an archive: the whole log, continued where the last segment ends, or one stream.

use std::path::Path;

use convergio_domain::payload::PayloadSlot;
use convergio_domain::stream::{Seq, StreamKey};

use super::segment::{self, ArchiveEnd, ArchiveKey, SegmentWriter, corrupt_archive};
use super::{Inventory, segment_files, unusable_path};
use crate::error::LogError;
use crate::log::{EventLog, RawScan};
use crate::private_files::create_private_folder;
use crate::record::{BodyOutline, Hash, Position, RawRecord};
use crate::seal::{MasterKey, PayloadKeys, reseal_payload};

/// Records per read.
const PAGE_RECORDS: usize = 256;

struct ArchiveExporter<'a> {
    log: &'a dyn EventLog,
    folder: &'a Path,
    key: MasterKey,
    archive_key: ArchiveKey,
    previous: Hash,
    open_segment: SegmentWriter,
    exported: Inventory,
}

/// Appends to the archive the records that it lacks, and returns what was added. `key` seals the
/// payloads and must be the log's own. With a stream, only that one is written, into an empty
/// folder.
///
/// # Errors
/// The log cannot be read, the folder cannot be written, or the archive is of another log or key.
pub async fn export_archive(
    log: &dyn EventLog,
    key: &[u8; 32],
    folder: &Path,
    stream: Option<&StreamKey>,
) -> Result<Inventory, LogError> {
    create_private_folder(folder).map_err(|error| unusable_path(folder, &error))?;
    let archive_key = ArchiveKey::from_payload_key(key);
    let (previous, records) = match segment::find_end(&segment_files(folder)?)? {
        None => (segment::FIRST_PREVIOUS_HASH, 0),
        // A single stream is a copy of its own and cannot continue an archive of the whole log.
        Some(_) if stream.is_some() => {
            return Err(LogError::Unavailable(format!("{} is not empty", folder.display())));
        }
        // With another payload key the archive could be opened with neither key as a whole.
        Some(end) if end.key_fingerprint == archive_key.fingerprint => {
            check_continuation(log, folder, &end).await?;
            (end.segment_hash, end.records)
        }
        Some(_) => {
            return Err(corrupt_archive(folder, "the archive was made with another payload key"));
        }
    };
    let open = SegmentWriter::new(&previous, records, &archive_key);
    let (key, done) = (MasterKey::new(*key), Inventory::default());
    let mut exporter = ArchiveExporter {
        log,
        folder,
        key,
        archive_key,
        previous,
        open_segment: open,
        exported: done,
    };
    match stream {
        Some(stream) => exporter.export_stream(stream).await?,
        None => exporter.export_all(Position(records)).await?,
    }
    exporter.finish_segment()?;
    Ok(exporter.exported)
}

/// Checks that the archive's last record is in the log at the same position. Otherwise this is
/// another log, or one that has lost records which the archive still has.
async fn check_continuation(
    log: &dyn EventLog,
    folder: &Path,
    end: &ArchiveEnd,
) -> Result<(), LogError> {
    let Some(before) = end.records.checked_sub(1) else { return Ok(()) };
    let found = log.read_raw(RawScan::All(Position(before)), 1).await?;
    match found.first() {
        Some(record) if record.hash == end.last_record_hash => Ok(()),
        Some(_) => Err(corrupt_archive(folder, "the archive is of another log")),
        None => {
            let reason = format!("the archive has {} records, and the log has fewer", end.records);
            Err(corrupt_archive(folder, &reason))
        }
    }
}

impl ArchiveExporter<'_> {
    /// Exports the whole log. Positions are dense, so the archive's number of records is the
    /// position to continue after.
    async fn export_all(&mut self, mut at: Position) -> Result<(), LogError> {
        loop {
            let records = self.log.read_raw(RawScan::All(at), PAGE_RECORDS).await?;
            for record in &records {
                self.push_record(record).await?;
            }
            let Some(last) = records.last() else { return Ok(()) };
            at = last.position;
        }
    }

    async fn export_stream(&mut self, stream: &StreamKey) -> Result<(), LogError> {
        let mut after = Seq(0);
        loop {
            let records = self.log.read_raw(RawScan::Stream(stream, after), PAGE_RECORDS).await?;
            for record in &records {
                self.push_record(record).await?;
                after = record.seq;
            }
            if records.is_empty() {
                return Ok(());
            }
        }
    }

    async fn push_record(&mut self, record: &RawRecord) -> Result<(), LogError> {
        let outline = BodyOutline::read(&record.body)?;
        let mut payloads = Vec::with_capacity(outline.payloads.len());
        for (index, meta) in (0_u16..).zip(&outline.payloads) {
            let place = PayloadSlot(index).to_payload_ref(outline.seq);
            // Opened and sealed again instead of copied: providers store payloads differently, and
            // only an opening tells an erased payload from a lost one.
            let opening = self.log.open_payload(&record.stream, place).await?;
            let key = self.key.tenant_key(&record.stream.tenant)?;
            // Sealing is deterministic: archives of the same records are equal byte for byte on
            // every provider.
            let sealed =
                opening.map(|opening| reseal_payload(&key, &record.stream, place, &opening, meta));
            payloads.push(sealed.transpose()?);
        }
        self.open_segment.push_record(&record.prev_hash, &record.hash, &record.body, &payloads);
        self.exported.events += outline.event_count();
        if self.open_segment.is_full() { self.finish_segment() } else { Ok(()) }
    }

    /// Writes the open segment if it holds a record, and starts the next one.
    fn finish_segment(&mut self) -> Result<(), LogError> {
        // A segment without a record would have no end to continue from.
        if self.open_segment.record_count() == 0 {
            return Ok(());
        }
        let (total, records) =
            (self.open_segment.total_records(), self.open_segment.record_count());
        self.previous = self.open_segment.finish_file(self.folder)?;
        self.open_segment = SegmentWriter::new(&self.previous, total, &self.archive_key);
        self.exported.records += records;
        self.exported.segments += 1;
        Ok(())
    }
}
