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

use super::line::Header;
use super::read::{Item, Reader, wrong};
use super::{FILE_BYTES, FileError};
use crate::record::Record;

/// A run file in memory.
pub struct RunFile {
    /// Content of the first line.
    pub header: Header,
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
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let bytes = std::fs::metadata(path).map_err(|error| wrong(1, &error))?.len();
        if bytes > FILE_BYTES {
            return Err(wrong(1, &format!("the file has more than {FILE_BYTES} bytes")));
        }
        Self::read(Reader::open(path)?)
    }

    /// Collects everything from a reader.
    ///
    /// # Errors
    /// Error of the first line that is wrong.
    pub fn read<R: BufRead>(mut reader: Reader<R>) -> Result<Self, FileError> {
        let (header, stream) = (reader.header().clone(), reader.stream().clone());
        let mut graphs = BTreeMap::new();
        // The stream that is being read; the ones before it are ancestors.
        let (mut part, mut ancestors) = (AncestorFile::default(), Vec::new());
        while let Some(item) = reader.next_item()? {
            match item {
                Item::Graph { version, manifest, .. } => {
                    let graph = serde_json::from_slice(&manifest)
                        .map_err(|error| wrong(reader.line(), &error))?;
                    graphs.insert(version, graph);
                }
                Item::Record(record, _) => {
                    if part.records.last().is_some_and(|last| last.stream != record.stream) {
                        ancestors.push(std::mem::take(&mut part));
                    }
                    part.records.push(record);
                }
                Item::Payload(reference, opening) => {
                    part.payloads.insert(reference, opening.bytes);
                }
            }
        }
        let AncestorFile { records, payloads } = part;
        Ok(Self { header, stream, graphs, ancestors, records, payloads })
    }

    /// Folds the state that a fork inherits from its ancestors; `None` if the run is no fork.
    pub fn inherited(&self) -> Option<RunState> {
        let mut state = RunState::default();
        for record in self.ancestors.iter().flat_map(|ancestor| &ancestor.records) {
            record.events().for_each(|recorded| Run::evolve(&mut state, recorded));
        }
        (!self.ancestors.is_empty()).then_some(state)
    }
}
