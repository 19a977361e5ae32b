//! Filter values of listings. Each must name something that exists; others are rejected by name
//! instead of giving an empty page.

use convergio_application::Caller;
use convergio_domain::event;
use convergio_domain::graph::graph_id;
use convergio_domain::id::{ActorId, GraphId};
use convergio_domain::stream::StreamKey;
use serde::Deserialize;
use utoipa::ToSchema;

use super::run_lookup::run_stream;
use crate::problem::ApiError;
use crate::state::Gateway;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunStatus {
    Running,
    Paused,
    Completed,
    Failed,
    Cancelled,
}

impl RunStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where a question stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QuestionState {
    #[default]
    Open,
    Granted,
    Denied,
    Void,
    All,
}

impl QuestionState {
    /// The state in the read models; `None` for all states.
    pub(crate) fn as_filter(self) -> Option<&'static str> {
        match self {
            Self::Open => Some("open"),
            Self::Granted => Some("granted"),
            Self::Denied => Some("denied"),
            Self::Void => Some("void"),
            Self::All => None,
        }
    }
}

/// Where an agent stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AgentStatus {
    #[default]
    Active,
    Terminated,
    All,
}

impl AgentStatus {
    /// The status in the read models; `None` for all.
    pub(crate) fn as_filter(self) -> Option<&'static str> {
        match self {
            Self::Active => Some("active"),
            Self::Terminated => Some("terminated"),
            Self::All => None,
        }
    }
}

/// Resolves a graph's id or name to its id, if the graph exists.
pub(crate) async fn resolve_graph(
    gateway: &Gateway,
    caller: &Caller,
    text: &str,
) -> Result<String, ApiError> {
    let id: GraphId = text.parse().unwrap_or_else(|_| graph_id(&caller.tenant, text));
    let stream = StreamKey::for_graph(caller.tenant.clone(), id);
    match gateway.repository.event_log().stream_head(&stream).await? {
        Some(_) => Ok(id.to_string()),
        None => Err(ApiError::not_found(&format!("graph as `{text}`"))),
    }
}

/// Resolves a run's id, if the run exists.
pub(crate) async fn resolve_run(
    gateway: &Gateway,
    caller: &Caller,
    text: Option<&str>,
) -> Result<Option<String>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let not_found = || ApiError::not_found(&format!("run as `{text}`"));
    let stream = run_stream(caller, text).map_err(|_| not_found())?;
    let head = gateway.repository.event_log().stream_head(&stream).await?;
    head.map(|_| Some(stream.id.to_string())).ok_or_else(not_found)
}

/// Rejects an event type that does not exist.
pub(crate) fn check_event_type(kind: &str) -> Result<(), ApiError> {
    event::check_type_name(kind)
        .map_err(|error| ApiError::invalid_request(format!("type: {}", error.reason)))
}

/// Rejects a text that is not a valid actor.
pub(crate) fn check_actor(text: &str) -> Result<(), ApiError> {
    let actor = text.parse::<ActorId>();
    actor.map(|_| ()).map_err(|error| ApiError::invalid_request(format!("actor: {error}")))
}
