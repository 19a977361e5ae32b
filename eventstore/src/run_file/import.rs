//! Putting a run's file into a log: checked whole first, then written record by record. A run that
//! has not ended stands still there until somebody goes on with it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::decider::{Context, Wake};
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{GraphNoun, Register, graph_id};
use convergio_domain::id::GraphVersion;
use convergio_domain::payload::{PayloadRef, PayloadSlot, Purpose};
use convergio_domain::stream::{Seq, StreamKey};

use super::FileError;
use super::read::{Item, Reader, wrong};
use crate::commit::Payload;
use crate::error::{AppendError, LogError};
use crate::log::Archived;
use crate::prepare::Prepared;
use crate::record::{Hash, Head, Record};
use crate::repository::{CommitError, Repository};
use crate::seal::{MasterKey, Opening, PayloadKeys, TenantKey, seal_again};

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The run.
    pub stream: StreamKey,
    /// Its events.
    pub events: u64,
    /// Records that the log did not have.
    pub added: u64,
}

/// Why nothing, or not all, was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is not right.
    #[error(transparent)]
    File(#[from] FileError),
    /// The log has another run under this id.
    #[error("{stream} of the log is another from event {seq} on: nothing was changed")]
    Conflict {
        /// The run.
        stream: StreamKey,
        /// The first event of the first record that differs.
        seq: Seq,
    },
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log does not take a record; the same import goes on where it ended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log does not take a graph version.
    #[error("a graph version cannot be registered: {0}")]
    Graph(String),
}

/// Imports a file under the run's own id. `key` seals the payloads and must be the log's own.
///
/// # Errors
/// See [`ImportError`]. A file that is wrong anywhere changes nothing.
pub async fn import(
    repository: &Repository,
    key: &[u8; 32],
    path: &Path,
    context: &Context,
) -> Result<Imported, ImportError> {
    let known = verify(repository, path).await?.into();
    let mut reader = Reader::open(path)?;
    let stream = reader.stream().clone();
    let key = MasterKey(*key).key(&stream.tenant)?;
    let mut writer = Writer { repository, key, head: None, open: None, known, added: 0 };
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Graph { version, manifest, .. } => {
                register(repository, &stream, &version, manifest, context, reader.line()).await?;
            }
            Item::Record(record, canonical) => {
                writer.flush().await?;
                let sealed = vec![Vec::new(); record.body.payloads.len()];
                writer.open = Some((record, canonical, sealed));
            }
            Item::Payload(reference, opening) => writer.seal(reference, &opening)?,
        }
    }
    writer.flush().await?;
    Ok(Imported { stream, events: reader.header().seq.0, added: writer.added })
}

/// Reads the whole file and compares it with what the log has of each stream in it; tells of each
/// record whether the log has it already.
async fn verify(repository: &Repository, path: &Path) -> Result<Vec<bool>, ImportError> {
    let mut reader = Reader::open(path)?;
    let stream = reader.stream().clone();
    let (log, mut known, mut at, mut has_more) = (repository.log(), Vec::new(), Seq(0), false);
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Graph { graph, manifest, .. } => {
                let named = parse(&manifest, reader.line())?.name;
                if graph_id(&stream.tenant, &named) != graph {
                    let reason = format!("graph {graph} is not the one named `{named}`");
                    return Err(wrong(reader.line(), &reason).into());
                }
            }
            Item::Record(record, _) => {
                if record.first_seq() == Seq(1) {
                    (at, has_more) = (Seq(0), log.head(&record.stream).await?.is_some());
                }
                if has_more {
                    match log.read_stream(&record.stream, at, 1).await?.first() {
                        Some(own) if own.hash == record.hash => {}
                        Some(_) => return Err(conflict(&record)),
                        None => has_more = false,
                    }
                }
                known.push(has_more);
                at = record.last_seq();
            }
            Item::Payload(..) => {}
        }
    }
    Ok(known)
}

fn conflict(record: &Record) -> ImportError {
    ImportError::Conflict { stream: record.stream.clone(), seq: record.first_seq() }
}

fn parse(manifest: &[u8], line: u64) -> Result<Graph, FileError> {
    serde_json::from_slice(manifest).map_err(|error| wrong(line, &format!("the manifest: {error}")))
}

/// Registers a version that the log does not have; the latest one stays the latest.
async fn register(
    repository: &Repository,
    run: &StreamKey,
    version: &GraphVersion,
    manifest: Bytes,
    context: &Context,
    line: u64,
) -> Result<(), ImportError> {
    let graph = parse(&manifest, line)?;
    let stream = StreamKey::graph(run.tenant.clone(), graph_id(&run.tenant, &graph.name));
    let state = repository.load::<GraphNoun>(&stream).await?.state;
    if state.versions.contains_key(version) {
        return Ok(());
    }
    put(repository, &stream, &graph, manifest, context).await
}

async fn put(
    repository: &Repository,
    stream: &StreamKey,
    graph: &Graph,
    manifest: Bytes,
    context: &Context,
) -> Result<(), ImportError> {
    let register = Register {
        name: graph.name.clone(),
        version: GraphVersion::of(&manifest),
        nodes: u32::try_from(graph.nodes.len()).unwrap_or(u32::MAX),
        manifest: PayloadSlot(0),
        // The latest version stays the latest.
        is_derived: true,
    };
    let (media_type, purpose) = ("application/json".to_owned(), Purpose::Manifest);
    let payload = Payload { bytes: manifest, media_type, purpose, subject: None };
    let command = |_: &_, _| (register.clone(), vec![payload.clone()]);
    match repository.execute::<GraphNoun>(stream, context, command).await {
        Ok(_) => Ok(()),
        Err(CommitError::Append(error)) => Err(error.into()),
        Err(CommitError::Log(error)) => Err(error.into()),
        Err(error) => Err(ImportError::Graph(error.to_string())),
    }
}

/// A record whose payloads are still being read.
type Open = (Arc<Record>, Vec<u8>, Vec<Vec<u8>>);

struct Writer<'a> {
    repository: &'a Repository,
    key: TenantKey,
    head: Option<Head>,
    open: Option<Open>,
    /// Whether the log has the next records already.
    known: VecDeque<bool>,
    added: u64,
}

impl Writer<'_> {
    fn seal(&mut self, reference: PayloadRef, opening: &Opening) -> Result<(), ImportError> {
        let Some((record, _, sealed)) = &mut self.open else { return Ok(()) };
        let index = usize::from(reference.index);
        let meta = &record.body.payloads[index];
        sealed[index] = seal_again(&self.key, &record.stream, reference, opening, meta)?;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ImportError> {
        let Some((record, canonical, sealed)) = self.open.take() else { return Ok(()) };
        let written: Hash = record.hash;
        if record.first_seq() == Seq(1) {
            self.head = None;
        }
        let prepared = Prepared {
            stream: record.stream.clone(),
            commit: record.body.commit,
            expected: self.head,
            prev_hash: record.prev_hash,
            hash: written,
            body: record.body.clone(),
            canonical,
            sealed,
            // A run that goes on by itself would do again what was done elsewhere.
            wake: Wake::Parked,
            fresh: Vec::new(),
            is_continued: false,
        };
        let head = self.repository.log().restore(Archived(prepared)).await?;
        if head.hash != written {
            return Err(conflict(&record));
        }
        self.added += u64::from(self.known.pop_front() == Some(false));
        self.head = Some(head);
        Ok(())
    }
}
