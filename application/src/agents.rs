//! Agents: define, run, terminate. An agent is a graph of one node under a name.

use convergio_domain::agent::{
    AGENT_NAME_LIMIT, AgentCommand, AgentNotFound, AgentNoun, AgentState, agent_id,
};
use convergio_domain::id::{AgentId, NodeId};
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::Provenance;
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{CommitError, LogError, Payload};
use convergio_schemas::wire::{AgentMessage, AgentRequest, RunAccepted};
use serde_json::{Map, Value, json};

use crate::caller::Caller;
use crate::error::UseCaseError;
use crate::runs::{NewRun, choose_run_id};
use crate::use_cases::{GraphUseCases, UseCases};

impl UseCases<'_> {
    /// Terminates an agent: it runs no more, runs that are under way go on. Twice changes nothing.
    ///
    /// # Errors
    /// There is no such agent, or the log does not take the commit.
    pub async fn terminate_agent(
        self,
        caller: &Caller,
        agent: AgentId,
    ) -> Result<(), CommitError<AgentNotFound>> {
        self.change_agent(caller, agent, AgentCommand::Terminate, Vec::new()).await
    }

    async fn change_agent(
        self,
        caller: &Caller,
        agent: AgentId,
        command: AgentCommand,
        payloads: Vec<Payload>,
    ) -> Result<(), CommitError<AgentNotFound>> {
        let command = RequestedCommand { request: caller.request_id(), command };
        let command = |_: &_, _| (command.clone(), payloads.clone());
        let stream = StreamKey::for_agent(caller.tenant.clone(), agent);
        let context = self.decision_context(caller);
        self.repository.execute::<IdempotentNoun<AgentNoun>>(&stream, &context, command).await?;
        Ok(())
    }

    async fn load_agent(self, caller: &Caller, agent: AgentId) -> Result<AgentState, LogError> {
        let stream = StreamKey::for_agent(caller.tenant.clone(), agent);
        Ok(self.repository.load::<AgentNoun>(&stream).await?.state)
    }
}

impl GraphUseCases<'_> {
    /// Defines an agent. The same name again changes it, or brings a terminated one back.
    ///
    /// # Errors
    /// The definition has mistakes, or the log does not take it.
    pub async fn define_agent(
        self,
        caller: &Caller,
        request: AgentRequest,
    ) -> Result<AgentId, UseCaseError> {
        // A name is part of a graph's name and of URLs, so it follows the grammar of node ids.
        let is_name =
            request.name.parse::<NodeId>().is_ok() && request.name.len() <= AGENT_NAME_LIMIT;
        if !is_name {
            let message =
                format!("name: use 1 to {AGENT_NAME_LIMIT} characters of a-z, 0-9, `_` and `-`");
            return Err(UseCaseError::Invalid(message));
        }
        let manifest = agent_manifest(&request).to_string();
        let parsed = self.parse_manifest(caller, &manifest).await?;
        // The graph is stored first: an agent must not name a version that the log lacks.
        let (graph, version) = self.log.register_graph(caller, &parsed.graph).await?;
        let definition = Payload::from_value(&request, PayloadPurpose::Manifest, None);
        let agent = agent_id(&caller.tenant, &request.name);
        let (name, slot) = (request.name, PayloadSlot(0));
        let define = AgentCommand::Define { name, graph, version, definition: slot };
        self.log.change_agent(caller, agent, define, vec![definition]).await?;
        Ok(agent)
    }

    /// Runs an agent that is not terminated. The same message under the same key gives the same
    /// run for ever.
    ///
    /// # Errors
    /// There is no such agent, it was terminated, or the log does not take the run.
    pub async fn run_agent(
        self,
        caller: &Caller,
        agent: AgentId,
        request: AgentMessage,
        request_hash: String,
    ) -> Result<RunAccepted, UseCaseError> {
        if let Some(accepted) = self.log.find_accepted_run(caller, &request_hash).await? {
            return Ok(accepted);
        }
        let state = self.log.load_agent(caller, agent).await?;
        if state.graph.is_none() {
            return Err(UseCaseError::NotFound("agent"));
        }
        let Some((graph, version)) = state.runnable_graph().cloned() else {
            let message = "the agent was terminated: define it anew, then run it";
            return Err(UseCaseError::Conflict(message.to_owned()));
        };
        let (version, manifest) =
            self.log.load_manifest(&caller.tenant, graph, Some(version.as_str())).await?;
        let inputs = json!({"message": request.message});
        let new_run = NewRun {
            run: choose_run_id(caller),
            budget: manifest.budget,
            request_hash,
            provenance: Provenance { agent: Some(agent), ..Provenance::default() },
            ..NewRun::of_version(graph, version, inputs.to_string())
        };
        Ok(self.log.create_accepted_run(caller, new_run).await?)
    }
}

/// Builds the manifest of the one-node graph that an agent runs as.
fn agent_manifest(request: &AgentRequest) -> Value {
    let limits = request.limits.clone().unwrap_or_default();
    let mut agent = Map::new();
    let mut put_field = |key: &str, value: Option<Value>| {
        agent.extend(value.map(|value| (key.to_owned(), value)));
    };
    put_field("prompt", Some(json!("{{ inputs.message }}")));
    put_field("model", request.model.as_ref().map(|model| json!(model)));
    put_field("system", request.system.as_ref().map(|system| json!(system)));
    put_field("privacy", request.privacy.as_ref().map(|privacy| json!(privacy)));
    put_field("schema", request.schema.clone());
    put_field("temperature", request.temperature.map(|temperature| json!(temperature)));
    put_field("memory", request.memory.clone());
    put_field("max_tokens", limits.max_tokens.map(|limit| json!(limit)));
    // Without tools there is a single call, which `max_tokens` and the budget bound already.
    if !request.tools.is_empty() {
        put_field("tools", Some(json!(request.tools)));
        put_field("max_total_tokens", limits.max_total_tokens.map(|limit| json!(limit)));
    }
    put_field("max_turns", limits.max_turns.map(|limit| json!(limit)));
    put_field("max_tool_calls", limits.max_tool_calls.map(|limit| json!(limit)));
    let mut node = json!({"id": "reply", "agent": agent});
    let mut budget = Map::new();
    budget.extend(limits.max_total_tokens.map(|limit| ("tokens".to_owned(), json!(limit))));
    budget.extend(limits.cost.map(|limit| ("cost".to_owned(), json!(limit))));
    if let Some(timeout) = limits.timeout {
        budget.insert("wall".to_owned(), json!(timeout));
        node["timeout"] = json!(timeout);
    }
    let mut manifest = json!({
        "name": format!("agent-{}", request.name),
        "inputs": {"type": "object", "required": ["message"], "additionalProperties": false,
            "properties": {"message": {"type": "string"}}},
        "budget": budget,
        "nodes": [node],
        "output": "{{ nodes.reply.output }}",
    });
    if let Some(description) = &request.description {
        manifest["description"] = json!(description);
    }
    manifest
}
