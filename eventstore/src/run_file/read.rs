//! Reading a run file line by line. The file is untrusted: every record is checked against its
//! hashes, every payload against its commitment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convergio_domain::event::Event;
use convergio_domain::id::{GraphId, GraphVersion};
use convergio_domain::payload::{PayloadRef, PayloadSlot};
use convergio_domain::stream::{Seq, StreamKey};
use sha2::{Digest, Sha256};

use super::line::{
    AncestorLine, GraphLine, Header, Line, PayloadLine, RecordLine, SignatureLine, unhex,
};
use super::{FORMAT, FileError, LINE_BYTES, UNSIGNED_FORMAT};
use crate::commit::Limits;
use crate::record::{Body, Hash, Position, Record, chain};
use crate::seal::{Opening, hex};
use crate::signature::signer_of;

/// Checked content of a line.
pub enum Item {
    /// A graph version that later records name.
    Graph {
        /// Id of the graph.
        graph: GraphId,
        /// Version: the hash of the manifest.
        version: GraphVersion,
        /// Canonical JSON of the manifest.
        manifest: Bytes,
    },
    /// A record with its canonical body.
    Record(Arc<Record>, Vec<u8>),
    /// The plaintext and salt of a payload of the last record.
    Payload(PayloadRef, Opening),
}

/// Reader of a run file.
pub struct Reader<R> {
    lines: R,
    number: u64,
    buffer: Vec<u8>,
    header: Header,
    stream: StreamKey,
    /// Stream whose records are being read, and its last event in the file.
    current: StreamKey,
    until: Seq,
    /// Ancestor that was read before it: stream, last event and hash.
    before: Option<(StreamKey, Seq, Hash)>,
    /// Last event, its hash, and the number of records so far.
    last: (Seq, Hash, u64),
    graphs: Vec<GraphVersion>,
    /// Commitments and lengths of the last record's payloads that were not read yet.
    commitments: BTreeMap<PayloadRef, (String, u64)>,
    /// Hash of all lines so far.
    hasher: Sha256,
    /// Fingerprint of the key that signed them, once the signature was read.
    signer: Option<String>,
}

impl Reader<BufReader<File>> {
    /// Opens a file and reads its first line.
    ///
    /// # Errors
    /// The file cannot be read, or is not a run file.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path);
        Self::new(BufReader::new(file.map_err(|error| wrong(1, &error))?))
    }
}

impl<R: BufRead> Reader<R> {
    /// Starts reading with the first line.
    ///
    /// # Errors
    /// The line is not that of a run file, or of an unknown format.
    pub fn new(mut lines: R) -> Result<Self, FileError> {
        let mut buffer = Vec::new();
        let mut hasher = Sha256::new();
        read_line(&mut lines, &mut buffer).map_err(|reason| wrong(1, &reason))?;
        update(&mut hasher, &buffer);
        let Ok(Line::Run(header)) = serde_json::from_slice(&buffer) else {
            return Err(wrong(1, &"not the file of a run: it begins with {\"run\": ...}"));
        };
        if ![FORMAT, UNSIGNED_FORMAT].contains(&header.format) {
            let (known, format) = (format!("{UNSIGNED_FORMAT} and {FORMAT}"), header.format);
            let reason = format!("format {format}: this program reads formats {known}");
            return Err(wrong(1, &reason));
        }
        let stream = StreamKey::run(header.tenant.clone(), header.run);
        let (last, graphs) = ((Seq(0), [0; 32], 0), Vec::new());
        let (commitments, before) = (BTreeMap::new(), None);
        let (current, until) = (stream.clone(), header.seq);
        Ok(Self {
            lines,
            number: 1,
            buffer,
            header,
            stream,
            current,
            until,
            before,
            last,
            graphs,
            commitments,
            hasher,
            signer: None,
        })
    }

    /// Returns the content of the first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the stream of the run.
    pub fn stream(&self) -> &StreamKey {
        &self.stream
    }

    /// Returns the fingerprint of the key that signed the file, once it was read to its end; `None`
    /// if it is not signed.
    pub fn signer(&self) -> Option<&str> {
        self.signer.as_deref()
    }

    /// Returns the SHA-256 of the lines read so far, as hexadecimal digits; of the file, once it
    /// was read to its end.
    pub fn hash(&self) -> String {
        hex(&self.hasher.clone().finalize())
    }

    /// Returns the number of the last line, from 1.
    pub fn line(&self) -> u64 {
        self.number
    }

    /// Reads the next content; `None` after the last line.
    ///
    /// # Errors
    /// The line does not match its hashes, or the file ends too early.
    pub fn next_item(&mut self) -> Result<Option<Item>, FileError> {
        self.next_line().map_err(|reason| FileError { line: self.number, reason })
    }

    fn next_line(&mut self) -> Result<Option<Item>, String> {
        self.number += 1;
        self.item()
    }

    fn item(&mut self) -> Result<Option<Item>, String> {
        if !read_line(&mut self.lines, &mut self.buffer)? {
            self.check_end()?;
            return Ok(None);
        }
        if self.signer.is_some() {
            return Err("nothing follows the signature".into());
        }
        // Taken out while the line borrows it, and put back for its capacity.
        let buffer = std::mem::take(&mut self.buffer);
        let line: Line<'_> =
            serde_json::from_slice(&buffer).map_err(|error| format!("not a line: {error}"))?;
        if let Line::Signature(line) = &line {
            self.signer = Some(self.signer_of(line)?);
        }
        update(&mut self.hasher, &buffer);
        let item = match line {
            Line::Signature(_) => {
                self.buffer = buffer;
                return self.next_line();
            }
            Line::Run(_) => Err("a second first line".into()),
            Line::Ancestor(line) => {
                self.ancestor(&line)?;
                self.buffer = buffer;
                return self.next_line();
            }
            Line::Graph(line) => self.graph(&line),
            Line::Record(line) => self.record(&line),
            Line::Payload(line) => self.payload(line),
        };
        self.buffer = buffer;
        item.map(Some)
    }

    /// Checks that the file may end here.
    fn check_end(&self) -> Result<(), String> {
        let is_own = self.current == self.stream && self.last.0 == self.until;
        if !is_own || hex(&self.last.1) != self.header.hash {
            return Err("the file ends before the last event that its first line names".into());
        }
        match (self.header.format, &self.signer) {
            (FORMAT, None) => Err("the file ends before its signature".into()),
            _ => Ok(()),
        }
    }

    /// Verifies the signature of all lines before this one; returns the key's fingerprint.
    fn signer_of(&self, line: &SignatureLine) -> Result<String, String> {
        if self.header.format != FORMAT {
            return Err(format!("a file of format {} has no signature", self.header.format));
        }
        let key = unhex(&line.key).ok_or("a key is 64 hexadecimal digits")?;
        let signature = unhex(&line.signature).ok_or("a signature is 128 hexadecimal digits")?;
        let content = self.hasher.clone().finalize().into();
        let signer = signer_of(&key, &signature, &content);
        signer.ok_or_else(|| "the file is not what its key signed: it was changed".into())
    }

    /// Starts the records of an ancestor.
    fn ancestor(&mut self, line: &AncestorLine) -> Result<(), String> {
        let is_begun = self.current == self.stream && self.last.0 > Seq(0);
        let is_cut = self.current != self.stream && self.last.0 < self.until;
        if is_begun || is_cut {
            return Err("a run that others begin in stands whole, and before them".into());
        }
        self.enter(StreamKey::run(self.header.tenant.clone(), line.run), line.seq);
        Ok(())
    }

    fn enter(&mut self, stream: StreamKey, until: Seq) {
        let (seq, hash, records) = std::mem::replace(&mut self.last, (Seq(0), [0; 32], 0));
        self.last.2 = records;
        let left = std::mem::replace(&mut self.current, stream);
        self.before = (seq > Seq(0)).then_some((left, seq, hash));
        self.until = until;
    }

    /// Checks that a fork's first event names the history before it in the file, and that any other
    /// first event names none.
    fn follows(&self, first: &Event) -> Result<(), String> {
        let named = match first {
            Event::RunForked(forked) => {
                let stream = StreamKey::run(self.header.tenant.clone(), forked.parent);
                Some((stream, forked.seq, forked.hash.clone()))
            }
            _ => None,
        };
        let before = self.before.clone().map(|(stream, seq, hash)| (stream, seq, hex(&hash)));
        match (named, before) {
            (named, before) if named == before => Ok(()),
            (Some((stream, seq, _)), _) => {
                Err(format!("it begins with {stream} up to event {seq}, which is not in the file"))
            }
            (None, _) => Err("it is no fork of the run that stands before it".into()),
        }
    }

    fn graph(&mut self, line: &GraphLine<'_>) -> Result<Item, String> {
        let manifest = line.manifest.get().as_bytes();
        if GraphVersion::of(manifest) != line.version {
            return Err(format!("the manifest is not that of version {}", line.version));
        }
        self.graphs.push(line.version.clone());
        let (graph, version) = (line.graph, line.version.clone());
        Ok(Item::Graph { graph, version, manifest: Bytes::copy_from_slice(manifest) })
    }

    fn record(&mut self, line: &RecordLine<'_>) -> Result<Item, String> {
        let hash_of = |text: &str| unhex(text).ok_or("a hash is 64 hexadecimal digits");
        let (prev_hash, hash) = (hash_of(&line.prev_hash)?, hash_of(&line.hash)?);
        let canonical = line.body.get().as_bytes();
        if self.current != self.stream && self.last.0 == self.until {
            // The ancestor is complete, so the next record is the run's own.
            self.enter(self.stream.clone(), self.header.seq);
        }
        let (seq, before, records) = self.last;
        if prev_hash != before {
            return Err("the record does not follow the one before it: one is missing".into());
        }
        if chain(&prev_hash, canonical) != hash {
            return Err("the hash of the record is not that of its body".into());
        }
        let body = Body::decode(canonical).map_err(|error| error.to_string())?;
        if body.events.len() > Limits::EVENTS || body.payloads.len() > Limits::PAYLOADS {
            return Err("the record holds more events or payloads than a commit can".into());
        }
        if body.seq != seq.plus(1) {
            return Err(format!("event {} does not follow event {seq}", body.seq));
        }
        if body.stream != self.current.name() || body.tenant != self.current.tenant {
            return Err(format!("the record is of {}, the file of another", body.stream));
        }
        if seq == Seq(0) {
            self.follows(&body.events[0])?;
        }
        self.names_known(&body)?;
        // Positions in a file are its records' numbers, ancestors included.
        let position = Position(records + 1);
        let (recorded_at, stream) = (line.recorded_at, self.current.clone());
        let record = Record { position, recorded_at, stream, prev_hash, hash, body };
        if record.last_seq() > self.until {
            return Err(format!("the record goes beyond event {}", self.until));
        }
        self.last = (record.last_seq(), hash, records + 1);
        self.commitments.clear();
        for (index, meta) in (0_u16..).zip(&record.body.payloads) {
            let reference = PayloadSlot(index).at(record.first_seq());
            self.commitments.insert(reference, (meta.commitment.clone(), meta.bytes));
        }
        Ok(Item::Record(Arc::new(record), canonical.to_vec()))
    }

    /// Checks that the graph versions which a record names precede it.
    fn names_known(&self, body: &Body) -> Result<(), String> {
        for event in &body.events {
            let version = match event {
                Event::RunCreated(created) => &created.version,
                Event::RunForked(forked) => &forked.version,
                Event::RunMigrated(migrated) => &migrated.to,
                _ => continue,
            };
            if !self.graphs.contains(version) {
                return Err(format!("graph version {version} does not stand before the record"));
            }
        }
        Ok(())
    }

    fn payload(&mut self, line: PayloadLine) -> Result<Item, String> {
        let bytes = match (line.text, line.base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).map_err(|error| error.to_string())?,
            _ => return Err("a payload has either `text` or `base64`".into()),
        };
        let salt = unhex(&line.salt).ok_or("a salt is 64 hexadecimal digits")?;
        let opening = Opening { bytes: Bytes::from(bytes), salt };
        let commitment = self.commitments.remove(&line.reference);
        let reference = line.reference;
        let (commitment, bytes) =
            commitment.ok_or_else(|| format!("the record before has no payload {reference}"))?;
        if !opening.opens(&commitment) || opening.bytes.len() as u64 != bytes {
            return Err(format!("payload {reference} is not the one that its record commits to"));
        }
        Ok(Item::Payload(reference, opening))
    }
}

/// Hashes a line with its line break.
fn update(hasher: &mut Sha256, line: &[u8]) {
    hasher.update(line);
    hasher.update(b"\n");
}

/// Reads a line without its line break; false at the end of the file.
fn read_line(lines: &mut impl BufRead, buffer: &mut Vec<u8>) -> Result<bool, String> {
    buffer.clear();
    // One byte more than allowed tells a line that is too long from one that fits exactly.
    let limit = LINE_BYTES as u64 + 1;
    let mut limited = std::io::Read::take(lines, limit);
    let read = limited.read_until(b'\n', buffer).map_err(|error| error.to_string())?;
    if read as u64 == limit {
        return Err(format!("the line has more than {LINE_BYTES} bytes"));
    }
    if buffer.pop_if(|last| *last == b'\n').is_none() && read > 0 {
        return Err("the file is cut short in this line".into());
    }
    Ok(read > 0)
}

pub(super) fn wrong(line: u64, reason: &dyn std::fmt::Display) -> FileError {
    FileError { line, reason: reason.to_string() }
}
