//! Where a replay reads a run from: its records, payloads and graph versions.

use std::sync::Arc;

use convergio_application::ReplayError;
use convergio_domain::decider::Decider;
use convergio_domain::event::Event;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, GraphVersion};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{Run, RunState};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::run_file::RunFile;
use convergio_eventstore::{LogError, Record, Repository};
use convergio_executor::replay::read_graph;

/// Records read at once.
pub(crate) const READ_LIMIT: usize = 256;

/// Source of the records, payloads and graph versions of a run.
pub enum ReplaySource<'a> {
    /// A run of a log.
    Log(&'a Repository, &'a StreamKey),
    /// A run that was exported.
    File(&'a RunFile),
}

impl ReplaySource<'_> {
    pub(crate) fn run_stream(&self) -> &StreamKey {
        match self {
            Self::Log(_, run) => run,
            Self::File(file) => &file.stream,
        }
    }

    pub(crate) async fn read_records(&self, after: Seq) -> Result<Vec<Arc<Record>>, LogError> {
        match self {
            Self::Log(repository, run) => {
                repository.event_log().read_stream(run, after, READ_LIMIT).await
            }
            Self::File(file) => {
                let records = file.records.iter().filter(|record| record.first_seq() > after);
                Ok(records.take(READ_LIMIT).cloned().collect())
            }
        }
    }

    pub(crate) async fn load_graph(
        &self,
        id: GraphId,
        version: &GraphVersion,
    ) -> Result<Graph, ReplayError> {
        let missing = || ReplayError::Graph(format!("the file has no graph version {version}"));
        match self {
            Self::File(file) => file.graphs.get(version).cloned().ok_or_else(missing),
            Self::Log(repository, run) => {
                let graph = read_graph(repository, &run.tenant, id, version).await;
                graph.map_err(|error| ReplayError::Graph(error.to_string()))
            }
        }
    }

    /// Table of candidates that a model was chosen from; `None` if it was erased or left out.
    pub(crate) async fn candidate_table(
        &self,
        at: PayloadRef,
    ) -> Result<Option<Vec<u8>>, LogError> {
        match self {
            Self::Log(repository, run) => {
                Ok(repository.read_payload(run, at).await?.map(Vec::from))
            }
            Self::File(file) => Ok(file.payloads.get(&at).map(|bytes| bytes.to_vec())),
        }
    }

    /// State that a fork inherits from its parent; `None` for other runs.
    pub(crate) async fn inherited_state(&self) -> Result<Option<RunState>, LogError> {
        let (repository, run) = match self {
            Self::Log(repository, run) => (repository, run),
            Self::File(file) => return Ok(file.inherited_state()),
        };
        // A run of the log names its parent in its first event; a file has the state itself.
        let first = repository.event_log().read_stream(run, Seq(0), 1).await?;
        let event = first.first().and_then(|record| record.body.events.first());
        let Some(from) = event.and_then(Run::inherited_history) else { return Ok(None) };
        let parent = StreamKey { id: from.id, ..(*run).clone() };
        let loaded = repository.load_at::<Run>(&parent, from.seq, true).await?;
        Ok(loaded.map(|loaded| loaded.state))
    }

    /// Graph and version that the run was created with.
    pub(crate) async fn initial_graph(&self) -> Result<(GraphId, GraphVersion), ReplayError> {
        let records = self.read_records(Seq(0)).await?;
        let first = records.first().and_then(|record| record.body.events.first());
        if let Some(Event::Run(event)) = first
            && let Some((Some(graph), version)) = event.chosen_version()
        {
            return Ok((graph, version.clone()));
        }
        Err(ReplayError::Graph("the run has no graph".into()))
    }
}
