//! Earlier calls, read from the log.

use std::collections::HashMap;

use convergio_domain::chat::{ChatReply, ChatRequest};
use convergio_domain::id::RunId;
use convergio_domain::run::{Phase, Run, RunState};
use convergio_domain::stream::StreamKey;
use serde::Deserialize;
use serde_json::Value;

use super::Front;
use super::refusal::Refusal;
use crate::auth::Identity;

/// A call that has a reply.
#[derive(Debug)]
pub(super) struct StoredRun {
    pub(super) request: ChatRequest,
    pub(super) echo: Value,
    pub(super) reply: ChatReply,
    /// Time of creation in seconds since the epoch.
    pub(super) created: u64,
}

/// The input payload of a call's run.
#[derive(Deserialize)]
struct Input {
    request: ChatRequest,
    #[serde(default)]
    echo: Value,
}

/// The earlier calls that a request refers to, by their run ids.
#[derive(Debug, Default)]
pub(super) struct StoredRuns(HashMap<String, StoredRun>);

impl StoredRuns {
    /// Reads runs; those that do not exist or belong to another tenant are left out.
    pub(super) async fn read(
        front: &Front,
        caller: &Identity,
        runs: &[&str],
    ) -> Result<Self, Refusal> {
        let mut stored = HashMap::new();
        for run in runs {
            if let Some(found) = read_run(front, caller, run).await? {
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
    front: &Front,
    caller: &Identity,
    run: &str,
) -> Result<Option<StoredRun>, Refusal> {
    let Ok(run) = run.parse::<RunId>() else { return Ok(None) };
    let stream = StreamKey::run(caller.tenant.clone(), run);
    let repository = &front.gateway.repository;
    if repository.log().head(&stream).await?.is_none() {
        return Ok(None);
    }
    let state: RunState = repository.load::<Run>(&stream).await?.state;
    let graph = front.graph.id(&caller.tenant);
    // Other graphs' runs are no calls, and imported ones may hold anything.
    let is_call = state.graph.as_ref().is_some_and(|(of, _)| *of == graph) && !state.is_imported;
    let (Phase::Completed, Some(input), Some(output)) = (&state.phase, state.input, state.output)
    else {
        return Ok(None);
    };
    if !is_call {
        return Ok(None);
    }
    let input = repository.payload(&stream, input).await?;
    let output = repository.payload(&stream, output).await?;
    let (Some(input), Some(output)) = (input, output) else { return Ok(None) };
    let input: Input = serde_json::from_slice(&input).map_err(Refusal::internal)?;
    let reply = serde_json::from_slice(&output).map_err(Refusal::internal)?;
    let Input { request, echo } = input;
    Ok(Some(StoredRun {
        request,
        echo,
        reply,
        created: u64::try_from(state.created.0 / 1000).unwrap_or(0),
    }))
}
