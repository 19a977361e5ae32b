//! Decodes an agent's tools and memory.

use std::collections::BTreeSet;

use super::decoder::{ManifestDecoder, MapFields, Mentions, decode_template};
use super::manifest::{
    AgentMemory, CalleeRef, RECALL_TOOL, SPAWN_TOOL, ToolRef, Toolbox, TurnLimits,
};
use super::yaml::{YamlKind, YamlTree};
use crate::id::{GraphVersion, Name};

/// Most tools of one agent: models choose badly among more.
const TOOLS_LIMIT: usize = 64;
/// Most tokens recalled if the manifest sets no limit.
const DEFAULT_RECALL_TOKENS: u64 = 1_000;

/// Decodes `tools`, `spawn`, `max_turns`, `max_tool_calls` and `max_total_tokens`.
pub(super) fn decode_toolbox(
    decoder: &mut ManifestDecoder<'_>,
    fields: &mut MapFields<'_>,
) -> Option<Toolbox> {
    let tools = fields.take_field("tools");
    let spawn = fields.take_field("spawn");
    let mut limits = TurnLimits::default();
    // A limit without `tools` would never be enforced: it is reported below.
    let mut limit_without_tools = None;
    let mut number = |key: &'static str, most: u64| {
        let tree = fields.take_field(key)?;
        limit_without_tools = Some((tree, fields.field_path(key)));
        decoder.decode_number(tree, &fields.field_path(key), 1, most)
    };
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    limits.max_turns = number("max_turns", 100).map_or(limits.max_turns, small);
    limits.max_tool_calls = number("max_tool_calls", 1_000).map_or(limits.max_tool_calls, small);
    limits.max_total_tokens =
        number("max_total_tokens", 1 << 40).unwrap_or(limits.max_total_tokens);
    let Some(tree) = tools else {
        let lonely =
            limit_without_tools.or_else(|| spawn.map(|tree| (tree, fields.field_path("spawn"))));
        if let Some((tree, path)) = lonely {
            decoder.add_error(tree, &path, "belongs to an agent with `tools`");
        }
        return None;
    };
    let tools = decode_tool_refs(decoder, tree, &fields.field_path("tools"))?;
    let spawn =
        spawn.map(|tree| decode_spawn_list(decoder, tree, &fields.field_path("spawn"), &tools));
    Some(Toolbox { tools, spawn: spawn.unwrap_or_default(), limits })
}

/// Decodes the agents and graphs that `agent.spawn` may run.
fn decode_spawn_list(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    tools: &[ToolRef],
) -> Vec<ToolRef> {
    if !tools.contains(&ToolRef::Builtin(SPAWN_TOOL.to_owned())) {
        decoder.add_error(
            tree,
            path,
            format!("belongs to an agent with `{SPAWN_TOOL}` in its tools"),
        );
    }
    let spawn = decode_tool_refs(decoder, tree, path).unwrap_or_default();
    for (index, tool) in spawn.iter().enumerate() {
        if matches!(tool, ToolRef::Builtin(_)) {
            let path = format!("{path}[{index}]");
            decoder.add_error(tree, &path, "is {agent: NAME} or {graph: NAME}");
        }
    }
    spawn
}

/// Decodes a list of tools, agents and graphs, each of which may be there once.
pub(super) fn decode_tool_refs(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
) -> Option<Vec<ToolRef>> {
    let YamlKind::List(list) = &tree.kind else {
        decoder.add_error(tree, path, "must be a list of tools, as [math.eval, {graph: brief}]");
        return None;
    };
    if list.is_empty() || list.len() > TOOLS_LIMIT {
        decoder.add_error(tree, path, format!("an agent has 1 to {TOOLS_LIMIT} tools"));
        return None;
    }
    let mut names = BTreeSet::new();
    let mut tools = Vec::new();
    for (index, tree) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(tool) = decode_tool_ref(decoder, tree, &path) else { continue };
        if !names.insert(qualified_tool_name(&tool)) {
            decoder.add_error(
                tree,
                &path,
                format!("`{}` stands here twice", qualified_tool_name(&tool)),
            );
        }
        tools.push(tool);
    }
    Some(tools)
}

fn qualified_tool_name(tool: &ToolRef) -> String {
    match tool {
        ToolRef::Builtin(name) => name.clone(),
        ToolRef::Agent(callee) => format!("agent.{}", callee.name),
        ToolRef::Graph(callee) => format!("graph.{}", callee.name),
    }
}

/// Decodes a built-in tool's name, `{agent: NAME}` or `{graph: NAME}`.
fn decode_tool_ref(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
) -> Option<ToolRef> {
    if !matches!(tree.kind, YamlKind::Map(_)) {
        let name = decoder.decode_text(tree, path)?;
        let tools = decoder.tools;
        if name != SPAWN_TOOL && tools.get(&name).is_none() {
            let hint =
                decoder.diagnostics.spelling_hint(&name, tools.tool_names().chain([SPAWN_TOOL]));
            decoder.add_error(tree, path, format!("there is no tool `{name}`{hint}"));
        }
        return Some(ToolRef::Builtin(name));
    }
    let mut fields = decoder.map_fields(tree, path)?;
    let named = |decoder: &mut ManifestDecoder<'_>, fields: &mut MapFields<'_>, key| {
        let tree = fields.take_field(key)?;
        decoder.decode_parsed::<Name>(tree, &fields.field_path(key)).map(|name| name.to_string())
    };
    let agent = named(decoder, &mut fields, "agent");
    let graph = named(decoder, &mut fields, "graph");
    let version = fields.take_field("version");
    let version = version
        .and_then(|t| decoder.decode_parsed::<GraphVersion>(t, &fields.field_path("version")));
    let description = fields.take_field("description");
    let description =
        description.and_then(|t| decoder.decode_text(t, &fields.field_path("description")));
    decoder.reject_unknown_fields(&fields);
    let is_pinned = version.is_some();
    let callee = |name| CalleeRef { name, version, description };
    match (agent, graph) {
        (Some(_), None) if is_pinned => {
            decoder.add_error(
                tree,
                &fields.field_path("version"),
                "an agent has no versions: name its graph",
            );
            None
        }
        (Some(name), None) => Some(ToolRef::Agent(callee(name))),
        (None, Some(name)) => Some(ToolRef::Graph(callee(name))),
        _ => {
            decoder.add_error(tree, path, "is a tool's name, {agent: NAME} or {graph: NAME}");
            None
        }
    }
}

/// Decodes `subject` of a `memory`: the template that names whose memory it is.
pub(super) fn decode_memory_subject(
    decoder: &mut ManifestDecoder<'_>,
    memory: &YamlTree,
    fields: &mut MapFields<'_>,
    mentions: &mut Mentions,
) -> Option<String> {
    let path = fields.field_path("subject");
    if let Some(tree) = fields.take_field("subject") {
        return decode_template(decoder, tree, &path, mentions);
    }
    decoder.add_error(memory, &path, "missing: whose memory it is");
    None
}

/// Decodes `memory: {subject, query, max_tokens}`.
pub(super) fn decode_memory(
    decoder: &mut ManifestDecoder<'_>,
    fields: &mut MapFields<'_>,
    mentions: &mut Mentions,
) -> Option<AgentMemory> {
    let tree = fields.take_field("memory")?;
    if decoder.tools.get(RECALL_TOOL).is_none() {
        let message = format!("the tool `{RECALL_TOOL}` is not available here");
        decoder.add_error(tree, &fields.field_path("memory"), message);
    }
    let mut fields = decoder.map_fields(tree, &fields.field_path("memory"))?;
    let subject = decode_memory_subject(decoder, tree, &mut fields, mentions);
    let query = fields.take_field("query");
    let query = query
        .and_then(|tree| decode_template(decoder, tree, &fields.field_path("query"), mentions));
    let max_tokens = fields.take_field("max_tokens");
    let max_tokens = max_tokens
        .and_then(|t| decoder.decode_number(t, &fields.field_path("max_tokens"), 1, 32_768));
    let max_tokens = u32::try_from(max_tokens.unwrap_or(DEFAULT_RECALL_TOKENS)).unwrap_or(1);
    decoder.reject_unknown_fields(&fields);
    Some(AgentMemory { subject: subject?, query, max_tokens })
}
