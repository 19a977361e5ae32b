//! Reading nodes.

use serde_json::{Map as Object, Value};

use super::decode::{Decoder, Fields, Places};
use super::manifest::{
    Agent, Approval, Branch, Case, Join, Map, MapWork, Node, OnError, Retry, Sleep, Tool, Work,
};
use super::mistake::hint;
use super::source::{Kind, Tree};
use crate::expr::{self, Refs};
use crate::id::NodeId;

/// Nodes of a graph at most.
const NODES_LIMIT: usize = 10_000;
/// What a node may do; the contract names more kinds than this version runs.
const KINDS: [&str; 6] = ["agent", "tool", "branch", "map", "approval", "sleep"];
const LATER_KINDS: [&str; 4] = ["plugin", "graph", "plan", "signal"];
const LATER_AGENT_KEYS: [&str; 3] = ["tools", "max_turns", "memory"];
/// Tokens of an answer when the manifest names no limit.
const MAX_TOKENS: u32 = 512;

/// Reads all nodes; `None` when one of them is unusable.
pub(super) fn nodes(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    places: &mut Places,
) -> Option<Vec<Node>> {
    let Kind::List(list) = &tree.kind else {
        decoder.add(tree, "nodes", format!("must be a list of nodes, is {}", tree.kind_name()));
        return None;
    };
    if list.is_empty() || list.len() > NODES_LIMIT {
        decoder.add(tree, "nodes", format!("a graph has 1 to {NODES_LIMIT} nodes"));
        return None;
    }
    let mut nodes = Vec::with_capacity(list.len());
    for (index, tree) in list.iter().enumerate() {
        let mut refs = Refs::default();
        let read = node(decoder, tree, &format!("nodes[{index}]"), &mut refs);
        places.nodes.push(tree.place);
        places.refs.push(refs);
        nodes.push(read);
    }
    nodes.into_iter().collect()
}

fn node(decoder: &mut Decoder<'_>, tree: &Tree, path: &str, refs: &mut Refs) -> Option<Node> {
    let mut fields = decoder.fields(tree, path)?;
    let id = match fields.take("id") {
        Some(tree) => decoder.node_id(tree, &fields.at("id")),
        None => {
            decoder.add(tree, &fields.at("id"), "missing: give the node a name, as `id: split`");
            None
        }
    };
    let needs = fields.take("needs").map(|t| decoder.node_ids(t, &fields.at("needs")));
    let join = fields.take("join").map(|t| join(decoder, t, &fields.at("join")));
    let retry = fields.take("retry").map(|t| retry(decoder, t, &fields.at("retry")));
    let timeout = fields.take("timeout").and_then(|t| decoder.parsed(t, &fields.at("timeout")));
    let on_error = fields.take("on_error").map(|t| on_error(decoder, t, &fields.at("on_error")));
    let work = work(decoder, tree, &mut fields, refs);
    decoder.finish(&fields);
    Some(Node {
        id: id?,
        needs: needs.unwrap_or_default(),
        join: join.unwrap_or_default(),
        retry: retry.unwrap_or_default(),
        timeout,
        on_error: on_error.unwrap_or_default(),
        work: work?,
    })
}

fn join(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Join {
    match &tree.kind {
        Kind::Scalar(Value::String(text)) if text == "all" => Join::All,
        Kind::Scalar(Value::String(text)) if text == "any" => Join::Any,
        Kind::Scalar(Value::Number(_)) => {
            let count = decoder.number(tree, path, 1, 10_000).unwrap_or(1);
            Join::AtLeast(u32::try_from(count).unwrap_or(1))
        }
        _ => {
            decoder.add(tree, path, "must be `all`, `any` or how many must succeed, as 2");
            Join::All
        }
    }
}

fn retry(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Retry {
    let mut retry = Retry::default();
    let Some(mut fields) = decoder.fields(tree, path) else { return retry };
    if let Some(tree) = fields.take("max") {
        let max = decoder.number(tree, &fields.at("max"), 1, 100).unwrap_or(3);
        retry.max = u32::try_from(max).unwrap_or(3);
    }
    if let Some(tree) = fields.take("backoff") {
        retry.backoff = decoder.parsed(tree, &fields.at("backoff")).unwrap_or(retry.backoff);
    }
    if let Some(tree) = fields.take("on") {
        let path = fields.at("on");
        match &tree.kind {
            Kind::List(list) => {
                retry.on = list.iter().filter_map(|tree| decoder.text(tree, &path)).collect();
            }
            _ => decoder.add(tree, &path, "must be a list of codes, as [provider.timeout]"),
        }
    }
    decoder.finish(&fields);
    retry
}

fn on_error(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> OnError {
    match &tree.kind {
        Kind::Scalar(Value::String(text)) if text == "fail" => OnError::Fail,
        Kind::Scalar(Value::String(text)) if text == "skip" => OnError::Skip,
        Kind::Scalar(Value::String(text)) if text == "ask" => {
            let message = "`ask` is not available in this version: use fail, skip or fallback";
            decoder.add(tree, path, message);
            OnError::Fail
        }
        Kind::Map(_) => {
            let Some(mut fields) = decoder.fields(tree, path) else { return OnError::Fail };
            let node = fields.take("fallback");
            let node = node.and_then(|tree| decoder.node_id(tree, &fields.at("fallback")));
            decoder.finish(&fields);
            node.map_or(OnError::Fail, OnError::Fallback)
        }
        _ => {
            decoder.add(tree, path, "must be `fail`, `skip` or {fallback: NODE}");
            OnError::Fail
        }
    }
}

fn work(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    fields: &mut Fields<'_>,
    refs: &mut Refs,
) -> Option<Work> {
    for kind in LATER_KINDS {
        if let Some(tree) = fields.take(kind) {
            let message = format!("`{kind}` nodes are not available in this version");
            decoder.add(tree, &fields.at(kind), message);
            return None;
        }
    }
    let with = fields.take("with");
    let mut found: Vec<(&str, &Tree)> = Vec::new();
    for kind in KINDS {
        found.extend(fields.take(kind).map(|tree| (kind, tree)));
    }
    let [(kind, body)] = found[..] else {
        let message = match found.len() {
            0 => format!("does nothing: give it one of {}", KINDS.join(", ")),
            _ => format!("does more than one thing: give it one of {}", KINDS.join(", ")),
        };
        decoder.add(tree, &fields.path, message);
        return None;
    };
    let path = fields.at(kind);
    if let (Some(with), true) = (with, kind != "tool") {
        decoder.add(with, &fields.at("with"), "`with` belongs to a tool");
    }
    match kind {
        "agent" => agent(decoder, body, &path, refs).map(Work::Agent),
        "tool" => tool(decoder, body, with, &path, refs).map(Work::Tool),
        "branch" => branch(decoder, body, &path, refs).map(Work::Branch),
        "map" => map(decoder, body, &path, refs).map(Work::Map),
        "approval" => approval(decoder, body, &path, refs).map(Work::Approval),
        _ => sleep(decoder, body, &path).map(Work::Sleep),
    }
}

fn template(decoder: &mut Decoder<'_>, tree: &Tree, path: &str, refs: &mut Refs) -> Option<String> {
    let text = decoder.text(tree, path)?;
    refs.merge(decoder.expression(tree, path, expr::refs_in_text(&text)));
    Some(text)
}

fn agent(decoder: &mut Decoder<'_>, tree: &Tree, path: &str, refs: &mut Refs) -> Option<Agent> {
    let mut fields = decoder.fields(tree, path)?;
    for key in LATER_AGENT_KEYS {
        if let Some(tree) = fields.take(key) {
            let message = format!("an agent's `{key}` is not available in this version");
            decoder.add(tree, &fields.at(key), message);
        }
    }
    let model = fields.take("model").and_then(|tree| decoder.text(tree, &fields.at("model")));
    let system =
        fields.take("system").and_then(|t| template(decoder, t, &fields.at("system"), refs));
    let (prompt, request) = question(decoder, tree, &mut fields, refs);
    let privacy = fields.take("privacy");
    let privacy = privacy.and_then(|tree| decoder.parsed(tree, &fields.at("privacy")));
    let max_tokens = fields.take("max_tokens");
    let max_tokens =
        max_tokens.and_then(|t| decoder.number(t, &fields.at("max_tokens"), 1, 32_768));
    let max_tokens = max_tokens.and_then(|n| u32::try_from(n).ok()).unwrap_or(MAX_TOKENS);
    let temperature = fields.take("temperature").and_then(|tree| {
        let value = tree.value().as_f64().filter(|value| (0.0..=2.0).contains(value));
        if value.is_none() {
            decoder.add(tree, &fields.at("temperature"), "must be a number from 0 to 2");
        }
        value
    });
    let schema = fields.take("schema").map(|tree| decoder.schema(tree, &fields.at("schema")));
    decoder.finish(&fields);
    let model = model.unwrap_or_else(|| "auto".into());
    let (prompt, privacy) = (prompt?, privacy.unwrap_or_default());
    Some(Agent { model, system, prompt, request, privacy, max_tokens, temperature, schema })
}

/// What an agent asks: its prompt, or a whole request in place of it.
fn question(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    fields: &mut Fields<'_>,
    refs: &mut Refs,
) -> (Option<String>, Option<String>) {
    match (fields.take("prompt"), fields.take("request")) {
        (Some(tree), None) => (template(decoder, tree, &fields.at("prompt"), refs), None),
        (None, Some(tree)) => {
            (Some(String::new()), template(decoder, tree, &fields.at("request"), refs))
        }
        (Some(_), Some(_)) => {
            let message = "`prompt` and `request` exclude each other: a request has its prompts";
            decoder.add(tree, &fields.at("request"), message);
            (None, None)
        }
        (None, None) => {
            decoder.add(tree, &fields.at("prompt"), "missing: an agent needs a prompt");
            (None, None)
        }
    }
}

/// `tool: NAME` with `with` beside it, or `tool: {name, with}`.
fn tool(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    with: Option<&Tree>,
    path: &str,
    refs: &mut Refs,
) -> Option<Tool> {
    let (name, with) = match &tree.kind {
        Kind::Map(_) => {
            let mut fields = decoder.fields(tree, path)?;
            let name = fields.take("name").and_then(|t| decoder.text(t, &fields.at("name")));
            let inner = fields.take("with");
            decoder.finish(&fields);
            (name, inner.or(with))
        }
        _ => (decoder.text(tree, path), with),
    };
    let Some(name) = name else {
        decoder.add(tree, path, "missing: the tool's name, as `tool: text.split`");
        return None;
    };
    let arguments = with.map_or_else(|| Value::Object(Object::new()), Tree::value);
    if let Some(with) = with {
        refs.merge(decoder.expression(with, path, expr::refs_in_value(&arguments)));
    }
    check_arguments(decoder, &name, with.unwrap_or(tree), &arguments, path);
    Some(Tool { name, with: arguments })
}

/// Names unknown tools, and arguments that are missing or unknown.
fn check_arguments(
    decoder: &mut Decoder<'_>,
    name: &str,
    tree: &Tree,
    arguments: &Value,
    path: &str,
) {
    let tools = decoder.tools;
    let Some(spec) = tools.get(name) else {
        let hint = hint(name, tools.names());
        decoder.add(tree, path, format!("there is no tool `{name}`{hint}"));
        return;
    };
    let Some(given) = arguments.as_object() else {
        decoder.add(tree, path, "`with` must be a map of arguments");
        return;
    };
    let properties = spec.arguments["properties"].as_object().cloned().unwrap_or_default();
    for key in given.keys().filter(|key| !properties.contains_key(*key)) {
        let hint = hint(key, properties.keys().map(String::as_str));
        decoder.add(tree, path, format!("`{name}` has no argument `{key}`{hint}"));
    }
    let required = spec.arguments["required"].as_array().into_iter().flatten();
    for key in required.filter_map(Value::as_str).filter(|key| !given.contains_key(*key)) {
        decoder.add(tree, path, format!("`{name}` needs the argument `{key}`"));
    }
    for (key, value) in given {
        let is_literal = !value.to_string().contains("{{") && !value.to_string().contains("{%");
        let Some(schema) = properties.get(key).filter(|_| is_literal) else { continue };
        for message in super::inputs::check_inputs(schema, value) {
            let message = message.replacen("inputs", key, 1);
            decoder.add(tree, path, format!("`{name}`, argument {message}"));
        }
    }
}

fn condition(decoder: &mut Decoder<'_>, tree: &Tree, path: &str, refs: &mut Refs) -> String {
    let text = decoder.text(tree, path).unwrap_or_default();
    refs.merge(decoder.expression(tree, path, expr::refs_in_condition(&text)));
    text
}

fn branch(decoder: &mut Decoder<'_>, tree: &Tree, path: &str, refs: &mut Refs) -> Option<Branch> {
    let mut fields = decoder.fields(tree, path)?;
    let mut cases = Vec::new();
    let (when, then) = (fields.take("if"), fields.take("then"));
    match (when, then) {
        (Some(when), Some(then)) => cases.push(Case {
            when: condition(decoder, when, &fields.at("if"), refs),
            to: decoder.node_ids(then, &fields.at("then")),
        }),
        (None, None) => {}
        _ => decoder.add(tree, path, "`if` and `then` belong together"),
    }
    if let Some(tree) = fields.take("cases") {
        cases.extend(list_of_cases(decoder, tree, &fields.at("cases"), refs));
    }
    let otherwise = fields.take("else").map(|t| decoder.node_ids(t, &fields.at("else")));
    decoder.finish(&fields);
    if cases.is_empty() {
        decoder.add(tree, path, "needs `if` and `then`, or `cases`");
        return None;
    }
    Some(Branch { cases, otherwise: otherwise.unwrap_or_default() })
}

fn list_of_cases(decoder: &mut Decoder<'_>, tree: &Tree, path: &str, refs: &mut Refs) -> Vec<Case> {
    let Kind::List(list) = &tree.kind else {
        decoder.add(tree, path, "must be a list of {when, to}");
        return Vec::new();
    };
    let mut cases = Vec::new();
    for (index, tree) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(mut fields) = decoder.fields(tree, &path) else { continue };
        match (fields.take("when"), fields.take("to")) {
            (Some(when), Some(to)) => cases.push(Case {
                when: condition(decoder, when, &fields.at("when"), refs),
                to: decoder.node_ids(to, &fields.at("to")),
            }),
            _ => decoder.add(tree, &path, "a case needs `when` and `to`"),
        }
        decoder.finish(&fields);
    }
    cases
}

fn map(decoder: &mut Decoder<'_>, tree: &Tree, path: &str, refs: &mut Refs) -> Option<Map> {
    let mut fields = decoder.fields(tree, path)?;
    let over = match fields.take("over") {
        Some(tree) => template(decoder, tree, &fields.at("over"), refs),
        None => {
            decoder.add(tree, &fields.at("over"), "missing: the list that the map runs over");
            None
        }
    };
    let max_parallel = fields.take("max_parallel");
    let max_parallel =
        max_parallel.and_then(|t| decoder.number(t, &fields.at("max_parallel"), 1, 1000));
    let with = fields.take("with");
    let mut inner = Refs::default();
    let work = match (fields.take("agent"), fields.take("tool")) {
        (Some(body), None) => {
            agent(decoder, body, &fields.at("agent"), &mut inner).map(MapWork::Agent)
        }
        (None, Some(body)) => {
            tool(decoder, body, with, &fields.at("tool"), &mut inner).map(MapWork::Tool)
        }
        _ => {
            decoder.add(tree, path, "a map does one thing with each item: an agent or a tool");
            None
        }
    };
    // Only here the item is known.
    inner.variables.remove("item");
    inner.variables.remove("index");
    refs.merge(inner);
    decoder.finish(&fields);
    let max_parallel = u32::try_from(max_parallel.unwrap_or(10)).unwrap_or(10);
    Some(Map { over: over?, max_parallel, work: work? })
}

fn approval(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    refs: &mut Refs,
) -> Option<Approval> {
    let mut fields = decoder.fields(tree, path)?;
    let role = fields.take("role").and_then(|tree| decoder.parsed(tree, &fields.at("role")));
    let role = role.map_or_else(|| "owner".to_owned(), |role: NodeId| role.to_string());
    let show = match fields.take("show") {
        Some(tree) => template(decoder, tree, &fields.at("show"), refs),
        None => {
            decoder.add(tree, &fields.at("show"), "missing: what the person is to approve");
            None
        }
    };
    let ttl = fields.take("ttl").and_then(|tree| decoder.parsed(tree, &fields.at("ttl")));
    decoder.finish(&fields);
    Some(Approval { role, show: show?, ttl })
}

fn sleep(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Option<Sleep> {
    if !matches!(tree.kind, Kind::Map(_)) {
        return decoder.parsed(tree, path).map(|span| Sleep { span });
    }
    let mut fields = decoder.fields(tree, path)?;
    let span = fields.take("for").and_then(|tree| decoder.parsed(tree, &fields.at("for")));
    decoder.finish(&fields);
    if span.is_none() {
        decoder.add(tree, path, "needs a length of time, as `sleep: 5s`");
    }
    span.map(|span| Sleep { span })
}
