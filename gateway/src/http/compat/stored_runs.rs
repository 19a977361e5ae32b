//! Earlier calls, read from the log.

use std::collections::HashMap;

use convergio_application::Caller;
use convergio_domain::chat::{ChatReply, ChatRequest};
use convergio_domain::id::RunId;
use convergio_domain::run::{Run, RunPhase, RunState};
use convergio_domain::stream::StreamKey;
use serde::Deserialize;
use serde_json::Value;

use super::compat_state::CompatState;
use super::refusal::CompatRefusal;

/// A call that has a reply.
#[derive(Debug)]
pub(super) struct StoredRun {
    pub(super) request: ChatRequest,
    pub(super) echo: Value,
    pub(super) reply: ChatReply,
    /// Time of creation in seconds since the epoch.
    pub(super) created_seconds: u64,
}

/// The input payload of a call's run.
#[derive(Deserialize)]
struct StoredInput {
    request: ChatRequest,
    #[serde(default)]
    echo: Value,
}

/// The earlier calls that a request refers to, by their run ids.
#[derive(Debug, Default)]
pub(super) struct StoredRuns(HashMap<String, StoredRun>);

impl StoredRuns {
    /// Reads runs; those that do not exist or belong to another tenant are left out.
    pub(super) async fn read_runs(
        compat_state: &CompatState,
        caller: &Caller,
        runs: &[&str],
    ) -> Result<Self, CompatRefusal> {
        let mut stored = HashMap::new();
        for run in runs {
            if let Some(found) = read_run(compat_state, caller, run).await? {
                stored.insert((*run).to_owned(), found);
            }
        }
        Ok(Self(stored))
    }

    pub(super) fn get(&self, run: &str) -> Option<&StoredRun> {
        self.0.get(run)
    }
}

/// Reads a call of the caller's tenant; `None` unless it has a reply and nothing of it was erased.
pub(super) async fn read_run(
    compat_state: &CompatState,
    caller: &Caller,
    run: &str,
) -> Result<Option<StoredRun>, CompatRefusal> {
    let Ok(run) = run.parse::<RunId>() else { return Ok(None) };
    let stream = StreamKey::for_run(caller.tenant.clone(), run);
    let repository = &compat_state.gateway.repository;
    if repository.event_log().stream_head(&stream).await?.is_none() {
        return Ok(None);
    }
    let state: RunState = repository.load::<Run>(&stream).await?.state;
    let graph = compat_state.graph.graph_id(&caller.tenant);
    // Other graphs' runs are no calls, and imported ones may hold anything.
    let is_call = state.graph.as_ref().is_some_and(|(state_graph, _)| *state_graph == graph)
        && !state.is_imported;
    let (RunPhase::Completed, Some(input), Some(output)) =
        (&state.phase, state.input, state.output)
    else {
        return Ok(None);
    };
    if !is_call {
        return Ok(None);
    }
    let input = repository.read_payload(&stream, input).await?;
    let output = repository.read_payload(&stream, output).await?;
    let (Some(input), Some(output)) = (input, output) else { return Ok(None) };
    let input: StoredInput =
        serde_json::from_slice(&input).map_err(CompatRefusal::internal_error)?;
    let reply = serde_json::from_slice(&output).map_err(CompatRefusal::internal_error)?;
    let StoredInput { request, echo } = input;
    Ok(Some(StoredRun {
        request,
        echo,
        reply,
        created_seconds: u64::try_from(state.created.0 / 1000).unwrap_or(0),
    }))
}
