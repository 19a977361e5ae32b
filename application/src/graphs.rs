//! Graphs: register a version, find one, read its manifest.

use bytes::Bytes;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{GraphNoun, GraphRejection, RegisterGraph, graph_id};
use convergio_domain::id::{GraphId, GraphVersion, TenantId};
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::payload::{PayloadPurpose, PayloadRef, PayloadSlot};
use convergio_domain::stream::StreamKey;
use convergio_evaluation::ParsedManifest;
use convergio_eventstore::{CommitError, LogError, Payload};
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::UseCaseError;
use crate::use_cases::{GraphUseCases, UseCases};

/// Maximum bytes of a manifest.
const MANIFEST_LIMIT: usize = 1 << 20;

/// Reason why a manifest cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The tenant has no such graph, or the graph no such version.
    #[error("there is no such graph or version")]
    NotRegistered,
    /// The manifest was erased.
    #[error("there is no such manifest: it was erased")]
    Erased,
    /// The manifest is not one that this program can read.
    #[error("the stored manifest: {0}")]
    Unusable(serde_json::Error),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A version to be registered.
struct NewVersion {
    id: GraphId,
    register: RegisterGraph,
    /// Canonical JSON.
    manifest: Bytes,
    /// Id of the request, if it is to be remembered.
    request: Option<Uuid>,
}

impl NewVersion {
    fn from_graph(id: GraphId, graph: &Graph, is_derived: bool) -> Self {
        let manifest = Bytes::from(graph.canonical_manifest());
        let version = GraphVersion::from_manifest(&manifest);
        Self::from_manifest(id, graph, version, manifest, is_derived)
    }

    fn from_manifest(
        id: GraphId,
        graph: &Graph,
        version: GraphVersion,
        manifest: Bytes,
        is_derived: bool,
    ) -> Self {
        let register = RegisterGraph {
            name: graph.name.clone(),
            version,
            nodes: u32::try_from(graph.nodes.len()).unwrap_or(u32::MAX),
            manifest: PayloadSlot(0),
            is_derived,
        };
        Self { id, register, manifest, request: None }
    }
}

impl UseCases<'_> {
    /// Registers a version under the id of its graph's name; a repeated request changes nothing.
    ///
    /// # Errors
    /// The log does not take the commit.
    pub async fn register_graph(
        self,
        caller: &Caller,
        graph: &Graph,
    ) -> Result<(GraphId, GraphVersion), CommitError<GraphRejection>> {
        let new_version =
            NewVersion::from_graph(graph_id(&caller.tenant, &graph.name), graph, false);
        let registered = (new_version.id, new_version.register.version.clone());
        let request = caller.request_id();
        self.append_version(caller, NewVersion { request, ..new_version }).await?;
        Ok(registered)
    }

    /// Registers a version under an id without making it the graph's latest: a fork's changed graph
    /// must not become the default of new runs.
    ///
    /// # Errors
    /// The log does not take the commit.
    pub(crate) async fn register_derived_graph(
        self,
        caller: &Caller,
        id: GraphId,
        graph: &Graph,
    ) -> Result<(), CommitError<GraphRejection>> {
        self.append_version(caller, NewVersion::from_graph(id, graph, true)).await
    }

    /// Registers a version whose canonical manifest lies in the log already, byte for byte.
    ///
    /// # Errors
    /// The log does not take the commit.
    pub async fn register_stored_graph(
        self,
        caller: &Caller,
        id: GraphId,
        version: GraphVersion,
        graph: &Graph,
        manifest: Bytes,
    ) -> Result<(), CommitError<GraphRejection>> {
        let new_version = NewVersion::from_manifest(id, graph, version, manifest, false);
        self.append_version(caller, new_version).await
    }

    async fn append_version(
        self,
        caller: &Caller,
        new_version: NewVersion,
    ) -> Result<(), CommitError<GraphRejection>> {
        let NewVersion { id, register, manifest, request } = new_version;
        let manifest = Payload::from_json(manifest, PayloadPurpose::Manifest, None);
        let command = RequestedCommand { request, command: register };
        let command = |_: &_, _| (command.clone(), vec![manifest.clone()]);
        let stream = StreamKey::for_graph(caller.tenant.clone(), id);
        let context = self.decision_context(caller);
        self.repository.execute::<IdempotentNoun<GraphNoun>>(&stream, &context, command).await?;
        Ok(())
    }

    /// Finds a registered version, or the latest one, and where its manifest lies.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn find_version(
        self,
        tenant: &TenantId,
        graph: GraphId,
        version: Option<&str>,
    ) -> Result<Option<(GraphVersion, PayloadRef)>, LogError> {
        let stream = StreamKey::for_graph(tenant.clone(), graph);
        let state = self.repository.load::<GraphNoun>(&stream).await?.state;
        let found_version = match version {
            Some(version) => state.versions.keys().find(|known| known.as_str() == version),
            None => state.latest.as_ref(),
        };
        let found = found_version.and_then(|version| state.versions.get_key_value(version));
        Ok(found.map(|(version, manifest)| (version.clone(), *manifest)))
    }

    /// Loads the manifest of a version, or of the latest one.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub async fn load_manifest(
        self,
        tenant: &TenantId,
        graph: GraphId,
        version: Option<&str>,
    ) -> Result<(GraphVersion, Graph), ManifestError> {
        let found = self.find_version(tenant, graph, version).await?;
        let (version, reference) = found.ok_or(ManifestError::NotRegistered)?;
        let stream = StreamKey::for_graph(tenant.clone(), graph);
        let bytes = self.repository.read_payload(&stream, reference).await?;
        let bytes = bytes.ok_or(ManifestError::Erased)?;
        let manifest = serde_json::from_slice(&bytes).map_err(ManifestError::Unusable)?;
        Ok((version, manifest))
    }
}

impl GraphUseCases<'_> {
    /// Registers a version of a graph from its manifest; returns the graph with what was found, and
    /// the ids that it has.
    ///
    /// # Errors
    /// The manifest is too large, is no text or has mistakes, or the log does not take it.
    pub async fn register_manifest(
        self,
        caller: &Caller,
        manifest: &[u8],
    ) -> Result<(ParsedManifest, GraphId, GraphVersion), UseCaseError> {
        if manifest.len() > MANIFEST_LIMIT {
            let detail = format!("a manifest has at most {MANIFEST_LIMIT} bytes");
            return Err(UseCaseError::TooLarge(detail));
        }
        let text = std::str::from_utf8(manifest).map_err(|_| {
            UseCaseError::Invalid("the manifest must be UTF-8 text, YAML or JSON".to_owned())
        })?;
        let parsed = self.parse_manifest(caller, text).await?;
        let (id, version) = self.log.register_graph(caller, &parsed.graph).await?;
        Ok((parsed, id, version))
    }
}
