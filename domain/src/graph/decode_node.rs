//! Decodes nodes: their common fields, and the kinds of node that have no file of their own.

use serde_json::Value;

use super::decode_agent::decode_agent;
use super::decode_retry::decode_retry;
use super::decode_signal;
use super::decode_sub_graph;
use super::decode_tool;
use super::decoder::{
    GraphLocations, ManifestDecoder, ManifestLocation, MapFields, Mentions, decode_template,
};
use super::field_rules::{GivenFields, check_fields, refuse_asking_map, warn_of_double_limit};
use super::manifest::{
    ApprovalNode, BranchCase, BranchNode, GraphNode, Join, MapNode, MapWork, NodeWork, OnError,
    SleepNode,
};
use super::yaml::{YamlKind, YamlTree};
use crate::expr;
use crate::id::Name;

/// Most nodes of a graph.
const NODES_LIMIT: usize = 10_000;
/// Kinds of node, by the manifest field that gives them; exactly one is in each node.
pub const NODE_KINDS: [&str; 9] =
    ["agent", "tool", "branch", "map", "approval", "sleep", "graph", "plan", "signal"];
/// Kinds that the contract names and this version does not run.
const UNAVAILABLE_KINDS: [&str; 1] = ["plugin"];

/// Decodes all nodes that are usable; `None` when there is no list of them.
pub(super) fn decode_nodes(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    locations: &mut GraphLocations,
) -> Option<Vec<GraphNode>> {
    let YamlKind::List(list) = &tree.kind else {
        decoder.add_error(
            tree,
            "nodes",
            format!("must be a list of nodes, is {}", tree.kind_name()),
        );
        return None;
    };
    if list.is_empty() || list.len() > NODES_LIMIT {
        decoder.add_error(tree, "nodes", format!("a graph has 1 to {NODES_LIMIT} nodes"));
        return None;
    }
    let mut nodes = Vec::with_capacity(list.len());
    for (index, tree) in list.iter().enumerate() {
        let path = format!("nodes[{index}]");
        let mut mentions = Mentions::default();
        match decode_node(decoder, tree, &path, &mut mentions) {
            Some(node) => {
                nodes.push(node);
                locations.nodes.push(ManifestLocation { path, position: tree.position });
                locations.mentions.push(mentions);
            }
            None => {
                locations.is_partial = true;
                locations
                    .broken_nodes
                    .extend(tree.find_field("id").and_then(YamlTree::as_str).map(str::to_owned));
            }
        }
    }
    Some(nodes)
}

fn decode_node(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<GraphNode> {
    let mut fields = decoder.map_fields(tree, path)?;
    let id = match fields.take_field("id") {
        Some(tree) => decoder.decode_node_id(tree, &fields.field_path("id")),
        None => {
            decoder.add_error(
                tree,
                &fields.field_path("id"),
                "missing: give the node a name, as `id: split`",
            );
            None
        }
    };
    let needs = fields
        .take_field("needs")
        .map(|t| decoder.decode_targets(t, &fields.field_path("needs"), mentions));
    let join =
        fields.take_field("join").map(|t| decode_join(decoder, t, &fields.field_path("join")));
    let given = GivenFields::take_from(&mut fields);
    // Each field is decoded even if an earlier one failed, so that all errors are reported at once.
    let retry = given.retry.map(|t| decode_retry(decoder, t, &fields.field_path("retry")));
    let timeout =
        given.timeout.and_then(|t| decoder.decode_parsed(t, &fields.field_path("timeout")));
    let on_error = given
        .on_error
        .map(|t| decode_on_error(decoder, t, &fields.field_path("on_error"), mentions));
    let on_unknown = given.on_unknown.and_then(|t| {
        decode_signal::decode_on_unknown(decoder, t, &fields.field_path("on_unknown"))
    });
    let work = decode_work(decoder, tree, &mut fields, mentions);
    if let Some(work) = &work {
        check_fields(decoder, &fields, &given, work);
        refuse_asking_map(decoder, &fields, &given, (on_error.as_ref(), work));
        timeout
            .iter()
            .for_each(|timeout| warn_of_double_limit(decoder, &fields, &given, *timeout, work));
    }
    decoder.reject_unknown_fields(&fields);
    Some(GraphNode {
        id: id?,
        needs: needs.unwrap_or_default(),
        join: join.unwrap_or_default(),
        retry: retry.unwrap_or_default(),
        timeout,
        on_error: on_error.unwrap_or_default(),
        on_unknown,
        work: work?,
    })
}

fn decode_join(decoder: &mut ManifestDecoder<'_>, tree: &YamlTree, path: &str) -> Join {
    match &tree.kind {
        YamlKind::Scalar(Value::String(text)) if text == "all" => Join::All,
        YamlKind::Scalar(Value::String(text)) if text == "any" => Join::Any,
        YamlKind::Scalar(Value::Number(_)) => {
            let count = decoder.decode_number(tree, path, 1, 10_000).unwrap_or(1);
            Join::AtLeast(u32::try_from(count).unwrap_or(1))
        }
        _ => {
            decoder.add_error(tree, path, "must be `all`, `any` or how many must succeed, as 2");
            Join::All
        }
    }
}

fn decode_on_error(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> OnError {
    match &tree.kind {
        YamlKind::Scalar(Value::String(text)) if text == "fail" => OnError::Fail,
        YamlKind::Scalar(Value::String(text)) if text == "skip" => OnError::Skip,
        YamlKind::Scalar(Value::String(text)) if text == "ask" => OnError::Ask,
        YamlKind::Map(_) => {
            let Some(mut fields) = decoder.map_fields(tree, path) else { return OnError::Fail };
            let node = fields.take_field("fallback");
            let node = node.and_then(|tree| {
                decoder.decode_target(tree, &fields.field_path("fallback"), mentions)
            });
            decoder.reject_unknown_fields(&fields);
            node.map_or(OnError::Fail, OnError::Fallback)
        }
        _ => {
            decoder.add_error(tree, path, "must be `fail`, `skip`, `ask` or {fallback: NODE}");
            OnError::Fail
        }
    }
}

fn decode_work(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    fields: &mut MapFields<'_>,
    mentions: &mut Mentions,
) -> Option<NodeWork> {
    // Taken before the known kinds, for an error that says more than `unknown key`.
    for kind in UNAVAILABLE_KINDS {
        if let Some(tree) = fields.take_field(kind) {
            let message = format!("`{kind}` nodes are not available in this version");
            decoder.add_error(tree, &fields.field_path(kind), message);
            return None;
        }
    }
    let with = fields.take_field("with").map(|tree| (tree, fields.field_path("with")));
    let mut found: Vec<(&str, &YamlTree)> = Vec::new();
    for kind in NODE_KINDS {
        found.extend(fields.take_field(kind).map(|tree| (kind, tree)));
    }
    let [(kind, body)] = found[..] else {
        let message = match found.len() {
            0 => format!("does nothing: give it one of {}", NODE_KINDS.join(", ")),
            _ => format!("does more than one thing: give it one of {}", NODE_KINDS.join(", ")),
        };
        decoder.add_error(tree, &fields.path, message);
        return None;
    };
    let path = fields.field_path(kind);
    if kind != "tool" {
        refuse_arguments(decoder, with.as_ref());
    }
    match kind {
        "agent" => decode_agent(decoder, body, &path, mentions).map(NodeWork::Agent),
        "tool" => decode_tool::decode_tool_invocation(decoder, body, with, &path, mentions)
            .map(NodeWork::Tool),
        "branch" => decode_branch(decoder, body, &path, mentions).map(NodeWork::Branch),
        "map" => decode_map(decoder, body, &path, mentions).map(NodeWork::Map),
        "approval" => decode_approval(decoder, body, &path, mentions).map(NodeWork::Approval),
        "graph" => {
            decode_sub_graph::decode_sub_graph(decoder, body, &path, mentions).map(NodeWork::Graph)
        }
        "plan" => decode_sub_graph::decode_plan(decoder, body, &path, mentions).map(NodeWork::Plan),
        "signal" => decode_signal::decode_signal(decoder, body, &path).map(NodeWork::Signal),
        _ => decode_sleep(decoder, body, &path).map(NodeWork::Sleep),
    }
}

/// Reports arguments beside a node that is no tool.
fn refuse_arguments(decoder: &mut ManifestDecoder<'_>, with: Option<&(&YamlTree, String)>) {
    if let Some((with, path)) = with {
        decoder.add_error(with, path, "`with` belongs to a tool");
    }
}

fn decode_condition(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> String {
    let text = decoder.decode_text(tree, path).unwrap_or_default();
    decoder.add_expression_refs(tree, path, expr::refs_in_condition(&text), mentions);
    text
}

fn decode_branch(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<BranchNode> {
    let mut fields = decoder.map_fields(tree, path)?;
    let mut cases = Vec::new();
    let (when, then) = (fields.take_field("if"), fields.take_field("then"));
    match (when, then) {
        (Some(when), Some(then)) => cases.push(BranchCase {
            when: decode_condition(decoder, when, &fields.field_path("if"), mentions),
            to: decoder.decode_targets(then, &fields.field_path("then"), mentions),
        }),
        (None, None) => {}
        _ => decoder.add_error(tree, path, "`if` and `then` belong together"),
    }
    if let Some(tree) = fields.take_field("cases") {
        cases.extend(decode_cases(decoder, tree, &fields.field_path("cases"), mentions));
    }
    let otherwise = fields
        .take_field("else")
        .map(|t| decoder.decode_targets(t, &fields.field_path("else"), mentions));
    decoder.reject_unknown_fields(&fields);
    if cases.is_empty() {
        decoder.add_error(tree, path, "needs `if` and `then`, or `cases`");
        return None;
    }
    Some(BranchNode { cases, otherwise: otherwise.unwrap_or_default() })
}

fn decode_cases(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> Vec<BranchCase> {
    let YamlKind::List(list) = &tree.kind else {
        decoder.add_error(tree, path, "must be a list of {when, to}");
        return Vec::new();
    };
    let mut cases = Vec::new();
    for (index, tree) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(mut fields) = decoder.map_fields(tree, &path) else { continue };
        match (fields.take_field("when"), fields.take_field("to")) {
            (Some(when), Some(to)) => cases.push(BranchCase {
                when: decode_condition(decoder, when, &fields.field_path("when"), mentions),
                to: decoder.decode_targets(to, &fields.field_path("to"), mentions),
            }),
            _ => decoder.add_error(tree, &path, "a case needs `when` and `to`"),
        }
        decoder.reject_unknown_fields(&fields);
    }
    cases
}

fn decode_map(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<MapNode> {
    let mut fields = decoder.map_fields(tree, path)?;
    let over = match fields.take_field("over") {
        Some(tree) => decode_template(decoder, tree, &fields.field_path("over"), mentions),
        None => {
            decoder.add_error(
                tree,
                &fields.field_path("over"),
                "missing: the list that the map runs over",
            );
            None
        }
    };
    let max_parallel = fields.take_field("max_parallel");
    let max_parallel = max_parallel
        .and_then(|t| decoder.decode_number(t, &fields.field_path("max_parallel"), 1, 1000));
    let with = fields.take_field("with").map(|tree| (tree, fields.field_path("with")));
    let mut inner = Mentions::default();
    let work = match (fields.take_field("agent"), fields.take_field("tool")) {
        (Some(body), None) => {
            refuse_arguments(decoder, with.as_ref());
            decode_agent(decoder, body, &fields.field_path("agent"), &mut inner).map(MapWork::Agent)
        }
        (None, Some(body)) => decode_tool::decode_tool_invocation(
            decoder,
            body,
            with,
            &fields.field_path("tool"),
            &mut inner,
        )
        .map(MapWork::Tool),
        _ => {
            decoder.add_error(
                tree,
                path,
                "a map does one thing with each item: an agent or a tool",
            );
            None
        }
    };
    // `item` and `index` are defined within the map only: elsewhere they are unknown variables.
    inner.variables.retain(|mention| mention.name != "item" && mention.name != "index");
    mentions.merge_mentions(inner);
    decoder.reject_unknown_fields(&fields);
    let max_parallel = u32::try_from(max_parallel.unwrap_or(10)).unwrap_or(10);
    Some(MapNode { over: over?, max_parallel, work: work? })
}

fn decode_approval(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<ApprovalNode> {
    let mut fields = decoder.map_fields(tree, path)?;
    let role = fields
        .take_field("role")
        .and_then(|tree| decoder.decode_parsed(tree, &fields.field_path("role")));
    let role = role.map_or_else(|| "owner".to_owned(), |role: Name| role.to_string());
    let show = match fields.take_field("show") {
        Some(tree) => decode_template(decoder, tree, &fields.field_path("show"), mentions),
        None => {
            decoder.add_error(
                tree,
                &fields.field_path("show"),
                "missing: what the person is to approve",
            );
            None
        }
    };
    let ttl = fields
        .take_field("ttl")
        .and_then(|tree| decoder.decode_parsed(tree, &fields.field_path("ttl")));
    decoder.reject_unknown_fields(&fields);
    Some(ApprovalNode { role, show: show?, ttl })
}

fn decode_sleep(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
) -> Option<SleepNode> {
    if !matches!(tree.kind, YamlKind::Map(_)) {
        return decoder.decode_parsed(tree, path).map(|span| SleepNode { span });
    }
    let mut fields = decoder.map_fields(tree, path)?;
    let span = fields
        .take_field("for")
        .and_then(|tree| decoder.decode_parsed(tree, &fields.field_path("for")));
    decoder.reject_unknown_fields(&fields);
    if span.is_none() {
        decoder.add_error(tree, path, "needs a length of time, as `sleep: 5s`");
    }
    span.map(|span| SleepNode { span })
}
