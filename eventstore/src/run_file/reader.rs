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
use convergio_domain::run::event::RunEvent;
use convergio_domain::stream::{Seq, StreamKey};
use sha2::{Digest, Sha256};

use super::line::{
    AncestorLine, GraphLine, PayloadLine, RecordLine, RunFileHeader, RunFileLine, SignatureLine,
    decode_hex,
};
use super::{FORMAT, LINE_BYTES, RunFileError, UNSIGNED_FORMAT};
use crate::commit::LogLimits;
use crate::record::{Hash, Position, Record, RecordBody, chain_hash};
use crate::seal::{Opening, to_hex};
use crate::signature::verify_signer;

/// Checked content of a line.
pub enum RunFileItem {
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
pub struct RunFileReader<R> {
    lines: R,
    line_number: u64,
    buffer: Vec<u8>,
    header: RunFileHeader,
    stream: StreamKey,
    /// Stream whose records are being read, and its last event in the file.
    current: StreamKey,
    current_end: Seq,
    /// Ancestor that was read before it: stream, last event and hash.
    previous_ancestor: Option<(StreamKey, Seq, Hash)>,
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

impl RunFileReader<BufReader<File>> {
    /// Opens a file and reads its first line.
    ///
    /// # Errors
    /// The file cannot be read, or is not a run file.
    pub fn open(path: &Path) -> Result<Self, RunFileError> {
        let file = File::open(path);
        Self::new(BufReader::new(file.map_err(|error| line_error(1, &error))?))
    }
}

impl<R: BufRead> RunFileReader<R> {
    /// Starts reading with the first line.
    ///
    /// # Errors
    /// The line is not that of a run file, or of an unknown format.
    pub fn new(mut lines: R) -> Result<Self, RunFileError> {
        let mut buffer = Vec::new();
        let mut hasher = Sha256::new();
        read_line(&mut lines, &mut buffer).map_err(|reason| line_error(1, &reason))?;
        hash_line(&mut hasher, &buffer);
        let Ok(RunFileLine::Run(header)) = serde_json::from_slice(&buffer) else {
            return Err(line_error(1, &"not the file of a run: it begins with {\"run\": ...}"));
        };
        if ![FORMAT, UNSIGNED_FORMAT].contains(&header.format) {
            let (known, format) = (format!("{UNSIGNED_FORMAT} and {FORMAT}"), header.format);
            let reason = format!("format {format}: this program reads formats {known}");
            return Err(line_error(1, &reason));
        }
        let stream = StreamKey::for_run(header.tenant.clone(), header.run);
        let (last, graphs) = ((Seq(0), [0; 32], 0), Vec::new());
        let (commitments, before) = (BTreeMap::new(), None);
        let (current, until) = (stream.clone(), header.seq);
        Ok(Self {
            lines,
            line_number: 1,
            buffer,
            header,
            stream,
            current,
            current_end: until,
            previous_ancestor: before,
            last,
            graphs,
            commitments,
            hasher,
            signer: None,
        })
    }

    /// Returns the content of the first line.
    pub fn header(&self) -> &RunFileHeader {
        &self.header
    }

    /// Returns the stream of the run.
    pub fn run_stream(&self) -> &StreamKey {
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
        to_hex(&self.hasher.clone().finalize())
    }

    /// Returns the number of the last line, from 1.
    pub fn line_number(&self) -> u64 {
        self.line_number
    }

    /// Reads the next content; `None` after the last line.
    ///
    /// # Errors
    /// The line does not match its hashes, or the file ends too early.
    pub fn next_item(&mut self) -> Result<Option<RunFileItem>, RunFileError> {
        self.next_line().map_err(|reason| RunFileError { line: self.line_number, reason })
    }

    fn next_line(&mut self) -> Result<Option<RunFileItem>, String> {
        self.line_number += 1;
        self.read_item()
    }

    fn read_item(&mut self) -> Result<Option<RunFileItem>, String> {
        if !read_line(&mut self.lines, &mut self.buffer)? {
            self.check_end()?;
            return Ok(None);
        }
        if self.signer.is_some() {
            return Err("nothing follows the signature".into());
        }
        // Taken out while the line borrows it, and put back for its capacity.
        let buffer = std::mem::take(&mut self.buffer);
        let line: RunFileLine<'_> =
            serde_json::from_slice(&buffer).map_err(|error| format!("not a line: {error}"))?;
        if let RunFileLine::Signature(line) = &line {
            self.signer = Some(self.verify_signature(line)?);
        }
        hash_line(&mut self.hasher, &buffer);
        let item = match line {
            RunFileLine::Signature(_) => {
                self.buffer = buffer;
                return self.next_line();
            }
            RunFileLine::Run(_) => Err("a second first line".into()),
            RunFileLine::Ancestor(line) => {
                self.enter_ancestor(&line)?;
                self.buffer = buffer;
                return self.next_line();
            }
            RunFileLine::Graph(line) => self.read_graph(&line),
            RunFileLine::Record(line) => self.read_record(&line),
            RunFileLine::Payload(line) => self.read_payload(line),
        };
        self.buffer = buffer;
        item.map(Some)
    }

    /// Checks that the file may end here.
    fn check_end(&self) -> Result<(), String> {
        let is_own = self.current == self.stream && self.last.0 == self.current_end;
        if !is_own || to_hex(&self.last.1) != self.header.hash {
            return Err("the file ends before the last event that its first line names".into());
        }
        match (self.header.format, &self.signer) {
            (FORMAT, None) => Err("the file ends before its signature".into()),
            _ => Ok(()),
        }
    }

    /// Verifies the signature of all lines before this one; returns the key's fingerprint.
    fn verify_signature(&self, line: &SignatureLine) -> Result<String, String> {
        if self.header.format != FORMAT {
            return Err(format!("a file of format {} has no signature", self.header.format));
        }
        let key = decode_hex(&line.key).ok_or("a key is 64 hexadecimal digits")?;
        let signature =
            decode_hex(&line.signature).ok_or("a signature is 128 hexadecimal digits")?;
        let content = self.hasher.clone().finalize().into();
        let signer = verify_signer(&key, &signature, &content);
        signer.ok_or_else(|| "the file is not what its key signed: it was changed".into())
    }

    /// Starts the records of an ancestor.
    fn enter_ancestor(&mut self, line: &AncestorLine) -> Result<(), String> {
        let is_begun = self.current == self.stream && self.last.0 > Seq(0);
        let is_cut = self.current != self.stream && self.last.0 < self.current_end;
        if is_begun || is_cut {
            return Err("a run that others begin in stands whole, and before them".into());
        }
        self.switch_stream(StreamKey::for_run(self.header.tenant.clone(), line.run), line.seq);
        Ok(())
    }

    fn switch_stream(&mut self, stream: StreamKey, until: Seq) {
        let (seq, hash, records) = std::mem::replace(&mut self.last, (Seq(0), [0; 32], 0));
        self.last.2 = records;
        let left = std::mem::replace(&mut self.current, stream);
        self.previous_ancestor = (seq > Seq(0)).then_some((left, seq, hash));
        self.current_end = until;
    }

    /// Checks that a fork's first event names the history before it in the file, and that any other
    /// first event names none.
    fn check_inherited_history(&self, first: &Event) -> Result<(), String> {
        let named = if let Event::Run(RunEvent::RunForked(forked)) = first {
            let stream = StreamKey::for_run(self.header.tenant.clone(), forked.parent);
            Some((stream, forked.seq, forked.hash.clone()))
        } else {
            None
        };
        let before =
            self.previous_ancestor.clone().map(|(stream, seq, hash)| (stream, seq, to_hex(&hash)));
        match (named, before) {
            (named, before) if named == before => Ok(()),
            (Some((stream, seq, _)), _) => {
                Err(format!("it begins with {stream} up to event {seq}, which is not in the file"))
            }
            (None, _) => Err("it is no fork of the run that stands before it".into()),
        }
    }

    fn read_graph(&mut self, line: &GraphLine<'_>) -> Result<RunFileItem, String> {
        let manifest = line.manifest.get().as_bytes();
        if GraphVersion::from_manifest(manifest) != line.version {
            return Err(format!("the manifest is not that of version {}", line.version));
        }
        self.graphs.push(line.version.clone());
        let (graph, version) = (line.graph, line.version.clone());
        Ok(RunFileItem::Graph { graph, version, manifest: Bytes::copy_from_slice(manifest) })
    }

    fn read_record(&mut self, line: &RecordLine<'_>) -> Result<RunFileItem, String> {
        let hash_of = |text: &str| decode_hex(text).ok_or("a hash is 64 hexadecimal digits");
        let (prev_hash, hash) = (hash_of(&line.prev_hash)?, hash_of(&line.hash)?);
        let canonical = line.body.get().as_bytes();
        if self.current != self.stream && self.last.0 == self.current_end {
            // The ancestor is complete, so the next record is the run's own.
            self.switch_stream(self.stream.clone(), self.header.seq);
        }
        let (seq, before, records) = self.last;
        if prev_hash != before {
            return Err("the record does not follow the one before it: one is missing".into());
        }
        if chain_hash(&prev_hash, canonical) != hash {
            return Err("the hash of the record is not that of its body".into());
        }
        let body = RecordBody::from_canonical_json(canonical).map_err(|error| error.to_string())?;
        if body.events.len() > LogLimits::EVENTS || body.payloads.len() > LogLimits::PAYLOADS {
            return Err("the record holds more events or payloads than a commit can".into());
        }
        if body.seq != seq.offset_by(1) {
            return Err(format!("event {} does not follow event {seq}", body.seq));
        }
        if body.stream != self.current.stream_name() || body.tenant != self.current.tenant {
            return Err(format!("the record is of {}, the file of another", body.stream));
        }
        if seq == Seq(0) {
            self.check_inherited_history(&body.events[0])?;
        }
        self.check_versions_known(&body)?;
        // Positions in a file are its records' numbers, ancestors included.
        let position = Position(records + 1);
        let (recorded_at, stream) = (line.recorded_at, self.current.clone());
        let record = Record { position, recorded_at, stream, prev_hash, hash, body };
        if record.last_seq() > self.current_end {
            return Err(format!("the record goes beyond event {}", self.current_end));
        }
        self.last = (record.last_seq(), hash, records + 1);
        self.commitments.clear();
        for (index, meta) in (0_u16..).zip(&record.body.payloads) {
            let reference = PayloadSlot(index).to_payload_ref(record.first_seq());
            self.commitments.insert(reference, (meta.commitment.clone(), meta.bytes));
        }
        Ok(RunFileItem::Record(Arc::new(record), canonical.to_vec()))
    }

    /// Checks that the graph versions which a record names precede it.
    fn check_versions_known(&self, body: &RecordBody) -> Result<(), String> {
        for event in &body.events {
            let Event::Run(event) = event else { continue };
            let Some((_, version)) = event.chosen_version() else { continue };
            if !self.graphs.contains(version) {
                return Err(format!("graph version {version} does not stand before the record"));
            }
        }
        Ok(())
    }

    fn read_payload(&mut self, line: PayloadLine) -> Result<RunFileItem, String> {
        let bytes = match (line.text, line.base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).map_err(|error| error.to_string())?,
            _ => return Err("a payload has either `text` or `base64`".into()),
        };
        let salt = decode_hex(&line.salt).ok_or("a salt is 64 hexadecimal digits")?;
        let opening = Opening { bytes: Bytes::from(bytes), salt };
        let commitment = self.commitments.remove(&line.reference);
        let reference = line.reference;
        let (commitment, bytes) =
            commitment.ok_or_else(|| format!("the record before has no payload {reference}"))?;
        if !opening.matches_commitment(&commitment) || opening.bytes.len() as u64 != bytes {
            return Err(format!("payload {reference} is not the one that its record commits to"));
        }
        Ok(RunFileItem::Payload(reference, opening))
    }
}

/// Hashes a line with its line break.
fn hash_line(hasher: &mut Sha256, line: &[u8]) {
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

pub(super) fn line_error(line: u64, reason: &dyn std::fmt::Display) -> RunFileError {
    RunFileError { line, reason: reason.to_string() }
}
