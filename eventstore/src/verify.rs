//! Verification of a whole log: every hash chain from its first record, and every payload on
//! request.

use std::collections::HashMap;

use convergio_domain::payload::PayloadSlot;
use convergio_domain::stream::{Seq, StreamKey};

use crate::error::LogError;
use crate::log::EventLog;
use crate::record::{Hash, Position, Record};

/// Records per read.
const PAGE_RECORDS: usize = 2048;

/// Counts of a log that was verified without an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogVerification {
    /// Number of records.
    pub records: u64,
    /// Number of events in the records.
    pub events: u64,
    /// Payloads that match their commitments; 0 if payloads were not opened.
    pub payloads: u64,
    /// Payloads that were erased; 0 if payloads were not opened.
    pub erased: u64,
}

/// Reads every record and checks each stream's sequence numbers and hashes from its first record
/// on; with `payloads`, opens every payload too.
///
/// # Errors
/// [`LogError::Corrupt`] names the first record or payload that is damaged.
pub async fn verify_log(log: &dyn EventLog, payloads: bool) -> Result<LogVerification, LogError> {
    let mut verification = LogVerification::default();
    let mut ends: HashMap<StreamKey, (Seq, Hash)> = HashMap::new();
    let mut position = Position::START;
    loop {
        let page = log.read_all(position, PAGE_RECORDS).await?;
        for record in &page.records {
            check_follows(&mut ends, record)?;
            verification.records += 1;
            verification.events += record.body.events.len() as u64;
            if payloads {
                count_payloads(log, record, &mut verification).await?;
            }
        }
        if page.records.is_empty() {
            return Ok(verification);
        }
        position = page.next;
    }
}

/// Checks that a record follows the previous one of its stream.
fn check_follows(
    ends: &mut HashMap<StreamKey, (Seq, Hash)>,
    record: &Record,
) -> Result<(), LogError> {
    let end = (record.last_seq(), record.hash);
    let (seq, hash) = match ends.get_mut(&record.stream) {
        Some(known) => std::mem::replace(known, end),
        None => {
            ends.insert(record.stream.clone(), end);
            (Seq(0), [0; 32])
        }
    };
    if record.first_seq() != seq.offset_by(1) || record.prev_hash != hash {
        let at = format!("{} event {}", record.stream, record.first_seq());
        return Err(LogError::corrupt(&at, &format!("it does not follow event {seq}")));
    }
    Ok(())
}

async fn count_payloads(
    log: &dyn EventLog,
    record: &Record,
    found: &mut LogVerification,
) -> Result<(), LogError> {
    for index in (0_u16..).take(record.body.payloads.len()) {
        let place = PayloadSlot(index).to_payload_ref(record.first_seq());
        match log.read_payload(&record.stream, place).await? {
            Some(_) => found.payloads += 1,
            None => found.erased += 1,
        }
    }
    Ok(())
}
