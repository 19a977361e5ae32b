//! `convergio agents`: defines, lists, shows, runs and terminates agents.

use std::process::ExitCode;

use anyhow::Context;
use convergio_domain::json::read_json;
use convergio_process::terminal::{self, print_json};
use convergio_process::{exit, out_line};
use convergio_schemas::wire::{
    AgentLimits, AgentMessage, AgentRequest, AgentView, Page, RunAccepted,
};
use serde_json::{Value, json};

use super::graph;
use crate::cli::GlobalOptions;
use crate::cli::agents::{AgentCreateArgs, AgentsCommand};
use crate::target::ServerTarget;
use crate::view;

pub(super) async fn run(
    global: &GlobalOptions,
    command: AgentsCommand,
) -> anyhow::Result<ExitCode> {
    // A server that is started here executes runs only if this command starts one.
    let executes_runs = matches!(command, AgentsCommand::Run { .. });
    let target = ServerTarget::find_or_start(global, executes_runs).await?;
    let done = match command {
        AgentsCommand::Run { agent, message, idempotency_key, detach } => {
            let key = idempotency_key.as_deref();
            let run = match start_agent_run(&target, &agent, message, key).await {
                Ok(run) => run,
                Err(error) => {
                    target.close().await?;
                    return Err(error);
                }
            };
            if detach {
                return graph::detach_run(global, target, &run.run_id).await;
            }
            return graph::watch_run(global, target, &run.run_id).await;
        }
        AgentsCommand::Create(args) => create_agent(global, &target, *args).await,
        AgentsCommand::List { all, limit } => list_agents(global, &target, all, limit).await,
        AgentsCommand::Show { agent } => show_agent(global, &target, &agent).await,
        AgentsCommand::Rm { agent } => terminate_agent(global, &target, &agent).await,
    };
    target.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn start_agent_run(
    target: &ServerTarget,
    agent: &str,
    message: String,
    key: Option<&str>,
) -> anyhow::Result<RunAccepted> {
    target.client.post_json(&agent_path(agent, "/run")?, &AgentMessage { message }, key).await
}

/// Path of an agent's endpoint. Text that is neither a name nor an id is refused: it could lead to
/// another path.
fn agent_path(agent: &str, rest: &str) -> anyhow::Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if agent.is_empty() || !agent.bytes().all(is_plain) {
        return Err(exit::bad_input_error(format!(
            "`{agent}` is neither an agent's name nor its id"
        )));
    }
    Ok(format!("/v1/agents/{agent}{rest}"))
}

async fn create_agent(
    global: &GlobalOptions,
    target: &ServerTarget,
    args: AgentCreateArgs,
) -> anyhow::Result<()> {
    let agent: AgentView =
        target.client.post_json("/v1/agents", &agent_request(args)?, None).await?;
    if global.json {
        return print_json(&agent);
    }
    out_line!("{} is agent {}", agent.name, agent.id);
    Ok(())
}

fn agent_request(args: AgentCreateArgs) -> anyhow::Result<AgentRequest> {
    let system = match &args.system_file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            Some(text.with_context(|| format!("cannot read {}", file.display()))?)
        }
        None => args.system,
    };
    let tool = |text: String| match text.starts_with('{') {
        true => read_json(text.as_bytes())
            .map_err(|error| exit::bad_input_error(format!("--tool {text}: {error}"))),
        false => Ok(Value::String(text)),
    };
    Ok(AgentRequest {
        name: args.name,
        description: args.description,
        model: args.model,
        system,
        tools: args.tools.into_iter().map(tool).collect::<anyhow::Result<_>>()?,
        limits: Some(AgentLimits {
            max_tokens: args.max_tokens,
            max_turns: args.max_turns,
            max_tool_calls: args.max_tool_calls,
            max_total_tokens: args.max_total_tokens,
            cost: args.cost,
            timeout: args.timeout,
        }),
        memory: args.memory.map(|subject| json!({"subject": subject})),
        privacy: args.privacy,
        schema: None,
        temperature: None,
    })
}

async fn list_agents(
    global: &GlobalOptions,
    target: &ServerTarget,
    all: bool,
    limit: u16,
) -> anyhow::Result<()> {
    let status = if all { "all" } else { "active" };
    let query = [("status", status.to_owned()), ("limit", limit.to_string())];
    let page: Page<AgentView> = target.client.get("/v1/agents", &query).await?;
    if global.json {
        return print_json(&page);
    }
    let rows = page.items.into_iter().map(|agent| {
        vec![agent.name, agent.id, agent.status, agent.runs.to_string(), agent.updated_at]
    });
    view::print_rows(&["agent", "id", "status", "runs", "updated"], rows.collect());
    Ok(())
}

async fn show_agent(
    global: &GlobalOptions,
    target: &ServerTarget,
    agent: &str,
) -> anyhow::Result<()> {
    let agent: AgentView = target.client.get(&agent_path(agent, "")?, &[]).await?;
    if global.json {
        return print_json(&agent);
    }
    out_line!("{} ({}), {} runs", agent.name, agent.status, agent.runs);
    out_line!("id {}, graph {}", agent.id, agent.graph_id);
    if let Some(definition) = &agent.definition {
        terminal::print_json(definition)?;
    }
    Ok(())
}

async fn terminate_agent(
    global: &GlobalOptions,
    target: &ServerTarget,
    agent: &str,
) -> anyhow::Result<()> {
    let agent: AgentView = target.client.delete_resource(&agent_path(agent, "")?, &[]).await?;
    if global.json {
        return print_json(&agent);
    }
    out_line!("{} is {}", agent.name, agent.status);
    Ok(())
}
