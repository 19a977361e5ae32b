//! Decodes an agent's tools and memory.

use std::collections::BTreeSet;

use super::decode::{Decoder, Fields, Mentions};
use super::manifest::{Callee, Memory, RECALL_TOOL, SPAWN_TOOL, ToolRef, Toolbox, TurnLimits};
use super::nodes::template;
use super::source::{Kind, Tree};
use crate::id::{GraphVersion, Name};

/// Most tools of one agent: models choose badly among more.
const TOOLS_LIMIT: usize = 64;
/// Most tokens recalled if the manifest sets no limit.
const RECALL_TOKENS: u64 = 1_000;

/// Decodes `tools`, `spawn`, `max_turns`, `max_tool_calls` and `max_total_tokens`.
pub(super) fn toolbox(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Option<Toolbox> {
    let tools = fields.take("tools");
    let spawn = fields.take("spawn");
    let mut limits = TurnLimits::default();
    // A limit without `tools` would never be enforced: it is reported below.
    let mut lonely = None;
    let mut number = |key: &'static str, most: u64| {
        let tree = fields.take(key)?;
        lonely = Some((tree, fields.at(key)));
        decoder.number(tree, &fields.at(key), 1, most)
    };
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    limits.max_turns = number("max_turns", 100).map_or(limits.max_turns, small);
    limits.max_tool_calls = number("max_tool_calls", 1_000).map_or(limits.max_tool_calls, small);
    limits.max_total_tokens =
        number("max_total_tokens", 1 << 40).unwrap_or(limits.max_total_tokens);
    let Some(tree) = tools else {
        let lonely = lonely.or_else(|| spawn.map(|tree| (tree, fields.at("spawn"))));
        if let Some((tree, path)) = lonely {
            decoder.add(tree, &path, "belongs to an agent with `tools`");
        }
        return None;
    };
    let tools = list(decoder, tree, &fields.at("tools"))?;
    let spawn = spawn.map(|tree| spawn_list(decoder, tree, &fields.at("spawn"), &tools));
    Some(Toolbox { tools, spawn: spawn.unwrap_or_default(), limits })
}

/// Decodes the agents and graphs that `agent.spawn` may run.
fn spawn_list(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    tools: &[ToolRef],
) -> Vec<ToolRef> {
    if !tools.contains(&ToolRef::Builtin(SPAWN_TOOL.to_owned())) {
        decoder.add(tree, path, format!("belongs to an agent with `{SPAWN_TOOL}` in its tools"));
    }
    let spawn = list(decoder, tree, path).unwrap_or_default();
    for (index, tool) in spawn.iter().enumerate() {
        if matches!(tool, ToolRef::Builtin(_)) {
            let path = format!("{path}[{index}]");
            decoder.add(tree, &path, "is {agent: NAME} or {graph: NAME}");
        }
    }
    spawn
}

/// Decodes a list of tools, agents and graphs, each of which may be there once.
pub(super) fn list(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Option<Vec<ToolRef>> {
    let Kind::List(list) = &tree.kind else {
        decoder.add(tree, path, "must be a list of tools, as [math.eval, {graph: brief}]");
        return None;
    };
    if list.is_empty() || list.len() > TOOLS_LIMIT {
        decoder.add(tree, path, format!("an agent has 1 to {TOOLS_LIMIT} tools"));
        return None;
    }
    let mut names = BTreeSet::new();
    let mut tools = Vec::new();
    for (index, tree) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(tool) = tool(decoder, tree, &path) else { continue };
        if !names.insert(name_of(&tool)) {
            decoder.add(tree, &path, format!("`{}` stands here twice", name_of(&tool)));
        }
        tools.push(tool);
    }
    Some(tools)
}

fn name_of(tool: &ToolRef) -> String {
    match tool {
        ToolRef::Builtin(name) => name.clone(),
        ToolRef::Agent(callee) => format!("agent.{}", callee.name),
        ToolRef::Graph(callee) => format!("graph.{}", callee.name),
    }
}

/// Decodes a built-in tool's name, `{agent: NAME}` or `{graph: NAME}`.
fn tool(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Option<ToolRef> {
    if !matches!(tree.kind, Kind::Map(_)) {
        let name = decoder.text(tree, path)?;
        let tools = decoder.tools;
        if name != SPAWN_TOOL && tools.get(&name).is_none() {
            let hint = decoder.mistakes.hint(&name, tools.names().chain([SPAWN_TOOL]));
            decoder.add(tree, path, format!("there is no tool `{name}`{hint}"));
        }
        return Some(ToolRef::Builtin(name));
    }
    let mut fields = decoder.fields(tree, path)?;
    let named = |decoder: &mut Decoder<'_>, fields: &mut Fields<'_>, key| {
        let tree = fields.take(key)?;
        decoder.parsed::<Name>(tree, &fields.at(key)).map(|name| name.to_string())
    };
    let agent = named(decoder, &mut fields, "agent");
    let graph = named(decoder, &mut fields, "graph");
    let version = fields.take("version");
    let version = version.and_then(|t| decoder.parsed::<GraphVersion>(t, &fields.at("version")));
    let description = fields.take("description");
    let description = description.and_then(|t| decoder.text(t, &fields.at("description")));
    decoder.finish(&fields);
    let is_pinned = version.is_some();
    let callee = |name| Callee { name, version, description };
    match (agent, graph) {
        (Some(_), None) if is_pinned => {
            decoder.add(tree, &fields.at("version"), "an agent has no versions: name its graph");
            None
        }
        (Some(name), None) => Some(ToolRef::Agent(callee(name))),
        (None, Some(name)) => Some(ToolRef::Graph(callee(name))),
        _ => {
            decoder.add(tree, path, "is a tool's name, {agent: NAME} or {graph: NAME}");
            None
        }
    }
}

/// Decodes `subject` of a `memory`: the template that names whose memory it is.
pub(super) fn memory_subject(
    decoder: &mut Decoder<'_>,
    memory: &Tree,
    fields: &mut Fields<'_>,
    mentions: &mut Mentions,
) -> Option<String> {
    let path = fields.at("subject");
    if let Some(tree) = fields.take("subject") {
        return template(decoder, tree, &path, mentions);
    }
    decoder.add(memory, &path, "missing: whose memory it is");
    None
}

/// Decodes `memory: {subject, query, max_tokens}`.
pub(super) fn memory(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    mentions: &mut Mentions,
) -> Option<Memory> {
    let tree = fields.take("memory")?;
    if decoder.tools.get(RECALL_TOOL).is_none() {
        let message = format!("the tool `{RECALL_TOOL}` is not available here");
        decoder.add(tree, &fields.at("memory"), message);
    }
    let mut fields = decoder.fields(tree, &fields.at("memory"))?;
    let subject = memory_subject(decoder, tree, &mut fields, mentions);
    let query = fields.take("query");
    let query = query.and_then(|tree| template(decoder, tree, &fields.at("query"), mentions));
    let max_tokens = fields.take("max_tokens");
    let max_tokens =
        max_tokens.and_then(|t| decoder.number(t, &fields.at("max_tokens"), 1, 32_768));
    let max_tokens = u32::try_from(max_tokens.unwrap_or(RECALL_TOKENS)).unwrap_or(1);
    decoder.finish(&fields);
    Some(Memory { subject: subject?, query, max_tokens })
}
