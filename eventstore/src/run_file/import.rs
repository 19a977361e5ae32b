//! Importing a run file: it is read and checked as a whole first, and then written atomically,
//! where the log can. An imported run is history: its last event names importer and file, and
//! nothing is appended to it.

use std::path::Path;

use bytes::Bytes;
use convergio_domain::decider::{Decider, DecisionContext, Wake};
use convergio_domain::event::Event;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{GraphNoun, RegisterGraph, graph_id};
use convergio_domain::id::GraphVersion;
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::event::{RunEvent, RunImported};
use convergio_domain::run::{Run, RunState};
use convergio_domain::stream::{Seq, StreamKey};
use uuid::Uuid;

use super::RunFileError;
use super::contents::{FileRecord, RunFileContents, StreamPart};
use crate::commit::{Commit, Payload};
use crate::error::{AppendError, LogError};
use crate::log::{ArchivedRecord, EventLog};
use crate::prepare::{PreparedCommit, prepare_commit};
use crate::record::{Position, StreamHead};
use crate::repository::{CommitError, Repository};
use crate::seal::{MasterKey, PayloadKeys};

/// Records per read while comparing with the log.
const PAGE_RECORDS: usize = 256;

/// Options of an import.
#[derive(Debug, Clone, Copy)]
pub struct RunImportOptions<'a> {
    /// Importing actor and time.
    pub context: &'a DecisionContext,
    /// Fingerprint of the key that must have signed the file; `None` accepts any.
    pub signer: Option<&'a str>,
}

/// Summary of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunImportReport {
    /// Stream of the run.
    pub stream: StreamKey,
    /// Number of the run's events in the file.
    pub events: u64,
    /// Number of records that the log did not have.
    pub added_records: u64,
    /// Fingerprint of the key that signed the file; `None` if it is not signed.
    pub signer: Option<String>,
}

/// Error of an import. An invalid file changes nothing; a log that fails midway may keep graph
/// versions and, where it cannot write atomically, a part of the records.
#[derive(Debug, thiserror::Error)]
pub enum RunImportError {
    /// The file is malformed, or its hashes or signature do not match.
    #[error(transparent)]
    File(#[from] RunFileError),
    /// The file is not signed by the demanded key.
    #[error("it must be signed by {demanded}, and {found}: nothing was changed")]
    Signer {
        /// Fingerprint that was demanded.
        demanded: String,
        /// Description of the signature that the file has.
        found: String,
    },
    /// The log has a different run under this id.
    #[error("{stream} of the log is another from event {seq} on: nothing was changed")]
    Conflict {
        /// Stream that differs.
        stream: StreamKey,
        /// First event of the first record that differs.
        seq: Seq,
    },
    /// The log has a part of the run, and a file must not extend it.
    #[error(
        "{stream} of the log ends before event {seq}, and a file adds nothing to a run that is \
        there: import it into a folder of its own; nothing was changed"
    )]
    Longer {
        /// Stream that is incomplete in the log.
        stream: StreamKey,
        /// First event that the log does not have.
        seq: Seq,
    },
    /// Reading the log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log does not accept the records.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log does not accept a graph version.
    #[error("a graph version cannot be registered: {0}")]
    Graph(String),
}

/// Imports a file under the run's own id. `key` seals the payloads and must be the log's own.
/// Streams that the log has already stay as they are, without an import mark.
///
/// # Errors
/// See [`RunImportError`]. A file with an error anywhere changes nothing.
pub async fn import_run(
    repository: &Repository,
    key: &[u8; 32],
    path: &Path,
    options: RunImportOptions<'_>,
) -> Result<RunImportReport, RunImportError> {
    let keys = MasterKey::new(*key);
    let contents = RunFileContents::read_file(path, &keys)?;
    check_signer(&contents, options.signer)?;
    let mark = Event::Run(RunEvent::RunImported(RunImported {
        by: options.context.actor.clone(),
        file_hash: contents.hash.clone(),
        signer: contents.signer.clone(),
    }));
    let (log, mut archived, mut added) = (repository.log_writer(), Vec::new(), 0);
    let mut state = RunState::default();
    for part in contents.parts {
        // Each part continues the state of the one before it: a fork inherits its parent's.
        let is_known = is_in_log(log, &part).await?;
        part.records.iter().for_each(|read| fold_record(&mut state, read));
        if is_known {
            continue;
        }
        added += part.records.len() as u64;
        let end = ImportMark { event: &mark, state: &state, context: options.context };
        archived.extend(to_archived_records(part, end, &keys)?);
    }
    for (version, manifest) in contents.graphs {
        register_graph(repository, &contents.stream, &version, manifest, options.context).await?;
    }
    if !archived.is_empty() {
        // Graph versions come first: a run must never name a version that its log does not have.
        log.restore_records(archived).await?;
    }
    let RunFileContents { stream, events, signer, .. } = contents;
    Ok(RunImportReport { stream, events, added_records: added, signer })
}

fn check_signer(contents: &RunFileContents, demanded: Option<&str>) -> Result<(), RunImportError> {
    let Some(demanded) = demanded else { return Ok(()) };
    let found = match contents.signer.as_deref() {
        Some(signer) if signer == demanded => return Ok(()),
        Some(signer) => format!("it is signed by {signer}"),
        None => "it is not signed".to_owned(),
    };
    Err(RunImportError::Signer { demanded: demanded.to_owned(), found })
}

fn fold_record(state: &mut RunState, read: &FileRecord) {
    read.record.recorded_events().for_each(|recorded| Run::fold_event(state, recorded));
}

/// Returns whether the log has all records of a stream; it must have all of them or none.
async fn is_in_log(log: &dyn EventLog, part: &StreamPart) -> Result<bool, RunImportError> {
    if log.stream_head(&part.stream).await?.is_none() {
        return Ok(false);
    }
    let mut at = Seq(0);
    for read in part.records.chunks(PAGE_RECORDS) {
        let own = log.read_stream(&part.stream, at, read.len()).await?;
        for (index, FileRecord { record, .. }) in read.iter().enumerate() {
            let (stream, seq) = (part.stream.clone(), record.first_seq());
            match own.get(index) {
                Some(own) if own.hash == record.hash => at = record.last_seq(),
                Some(_) => return Err(RunImportError::Conflict { stream, seq }),
                None => return Err(RunImportError::Longer { stream, seq }),
            }
        }
    }
    Ok(true)
}

/// The event that ends an imported stream, and what its record needs.
struct ImportMark<'a> {
    event: &'a Event,
    /// State of the stream before the event.
    state: &'a RunState,
    context: &'a DecisionContext,
}

/// Converts a stream's records for the log, followed by the import mark.
fn to_archived_records(
    part: StreamPart,
    mark: ImportMark<'_>,
    keys: &dyn PayloadKeys,
) -> Result<Vec<ArchivedRecord>, RunImportError> {
    let last = part.records.last().map(|read| read.record.stream_head());
    let mut archived = Vec::with_capacity(part.records.len() + 1);
    for FileRecord { record, canonical, sealed } in part.records {
        archived.push(ArchivedRecord::new(PreparedCommit {
            stream: record.stream.clone(),
            commit: record.body.commit,
            expected: None,
            prev_hash: record.prev_hash,
            hash: record.hash,
            body: record.body.clone(),
            canonical,
            sealed,
            // Parked: an executor that resumed the run would repeat effects that happened
            // elsewhere.
            wake: Wake::Parked,
            recent_payloads: Vec::new(),
            is_continued: false,
        })?);
    }
    archived.extend(mark.to_archived_record(part.stream, last, keys)?);
    Ok(archived)
}

impl ImportMark<'_> {
    /// Builds the mark's record after the stream's last one.
    fn to_archived_record(
        &self,
        stream: StreamKey,
        last: Option<StreamHead>,
        keys: &dyn PayloadKeys,
    ) -> Result<Option<ArchivedRecord>, RunImportError> {
        let Some(last) = last else { return Ok(None) };
        let (mut state, time) = (self.state.clone(), self.context.now);
        let seq = last.seq.offset_by(1);
        let recorded = convergio_domain::decider::RecordedEvent { seq, time, event: self.event };
        Run::fold_event(&mut state, recorded);
        let commit = Commit {
            stream,
            id: Uuid::now_v7(),
            // The position is unknown until the import, and not part of the hash.
            expected: Some(StreamHead { position: Position::START, ..last }),
            time,
            actor: self.context.actor.clone(),
            events: vec![self.event.clone()],
            fingerprint: Run::refresh_fingerprint(&mut state),
            payloads: Vec::new(),
            deltas: Vec::new(),
            wake: Run::next_wake(&state),
            is_continued: false,
        };
        Ok(Some(ArchivedRecord::new(prepare_commit(commit, keys)?)?))
    }
}

/// Registers a graph version that the log does not have; the graph's latest version stays the
/// latest.
async fn register_graph(
    repository: &Repository,
    run: &StreamKey,
    version: &GraphVersion,
    (graph, manifest): (Graph, Bytes),
    context: &DecisionContext,
) -> Result<(), RunImportError> {
    let stream = StreamKey::for_graph(run.tenant.clone(), graph_id(&run.tenant, &graph.name));
    let state = repository.load::<GraphNoun>(&stream).await?.state;
    if state.versions.contains_key(version) {
        return Ok(());
    }
    store_manifest(repository, &stream, &graph, manifest, context).await
}

async fn store_manifest(
    repository: &Repository,
    stream: &StreamKey,
    graph: &Graph,
    manifest: Bytes,
    context: &DecisionContext,
) -> Result<(), RunImportError> {
    let register = RegisterGraph {
        name: graph.name.clone(),
        version: GraphVersion::from_manifest(&manifest),
        nodes: u32::try_from(graph.nodes.len()).unwrap_or(u32::MAX),
        manifest: PayloadSlot(0),
        // A derived version does not become the graph's latest one.
        is_derived: true,
    };
    let payload = Payload::from_json(manifest, PayloadPurpose::Manifest, None);
    let command = |_: &_, _| (register.clone(), vec![payload.clone()]);
    match repository.execute::<GraphNoun>(stream, context, command).await {
        Ok(_) => Ok(()),
        Err(CommitError::Append(error)) => Err(error.into()),
        Err(CommitError::Log(error)) => Err(error.into()),
        Err(error) => Err(RunImportError::Graph(error.to_string())),
    }
}
