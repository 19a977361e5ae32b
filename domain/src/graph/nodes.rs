//! Decodes nodes: their common fields, and the kinds of node that have no file of their own.

use serde_json::Value;

use super::call;
use super::decode::{At, Decoder, Fields, Mentions, Places};
use super::field_rules::{GivenFields, check_fields, check_map, check_waits};
use super::manifest::{
    Agent, Approval, Branch, Case, Join, Map, MapWork, Node, OnError, Sleep, Work,
};
use super::nested;
use super::retry::retry;
use super::source::{Kind, Tree};
use super::toolbox;
use super::waiting;
use crate::expr;
use crate::id::Name;

/// Most nodes of a graph.
const NODES_LIMIT: usize = 10_000;
/// Kinds of node, by the manifest field that gives them; exactly one is in each node.
pub const NODE_KINDS: [&str; 9] =
    ["agent", "tool", "branch", "map", "approval", "sleep", "graph", "plan", "signal"];
/// Kinds that the contract names and this version does not run.
const LATER_KINDS: [&str; 1] = ["plugin"];
/// Most tokens of an answer if the manifest sets no limit.
const MAX_TOKENS: u32 = 512;

/// Decodes all nodes that are usable; `None` when there is no list of them.
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
        let path = format!("nodes[{index}]");
        let mut mentions = Mentions::default();
        match node(decoder, tree, &path, &mut mentions) {
            Some(node) => {
                nodes.push(node);
                places.nodes.push(At { path, place: tree.place });
                places.mentions.push(mentions);
            }
            None => {
                places.is_partial = true;
                places.broken.extend(tree.field("id").and_then(Tree::as_str).map(str::to_owned));
            }
        }
    }
    Some(nodes)
}

fn node(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<Node> {
    let mut fields = decoder.fields(tree, path)?;
    let id = match fields.take("id") {
        Some(tree) => decoder.node_id(tree, &fields.at("id")),
        None => {
            decoder.add(tree, &fields.at("id"), "missing: give the node a name, as `id: split`");
            None
        }
    };
    let needs = fields.take("needs").map(|t| decoder.targets(t, &fields.at("needs"), mentions));
    let join = fields.take("join").map(|t| join(decoder, t, &fields.at("join")));
    let given = GivenFields::take(&mut fields);
    // Each field is decoded even if an earlier one failed, so that all errors are reported at once.
    let retry = given.retry.map(|t| retry(decoder, t, &fields.at("retry")));
    let timeout = given.timeout.and_then(|t| decoder.parsed(t, &fields.at("timeout")));
    let on_error = given.on_error.map(|t| on_error(decoder, t, &fields.at("on_error"), mentions));
    let on_unknown =
        given.on_unknown.and_then(|t| waiting::on_unknown(decoder, t, &fields.at("on_unknown")));
    let work = work(decoder, tree, &mut fields, mentions);
    if let Some(work) = &work {
        check_fields(decoder, &fields, &given, work);
        check_map(decoder, &fields, &given, (on_error.as_ref(), work));
        timeout.iter().for_each(|timeout| check_waits(decoder, &fields, &given, *timeout, work));
    }
    decoder.finish(&fields);
    Some(Node {
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

fn on_error(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> OnError {
    match &tree.kind {
        Kind::Scalar(Value::String(text)) if text == "fail" => OnError::Fail,
        Kind::Scalar(Value::String(text)) if text == "skip" => OnError::Skip,
        Kind::Scalar(Value::String(text)) if text == "ask" => OnError::Ask,
        Kind::Map(_) => {
            let Some(mut fields) = decoder.fields(tree, path) else { return OnError::Fail };
            let node = fields.take("fallback");
            let node = node.and_then(|tree| decoder.target(tree, &fields.at("fallback"), mentions));
            decoder.finish(&fields);
            node.map_or(OnError::Fail, OnError::Fallback)
        }
        _ => {
            decoder.add(tree, path, "must be `fail`, `skip`, `ask` or {fallback: NODE}");
            OnError::Fail
        }
    }
}

fn work(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    fields: &mut Fields<'_>,
    mentions: &mut Mentions,
) -> Option<Work> {
    // Taken before the known kinds, for an error that says more than `unknown key`.
    for kind in LATER_KINDS {
        if let Some(tree) = fields.take(kind) {
            let message = format!("`{kind}` nodes are not available in this version");
            decoder.add(tree, &fields.at(kind), message);
            return None;
        }
    }
    let with = fields.take("with").map(|tree| (tree, fields.at("with")));
    let mut found: Vec<(&str, &Tree)> = Vec::new();
    for kind in NODE_KINDS {
        found.extend(fields.take(kind).map(|tree| (kind, tree)));
    }
    let [(kind, body)] = found[..] else {
        let message = match found.len() {
            0 => format!("does nothing: give it one of {}", NODE_KINDS.join(", ")),
            _ => format!("does more than one thing: give it one of {}", NODE_KINDS.join(", ")),
        };
        decoder.add(tree, &fields.path, message);
        return None;
    };
    let path = fields.at(kind);
    if kind != "tool" {
        refuse_arguments(decoder, with.as_ref());
    }
    match kind {
        "agent" => agent(decoder, body, &path, mentions).map(Work::Agent),
        "tool" => call::tool(decoder, body, with, &path, mentions).map(Work::Tool),
        "branch" => branch(decoder, body, &path, mentions).map(Work::Branch),
        "map" => map(decoder, body, &path, mentions).map(Work::Map),
        "approval" => approval(decoder, body, &path, mentions).map(Work::Approval),
        "graph" => nested::graph(decoder, body, &path, mentions).map(Work::Graph),
        "plan" => nested::plan(decoder, body, &path, mentions).map(Work::Plan),
        "signal" => waiting::signal(decoder, body, &path).map(Work::Signal),
        _ => sleep(decoder, body, &path).map(Work::Sleep),
    }
}

/// Reports arguments beside a node that is no tool.
fn refuse_arguments(decoder: &mut Decoder<'_>, with: Option<&(&Tree, String)>) {
    if let Some((with, path)) = with {
        decoder.add(with, path, "`with` belongs to a tool");
    }
}

pub(super) fn template(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<String> {
    let text = decoder.text(tree, path)?;
    decoder.templates(tree, path, mentions);
    Some(text)
}

fn agent(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<Agent> {
    let mut fields = decoder.fields(tree, path)?;
    let request = request(decoder, &mut fields, mentions);
    let agent = asker(decoder, tree, &mut fields, mentions, request);
    let schema = fields.take("schema").map(|tree| decoder.schema(tree, &fields.at("schema")));
    let toolbox = toolbox::toolbox(decoder, &mut fields);
    let memory = toolbox::memory(decoder, &mut fields, mentions);
    decoder.finish(&fields);
    let agent = Agent { schema, toolbox, memory, ..agent? };
    if agent.has_turns() && agent.request.is_some() {
        let message = "`tools` and `memory` belong to an agent with a `prompt`";
        decoder.add(tree, &fields.at("request"), message);
    }
    Some(agent)
}

/// Decodes what every agent has: its model, its prompts and the limits of one call. A whole request
/// replaces the prompt.
pub(super) fn asker(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    fields: &mut Fields<'_>,
    mentions: &mut Mentions,
    request: Option<String>,
) -> Option<Agent> {
    let model = fields.take("model").and_then(|tree| decoder.text(tree, &fields.at("model")));
    let system =
        fields.take("system").and_then(|t| template(decoder, t, &fields.at("system"), mentions));
    let prompt = match (fields.take("prompt"), &request) {
        (Some(tree), None) => template(decoder, tree, &fields.at("prompt"), mentions),
        (None, Some(_)) => Some(String::new()),
        (Some(tree), Some(_)) => {
            let message = "`prompt` and `request` exclude each other: a request has its prompts";
            decoder.add(tree, &fields.at("request"), message);
            None
        }
        (None, None) => {
            decoder.add(tree, &fields.at("prompt"), "missing: an agent needs a prompt");
            None
        }
    };
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
    Some(Agent {
        model: model.unwrap_or_else(|| "auto".into()),
        system,
        prompt: prompt?,
        request,
        privacy: privacy.unwrap_or_default(),
        max_tokens,
        temperature,
        schema: None,
        toolbox: None,
        memory: None,
    })
}

/// Fields of an agent that a whole request has itself.
const REQUEST_FIELDS: [&str; 5] = ["model", "system", "max_tokens", "temperature", "schema"];

/// Decodes a whole request in place of a prompt.
fn request(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    mentions: &mut Mentions,
) -> Option<String> {
    let tree = fields.take("request")?;
    for field in REQUEST_FIELDS {
        if let Some(beside) = fields.get(field) {
            let message =
                format!("`{field}` beside a request is not used: write it into the request");
            decoder.add(beside, &fields.at(field), message);
        }
    }
    template(decoder, tree, &fields.at("request"), mentions)
}

fn condition(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> String {
    let text = decoder.text(tree, path).unwrap_or_default();
    decoder.expression(tree, path, expr::refs_in_condition(&text), mentions);
    text
}

fn branch(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<Branch> {
    let mut fields = decoder.fields(tree, path)?;
    let mut cases = Vec::new();
    let (when, then) = (fields.take("if"), fields.take("then"));
    match (when, then) {
        (Some(when), Some(then)) => cases.push(Case {
            when: condition(decoder, when, &fields.at("if"), mentions),
            to: decoder.targets(then, &fields.at("then"), mentions),
        }),
        (None, None) => {}
        _ => decoder.add(tree, path, "`if` and `then` belong together"),
    }
    if let Some(tree) = fields.take("cases") {
        cases.extend(list_of_cases(decoder, tree, &fields.at("cases"), mentions));
    }
    let otherwise = fields.take("else").map(|t| decoder.targets(t, &fields.at("else"), mentions));
    decoder.finish(&fields);
    if cases.is_empty() {
        decoder.add(tree, path, "needs `if` and `then`, or `cases`");
        return None;
    }
    Some(Branch { cases, otherwise: otherwise.unwrap_or_default() })
}

fn list_of_cases(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> Vec<Case> {
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
                when: condition(decoder, when, &fields.at("when"), mentions),
                to: decoder.targets(to, &fields.at("to"), mentions),
            }),
            _ => decoder.add(tree, &path, "a case needs `when` and `to`"),
        }
        decoder.finish(&fields);
    }
    cases
}

fn map(decoder: &mut Decoder<'_>, tree: &Tree, path: &str, mentions: &mut Mentions) -> Option<Map> {
    let mut fields = decoder.fields(tree, path)?;
    let over = match fields.take("over") {
        Some(tree) => template(decoder, tree, &fields.at("over"), mentions),
        None => {
            decoder.add(tree, &fields.at("over"), "missing: the list that the map runs over");
            None
        }
    };
    let max_parallel = fields.take("max_parallel");
    let max_parallel =
        max_parallel.and_then(|t| decoder.number(t, &fields.at("max_parallel"), 1, 1000));
    let with = fields.take("with").map(|tree| (tree, fields.at("with")));
    let mut inner = Mentions::default();
    let work = match (fields.take("agent"), fields.take("tool")) {
        (Some(body), None) => {
            refuse_arguments(decoder, with.as_ref());
            agent(decoder, body, &fields.at("agent"), &mut inner).map(MapWork::Agent)
        }
        (None, Some(body)) => {
            call::tool(decoder, body, with, &fields.at("tool"), &mut inner).map(MapWork::Tool)
        }
        _ => {
            decoder.add(tree, path, "a map does one thing with each item: an agent or a tool");
            None
        }
    };
    // `item` and `index` are defined within the map only: elsewhere they are unknown variables.
    inner.variables.retain(|mention| mention.name != "item" && mention.name != "index");
    mentions.take(inner);
    decoder.finish(&fields);
    let max_parallel = u32::try_from(max_parallel.unwrap_or(10)).unwrap_or(10);
    Some(Map { over: over?, max_parallel, work: work? })
}

fn approval(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<Approval> {
    let mut fields = decoder.fields(tree, path)?;
    let role = fields.take("role").and_then(|tree| decoder.parsed(tree, &fields.at("role")));
    let role = role.map_or_else(|| "owner".to_owned(), |role: Name| role.to_string());
    let show = match fields.take("show") {
        Some(tree) => template(decoder, tree, &fields.at("show"), mentions),
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
