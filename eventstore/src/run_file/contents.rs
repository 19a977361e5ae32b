//! Contents of a run file on their way into a log: read to the end, with payloads sealed by the
//! log's own key.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::graph::graph_id;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, GraphVersion};
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;

use super::import::RunImportError;
use super::reader::{RunFileItem, RunFileReader, line_error};
use super::{FILE_BYTES, RunFileError};
use crate::record::Record;
use crate::seal::{Opening, PayloadKeys, TenantKey, reseal_payload};

/// Contents of a run file. They must not be used before the file was read to its end, where the
/// signature is checked.
pub(super) struct RunFileContents {
    /// Stream of the run.
    pub(super) stream: StreamKey,
    /// Number of the run's events, inherited ones not counted.
    pub(super) events: u64,
    /// Graph versions with their manifests, in the order in which records name them.
    pub(super) graphs: Vec<(GraphVersion, (Graph, Bytes))>,
    /// Streams of the run's history, the oldest ancestor first and the run's own last.
    pub(super) parts: Vec<StreamPart>,
    /// Fingerprint of the key that signed the file.
    pub(super) signer: Option<String>,
    /// SHA-256 of the file, as hexadecimal digits.
    pub(super) hash: String,
}

/// Records of one stream.
pub(super) struct StreamPart {
    pub(super) stream: StreamKey,
    pub(super) records: Vec<FileRecord>,
}

/// A record with its canonical body and sealed payloads.
pub(super) struct FileRecord {
    pub(super) record: Arc<Record>,
    pub(super) canonical: Vec<u8>,
    /// Sealed payloads by index. Those that are not in the file are empty, like erased ones.
    pub(super) sealed: Vec<Vec<u8>>,
}

impl RunFileContents {
    /// Reads a file of at most [`FILE_BYTES`] to its end.
    pub(super) fn read_file(path: &Path, keys: &dyn PayloadKeys) -> Result<Self, RunImportError> {
        let bytes = std::fs::metadata(path).map_err(|error| line_error(1, &error))?.len();
        if bytes > FILE_BYTES {
            return Err(line_error(1, &format!("the file has more than {FILE_BYTES} bytes")).into());
        }
        let mut reader = RunFileReader::open(path)?;
        let stream = reader.run_stream().clone();
        let key = keys.tenant_key(&stream.tenant)?;
        let (mut graphs, mut parts) = (Vec::new(), Vec::new());
        while let Some(item) = reader.next_item()? {
            match item {
                RunFileItem::Graph { graph, version, manifest } => {
                    let parsed = parse_manifest(&stream, graph, &manifest, reader.line_number())?;
                    graphs.push((version, (parsed, manifest)));
                }
                RunFileItem::Record(record, canonical) => {
                    push_record(&mut parts, record, canonical);
                }
                RunFileItem::Payload(reference, opening) => {
                    seal_payload(&mut parts, &key, reference, &opening)?;
                }
            }
        }
        let signer = reader.signer().map(str::to_owned);
        let (events, hash) = (reader.header().seq.0, reader.hash());
        Ok(Self { stream, events, graphs, parts, signer, hash })
    }
}

fn push_record(parts: &mut Vec<StreamPart>, record: Arc<Record>, canonical: Vec<u8>) {
    let sealed = vec![Vec::new(); record.body.payloads.len()];
    let stream = record.stream.clone();
    let read = FileRecord { record, canonical, sealed };
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
) -> Result<(), RunImportError> {
    let last = parts.last_mut().and_then(|part| part.records.last_mut());
    let Some(FileRecord { record, sealed, .. }) = last else { return Ok(()) };
    let index = usize::from(reference.index);
    let meta = &record.body.payloads[index];
    sealed[index] = reseal_payload(key, &record.stream, reference, opening, meta)?;
    Ok(())
}

/// Parses a manifest and checks that the graph's id is derived from its name: a file must not
/// register a version under another graph.
fn parse_manifest(
    run: &StreamKey,
    graph: GraphId,
    manifest: &[u8],
    line: u64,
) -> Result<Graph, RunFileError> {
    let parsed: Graph = serde_json::from_slice(manifest)
        .map_err(|error| line_error(line, &format!("the manifest: {error}")))?;
    if graph_id(&run.tenant, &parsed.name) != graph {
        let reason = format!("graph {graph} is not the one named `{}`", parsed.name);
        return Err(line_error(line, &reason));
    }
    Ok(parsed)
}
