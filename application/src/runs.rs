//! Runs: create one, by whatever way it was asked for.

use bytes::Bytes;
use convergio_domain::chat::Privacy;
use convergio_domain::id::{GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::{
    Budget, CreateRun, Provenance, Run, RunCommand, RunRejection, run_id_for_key,
};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{CommitError, LoadedStream, Payload};
use convergio_schemas::wire::{ExecuteRequest, RunAccepted};
use serde_json::json;
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::UseCaseError;
use crate::use_cases::{GraphUseCases, UseCases};

/// A run to be created.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Id of the run; creating the same one again changes nothing.
    pub run: RunId,
    /// Graph that the run executes.
    pub graph: GraphId,
    /// Version that the run is pinned to.
    pub version: GraphVersion,
    /// Inputs, a JSON object that was checked against the graph's schema.
    pub input: Bytes,
    /// Budget of the run, including its child runs.
    pub budget: Budget,
    /// Farthest that the run's conversations may travel.
    pub privacy: Privacy,
    /// Hash of the request, by which a repetition is told from another request.
    pub request_hash: String,
    /// Parent and agent of the run.
    pub provenance: Provenance,
}

impl NewRun {
    /// Describes a run with a new id and the default budget, that nobody's request is known of.
    pub fn of_version(graph: GraphId, version: GraphVersion, input: impl Into<Bytes>) -> Self {
        Self {
            run: RunId(Uuid::now_v7()),
            graph,
            version,
            input: input.into(),
            budget: Budget::default(),
            privacy: Privacy::Any,
            request_hash: String::new(),
            provenance: Provenance::default(),
        }
    }

    fn into_command(self, tenant: &TenantId) -> (StreamKey, CreateRun, Payload) {
        let create = CreateRun {
            graph: self.graph,
            version: self.version,
            input: PayloadSlot(0),
            budget: self.budget,
            privacy: self.privacy,
            request_hash: self.request_hash,
            provenance: self.provenance,
        };
        let stream = StreamKey::for_run(tenant.clone(), self.run);
        (stream, create, Payload::from_json(self.input, PayloadPurpose::Input, None))
    }
}

/// Returns the id of the run that a caller's request creates: derived from its key if it has one.
pub(crate) fn choose_run_id(caller: &Caller) -> RunId {
    match &caller.key {
        Some(key) => run_id_for_key(&caller.tenant, key.as_str()),
        None => RunId(Uuid::now_v7()),
    }
}

impl UseCases<'_> {
    /// Creates a run, or loads the one that the same request has created.
    ///
    /// # Errors
    /// The run's id belongs to another request, or the log does not take the commit.
    pub async fn create_run(
        self,
        caller: &Caller,
        new_run: NewRun,
    ) -> Result<LoadedStream<Run>, CommitError<RunRejection>> {
        let (stream, create, input) = new_run.into_command(&caller.tenant);
        let command = |_: &_, _| (RunCommand::Create(create.clone()), vec![input.clone()]);
        self.repository.execute::<Run>(&stream, &self.decision_context(caller), command).await
    }

    /// Creates a run whose id is new and which an executor of this process begins at once: nothing
    /// is loaded, and the log may let its first commits share a sync.
    ///
    /// # Errors
    /// The log does not take the commit.
    pub async fn create_first_run(
        self,
        caller: &Caller,
        new_run: NewRun,
    ) -> Result<LoadedStream<Run>, CommitError<RunRejection>> {
        let (stream, create, input) = new_run.into_command(&caller.tenant);
        let (command, context) = (RunCommand::Create(create), self.decision_context(caller));
        self.repository.commit_first::<Run>(stream, command, vec![input], &context).await
    }

    /// Finds the run that the same request has created already, by its key.
    pub(crate) async fn find_accepted_run(
        self,
        caller: &Caller,
        request_hash: &str,
    ) -> Result<Option<RunAccepted>, CommitError<RunRejection>> {
        if caller.key.is_none() {
            return Ok(None);
        }
        let run = choose_run_id(caller);
        let state = self.find_run(caller, run, request_hash).await?;
        let graph = state.and_then(|state| state.graph);
        Ok(graph.map(|(graph, version)| to_run_accepted(run, graph, &version)))
    }

    /// Creates a run of a request, or finds the one that the same request has created.
    pub(crate) async fn create_accepted_run(
        self,
        caller: &Caller,
        new_run: NewRun,
    ) -> Result<RunAccepted, CommitError<RunRejection>> {
        let (run, graph, version) = (new_run.run, new_run.graph, new_run.version.clone());
        let created = self.create_run(caller, new_run).await?;
        // A repetition answers with the version of the run that exists.
        let version = created.state.graph.map_or(version, |(_, version)| version);
        Ok(to_run_accepted(run, graph, &version))
    }
}

fn to_run_accepted(run: RunId, graph: GraphId, version: &GraphVersion) -> RunAccepted {
    RunAccepted {
        run_id: run.to_string(),
        graph_id: graph.to_string(),
        version: version.to_string(),
    }
}

impl GraphUseCases<'_> {
    /// Creates a run of a graph with inputs that satisfy its schema. The same request under the
    /// same key gives the same run for ever.
    ///
    /// # Errors
    /// There is no such version, the inputs do not satisfy it, or the log does not take the run.
    pub async fn execute_graph(
        self,
        caller: &Caller,
        graph: GraphId,
        request: ExecuteRequest,
        request_hash: String,
    ) -> Result<RunAccepted, UseCaseError> {
        // Before the manifest is read: a repetition succeeds even if the graph has changed since.
        if let Some(accepted) = self.log.find_accepted_run(caller, &request_hash).await? {
            return Ok(accepted);
        }
        let ExecuteRequest { inputs, version, privacy } = request;
        let (version, manifest) =
            self.log.load_manifest(&caller.tenant, graph, version.as_deref()).await?;
        let inputs = if inputs.is_null() { json!({}) } else { inputs };
        self.check_inputs(caller, &manifest.inputs, &inputs).await?;
        let privacy = privacy.as_deref().unwrap_or("any").parse().map_err(UseCaseError::Invalid)?;
        let new_run = NewRun {
            run: choose_run_id(caller),
            budget: manifest.budget,
            privacy,
            request_hash,
            ..NewRun::of_version(graph, version, inputs.to_string())
        };
        Ok(self.log.create_accepted_run(caller, new_run).await?)
    }
}
