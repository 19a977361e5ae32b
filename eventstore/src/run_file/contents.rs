//! A run's file on its way into a log: read to its end, its payloads sealed for their new place.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::graph::graph_id;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, GraphVersion};
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;

use super::import::ImportError;
use super::read::{Item, Reader, wrong};
use super::{FILE_BYTES, FileError};
use crate::record::Record;
use crate::seal::{Opening, PayloadKeys, TenantKey, seal_again};

/// All that a file holds. Nothing of it is of use before the file was read to its end.
pub(super) struct Contents {
    /// The run.
    pub(super) stream: StreamKey,
    /// Its events.
    pub(super) events: u64,
    /// Graph versions, in the order in which they are named.
    pub(super) graphs: Vec<(GraphVersion, (Graph, Bytes))>,
    /// The streams of its history, the oldest first; the run's own is the last.
    pub(super) parts: Vec<StreamPart>,
    /// The fingerprint of the key that signed it.
    pub(super) signer: Option<String>,
    /// SHA-256 of the file.
    pub(super) hash: String,
}

/// The records of a stream.
pub(super) struct StreamPart {
    pub(super) stream: StreamKey,
    pub(super) records: Vec<ReadRecord>,
}

/// A record with its canonical body.
pub(super) struct ReadRecord {
    pub(super) record: Arc<Record>,
    pub(super) canonical: Vec<u8>,
    /// Its payloads; those that are not in the file are empty, as erased ones are.
    pub(super) sealed: Vec<Vec<u8>>,
}

impl Contents {
    /// Reads a file of at most 1 GiB to its end.
    pub(super) fn read(path: &Path, keys: &dyn PayloadKeys) -> Result<Self, ImportError> {
        let bytes = std::fs::metadata(path).map_err(|error| wrong(1, &error))?.len();
        if bytes > FILE_BYTES {
            return Err(wrong(1, &format!("the file has more than {FILE_BYTES} bytes")).into());
        }
        let mut reader = Reader::open(path)?;
        let stream = reader.stream().clone();
        let key = keys.key(&stream.tenant)?;
        let (mut graphs, mut parts) = (Vec::new(), Vec::new());
        while let Some(item) = reader.next_item()? {
            match item {
                Item::Graph { graph, version, manifest } => {
                    let parsed = parse(&stream, graph, &manifest, reader.line())?;
                    graphs.push((version, (parsed, manifest)));
                }
                Item::Record(record, canonical) => add(&mut parts, record, canonical),
                Item::Payload(reference, opening) => {
                    seal_payload(&mut parts, &key, reference, &opening)?;
                }
            }
        }
        let signer = reader.signer().map(str::to_owned);
        let (events, hash) = (reader.header().seq.0, reader.hash());
        Ok(Self { stream, events, graphs, parts, signer, hash })
    }
}

fn add(parts: &mut Vec<StreamPart>, record: Arc<Record>, canonical: Vec<u8>) {
    let sealed = vec![Vec::new(); record.body.payloads.len()];
    let stream = record.stream.clone();
    let read = ReadRecord { record, canonical, sealed };
    match parts.last_mut() {
        Some(part) if part.stream == stream => part.records.push(read),
        _ => parts.push(StreamPart { stream, records: vec![read] }),
    }
}

/// Seals a payload of the last record.
fn seal_payload(
    parts: &mut [StreamPart],
    key: &TenantKey,
    reference: PayloadRef,
    opening: &Opening,
) -> Result<(), ImportError> {
    let last = parts.last_mut().and_then(|part| part.records.last_mut());
    let Some(ReadRecord { record, sealed, .. }) = last else { return Ok(()) };
    let index = usize::from(reference.index);
    let meta = &record.body.payloads[index];
    sealed[index] = seal_again(key, &record.stream, reference, opening, meta)?;
    Ok(())
}

/// A manifest, if its graph is the one of that name.
fn parse(run: &StreamKey, graph: GraphId, manifest: &[u8], line: u64) -> Result<Graph, FileError> {
    let parsed: Graph = serde_json::from_slice(manifest)
        .map_err(|error| wrong(line, &format!("the manifest: {error}")))?;
    if graph_id(&run.tenant, &parsed.name) != graph {
        let reason = format!("graph {graph} is not the one named `{}`", parsed.name);
        return Err(wrong(line, &reason));
    }
    Ok(parsed)
}
