//! [`RunFile`]: a run file in memory, with the run and its ancestors.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::decider::Decider;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::GraphVersion;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{Run, RunState};
use convergio_domain::stream::StreamKey;

use super::line::RunFileHeader;
use super::reader::{RunFileItem, RunFileReader, line_error};
use super::{FILE_BYTES, RunFileError};
use crate::record::Record;

/// A run file in memory.
pub struct RunFile {
    /// Content of the first line.
    pub header: RunFileHeader,
    /// Stream of the run.
    pub stream: StreamKey,
    /// Graph versions that the records name.
    pub graphs: BTreeMap<GraphVersion, Graph>,
    /// Ancestors of a fork, the oldest first.
    pub ancestors: Vec<AncestorFile>,
    /// Records of the run; their positions are their numbers in the file.
    pub records: Vec<Arc<Record>>,
    /// Plaintexts of the run's payloads.
    pub payloads: BTreeMap<PayloadRef, Bytes>,
}

/// An ancestor of a fork, up to the inherited event.
#[derive(Default)]
pub struct AncestorFile {
    /// Records of the ancestor.
    pub records: Vec<Arc<Record>>,
    /// Plaintexts of the ancestor's payloads.
    pub payloads: BTreeMap<PayloadRef, Bytes>,
}

impl RunFile {
    /// Reads and checks a file of at most 1 GiB.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or does not match its hashes.
    pub fn open(path: &Path) -> Result<Self, RunFileError> {
        let bytes = std::fs::metadata(path).map_err(|error| line_error(1, &error))?.len();
        if bytes > FILE_BYTES {
            return Err(line_error(1, &format!("the file has more than {FILE_BYTES} bytes")));
        }
        Self::from_reader(RunFileReader::open(path)?)
    }

    /// Collects everything from a reader.
    ///
    /// # Errors
    /// Error of the first line that is wrong.
    pub fn from_reader<R: BufRead>(mut reader: RunFileReader<R>) -> Result<Self, RunFileError> {
        let (header, stream) = (reader.header().clone(), reader.run_stream().clone());
        let mut graphs = BTreeMap::new();
        // The stream that is being read; the ones before it are ancestors.
        let (mut part, mut ancestors) = (AncestorFile::default(), Vec::new());
        while let Some(item) = reader.next_item()? {
            match item {
                RunFileItem::Graph { version, manifest, .. } => {
                    let graph = serde_json::from_slice(&manifest)
                        .map_err(|error| line_error(reader.line_number(), &error))?;
                    graphs.insert(version, graph);
                }
                RunFileItem::Record(record, _) => {
                    if part.records.last().is_some_and(|last| last.stream != record.stream) {
                        ancestors.push(std::mem::take(&mut part));
                    }
                    part.records.push(record);
                }
                RunFileItem::Payload(reference, opening) => {
                    part.payloads.insert(reference, opening.bytes);
                }
            }
        }
        let AncestorFile { records, payloads } = part;
        Ok(Self { header, stream, graphs, ancestors, records, payloads })
    }

    /// Folds the state that a fork inherits from its ancestors; `None` if the run is no fork.
    pub fn inherited_state(&self) -> Option<RunState> {
        let mut state = RunState::default();
        for record in self.ancestors.iter().flat_map(|ancestor| &ancestor.records) {
            record.recorded_events().for_each(|recorded| Run::fold_event(&mut state, recorded));
        }
        (!self.ancestors.is_empty()).then_some(state)
    }
}
