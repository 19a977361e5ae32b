//! The segment file of an archive: a header, records each with its payloads, and a trailer with a
//! hash over everything before it. The header holds the hash of the previous segment.
//!
//! Segments are authenticated with a key that is derived from the payload key: a reader of an
//! archive cannot forge another segment. Segments of earlier versions ("CVGARCH1") are not
//! authenticated.
//!
//! ```text
//! header   "CVGARCH2" · hash of the previous file (32) · records before it (8) · key print (16)
//! entry    kind (1) · length (4) · bytes        numbers are little-endian
//!   1 record   hash before it (32) · its hash (32) · canonical body
//!   2 payload  sealed bytes of the record's next payload
//!   3 erased   the record's next payload is erased
//!   9 trailer  records in this file (8) · keyed BLAKE3 of them and all before the trailer (32) ·
//!              BLAKE3 of everything before (32)
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};

use super::unusable_path;
use crate::commit::LogLimits;
use crate::error::LogError;
use crate::private_files::write_private_file;
use crate::record::{Hash, RecordBody, chain_hash};

pub(super) const SEGMENT_EXTENSION: &str = "cvgarchive";
/// Previous hash in the header of the first segment, and of a stream's first record.
pub(super) const FIRST_PREVIOUS_HASH: Hash = [0; 32];
/// Size in bytes after which a segment is finished.
const SEGMENT_BYTES: usize = 64 << 20;
const MAGIC: &[u8; 8] = b"CVGARCH2";
/// Magic of segments without authentication.
const MAGIC_V1: &[u8; 8] = b"CVGARCH1";
const HEADER_BYTES: usize = 8 + 32 + 8 + 16;
const TRAILER_BYTES: usize = 5 + 8 + 32 + 32;
const TRAILER_BYTES_V1: usize = 5 + 8 + 32;

const RECORD: u8 = 1;
const PAYLOAD: u8 = 2;
const ERASED: u8 = 3;
const TRAILER: u8 = 9;

/// Keys of an archive's segments, derived from the payload key.
#[derive(Clone)]
pub(super) struct ArchiveKey {
    /// Public fingerprint of the payload key that sealed the payloads.
    pub(super) fingerprint: [u8; 16],
    /// Secret key that authenticates segments.
    authentication: [u8; 32],
}

impl ArchiveKey {
    pub(super) fn from_payload_key(key: &[u8; 32]) -> Self {
        let full = blake3::derive_key("convergio archive key print v1", key);
        let mut print = [0; 16];
        print.copy_from_slice(&full[..16]);
        let authentication = blake3::derive_key("convergio archive authentication 2", key);
        Self { fingerprint: print, authentication }
    }

    /// Computes the authentication tag of a segment's content and its number of records.
    fn authentication_tag(&self, records: u64, content: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.authentication);
        hasher.update(&records.to_le_bytes());
        hasher.update(content);
        hasher.finalize()
    }
}

/// Proof of a segment's author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authorship {
    /// A holder of the payload key.
    KeyHolder,
    /// Anybody who has read a segment of the archive: the segment is of an earlier version.
    Unknown,
}

/// A segment that is being written; in memory until it is finished.
pub(super) struct SegmentWriter {
    bytes: Vec<u8>,
    records_before: u64,
    records: u64,
    key: ArchiveKey,
}

impl SegmentWriter {
    pub(super) fn new(previous: &Hash, before: u64, key: &ArchiveKey) -> Self {
        let mut bytes = Vec::with_capacity(1 << 20);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(previous);
        bytes.extend_from_slice(&before.to_le_bytes());
        bytes.extend_from_slice(&key.fingerprint);
        Self { bytes, records_before: before, records: 0, key: key.clone() }
    }

    pub(super) fn record_count(&self) -> u64 {
        self.records
    }

    /// Returns the number of records in the archive up to the end of this segment.
    pub(super) fn total_records(&self) -> u64 {
        self.records_before + self.records
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= SEGMENT_BYTES
    }

    /// Appends a record with its sealed payloads; `None` for an erased payload.
    pub(super) fn push_record(
        &mut self,
        previous: &Hash,
        hash: &Hash,
        body: &[u8],
        payloads: &[Option<Vec<u8>>],
    ) {
        self.push_entry(RECORD, &[previous, hash, body]);
        for payload in payloads {
            match payload {
                Some(sealed) => self.push_entry(PAYLOAD, &[sealed]),
                None => self.push_entry(ERASED, &[]),
            }
        }
        self.records += 1;
    }

    fn push_entry(&mut self, kind: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes.push(kind);
        // The length always fits: records and payloads are far below 4 GiB (`LogLimits`).
        self.bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Writes the segment atomically and returns its hash. Nothing may be pushed afterwards.
    pub(super) fn finish_file(&mut self, folder: &Path) -> Result<Hash, LogError> {
        let tag = self.key.authentication_tag(self.records, &self.bytes);
        let length = (TRAILER_BYTES as u32 - 5).to_le_bytes();
        self.bytes.push(TRAILER);
        self.bytes.extend_from_slice(&length);
        self.bytes.extend_from_slice(&self.records.to_le_bytes());
        self.bytes.extend_from_slice(tag.as_bytes());
        let hash: Hash = *blake3::hash(&self.bytes).as_bytes();
        self.bytes.extend_from_slice(&hash);
        // Padded, so that the order of names is the order of records.
        let path = folder.join(format!("{:020}.{SEGMENT_EXTENSION}", self.records_before + 1));
        // The folder is synced too, or the name could be lost in a power failure.
        let write = || {
            write_private_file(&path, &self.bytes)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|error| unusable_path(&path, &error))?;
        Ok(hash)
    }
}

/// A segment that was read; the hash in its trailer was checked.
pub(super) struct Segment {
    bytes: Vec<u8>,
    /// Offset of the trailer.
    trailer_offset: usize,
    previous_hash: Hash,
    pub(super) records_before: u64,
    pub(super) key_fingerprint: [u8; 16],
    pub(super) records: u64,
    pub(super) hash: Hash,
    /// Authentication tag; `None` in segments of version 1.
    authentication_tag: Option<blake3::Hash>,
}

/// A record of a segment.
pub(super) struct SegmentEntry<'a> {
    pub(super) previous_hash: Hash,
    pub(super) hash: Hash,
    pub(super) body: &'a [u8],
    pub(super) payloads: Vec<Option<&'a [u8]>>,
}

impl SegmentEntry<'_> {
    /// Decodes the body after checking its hash and its number of payloads.
    pub(super) fn decode_body(&self, path: &Path) -> Result<RecordBody, LogError> {
        if chain_hash(&self.previous_hash, self.body) != self.hash {
            return Err(corrupt_archive(path, "the hash of a record is not that of its body"));
        }
        let body = RecordBody::from_canonical_json(self.body)?;
        if body.payloads.len() != self.payloads.len() || body.payloads.len() > LogLimits::PAYLOADS {
            return Err(corrupt_archive(path, "a record has not as many payloads as it names"));
        }
        Ok(body)
    }
}

impl Segment {
    pub(super) fn read_file(path: &Path) -> Result<Self, LogError> {
        let bytes = std::fs::read(path).map_err(|error| unusable_path(path, &error))?;
        let is_authenticated = !bytes.starts_with(MAGIC_V1);
        let length = if is_authenticated { TRAILER_BYTES } else { TRAILER_BYTES_V1 };
        let Some(end) = bytes.len().checked_sub(length).filter(|end| *end >= HEADER_BYTES) else {
            return Err(corrupt_archive(path, "the file is cut short"));
        };
        let (content, trailer) = bytes.split_at(end);
        // Version 2 hashes the authentication tag as well, version 1 the content only.
        let hashed = if is_authenticated { &bytes[..bytes.len() - 32] } else { content };
        let hash: Hash = *blake3::hash(hashed).as_bytes();
        let is_ours = content.starts_with(MAGIC) || !is_authenticated;
        if !is_ours || trailer[0] != TRAILER || trailer[length - 32..] != hash {
            return Err(corrupt_archive(path, "the file was changed or cut short"));
        }
        let word = trailer[13..length - 32].first_chunk::<32>();
        let word = word.map(|word| blake3::Hash::from(*word));
        let records = read_u64(&trailer[5..13]);
        let (mut previous, mut print) = ([0; 32], [0; 16]);
        previous.copy_from_slice(&content[8..40]);
        print.copy_from_slice(&content[48..64]);
        let before = read_u64(&content[40..48]);
        Ok(Self {
            previous_hash: previous,
            records_before: before,
            key_fingerprint: print,
            records,
            hash,
            authentication_tag: word,
            trailer_offset: end,
            bytes,
        })
    }

    /// Checks the key's fingerprint and the authentication tag.
    ///
    /// # Errors
    /// The payloads were sealed with another key, or the tag is wrong.
    pub(super) fn check_key(&self, path: &Path, key: &ArchiveKey) -> Result<Authorship, LogError> {
        if self.key_fingerprint != key.fingerprint {
            return Err(corrupt_archive(path, "its payloads were sealed with another key"));
        }
        match self.authentication_tag {
            None => Ok(Authorship::Unknown),
            // `blake3::Hash` compares in constant time.
            Some(word)
                if word
                    == key.authentication_tag(self.records, &self.bytes[..self.trailer_offset]) =>
            {
                Ok(Authorship::KeyHolder)
            }
            Some(_) => Err(corrupt_archive(path, "it was not written by who has the payload key")),
        }
    }

    /// Checks that the segment continues an archive that ends with this hash and number of records.
    pub(super) fn check_follows(
        &self,
        path: &Path,
        hash: Hash,
        records: u64,
    ) -> Result<(), LogError> {
        if self.previous_hash != hash || self.records_before != records {
            return Err(corrupt_archive(
                path,
                "it does not follow the file before it: one is missing",
            ));
        }
        Ok(())
    }

    /// Parses the records with their payloads.
    pub(super) fn parse_entries(&self, path: &Path) -> Result<Vec<SegmentEntry<'_>>, LogError> {
        let mut rest = &self.bytes[HEADER_BYTES..self.trailer_offset];
        let mut found: Vec<SegmentEntry<'_>> = Vec::new();
        // An entry's head is its kind (1 byte) and its length (4 bytes).
        while let Some((head, after)) = rest.split_at_checked(5) {
            let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some((bytes, after)) = after.split_at_checked(length) else { break };
            rest = after;
            match (head[0], found.last_mut()) {
                (RECORD, _) if length >= 64 => {
                    let (mut previous, mut hash) = ([0; 32], [0; 32]);
                    previous.copy_from_slice(&bytes[..32]);
                    hash.copy_from_slice(&bytes[32..64]);
                    let payloads = Vec::new();
                    found.push(SegmentEntry {
                        previous_hash: previous,
                        hash,
                        body: &bytes[64..],
                        payloads,
                    });
                }
                (PAYLOAD, Some(last)) => last.payloads.push(Some(bytes)),
                (ERASED, Some(last)) => last.payloads.push(None),
                _ => return Err(corrupt_archive(path, "an entry is of no known kind")),
            }
        }
        if !rest.is_empty() || found.len() as u64 != self.records {
            return Err(corrupt_archive(path, "the file has not as many records as it says"));
        }
        Ok(found)
    }
}

pub(super) fn corrupt_archive(path: &Path, reason: &str) -> LogError {
    LogError::corrupt(&path.display(), reason)
}

fn read_u64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// End of an archive.
pub(super) struct ArchiveEnd {
    /// Hash of the last segment.
    pub(super) segment_hash: Hash,
    /// Number of records in the archive.
    pub(super) records: u64,
    pub(super) key_fingerprint: [u8; 16],
    /// Hash of the last record.
    pub(super) last_record_hash: Hash,
}

/// Reads the end of an archive; `None` if it is empty.
pub(super) fn find_end(files: &[PathBuf]) -> Result<Option<ArchiveEnd>, LogError> {
    let Some(path) = files.last() else { return Ok(None) };
    let file = Segment::read_file(path)?;
    let entries = file.parse_entries(path)?;
    let last = entries.last().ok_or_else(|| corrupt_archive(path, "the file has no record"))?.hash;
    let records = file.records_before + file.records;
    Ok(Some(ArchiveEnd {
        segment_hash: file.hash,
        records,
        key_fingerprint: file.key_fingerprint,
        last_record_hash: last,
    }))
}
