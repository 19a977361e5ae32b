//! Decodes nodes that run a graph within the run: a registered one, or one that a model proposes.

use serde_json::{Map, Value};

use super::decode::{Decoder, Fields, Mentions};
use super::manifest::{Grants, Plan, SubGraph};
use super::nodes::asker;
use super::source::{Kind, Tree};
use super::toolbox;
use crate::id::{GraphVersion, Name};
use crate::run::Budget;

/// Proposals of a plan if the manifest sets no limit.
const PLAN_TURNS: u64 = 3;

/// Decodes `graph: {name, version, inputs, budget}` or `graph: NAME`.
pub(super) fn graph(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<SubGraph> {
    if !matches!(tree.kind, Kind::Map(_)) {
        let name = decoder.parsed::<Name>(tree, path)?.to_string();
        let inputs = Value::Object(Map::new());
        return Some(SubGraph { name, version: None, inputs, budget: None });
    }
    let mut fields = decoder.fields(tree, path)?;
    let name = match fields.take("name") {
        Some(tree) => decoder.parsed::<Name>(tree, &fields.at("name")),
        None => {
            decoder.add(tree, &fields.at("name"), "missing: the graph's name, as `name: brief`");
            None
        }
    };
    let version = fields.take("version");
    let version = version.and_then(|t| decoder.parsed::<GraphVersion>(t, &fields.at("version")));
    let inputs = inputs(decoder, &mut fields, mentions);
    let budget = budget(decoder, &mut fields);
    decoder.finish(&fields);
    Some(SubGraph { name: name?.to_string(), version, inputs, budget })
}

/// Decodes `plan: {model, system, prompt, max_tokens, max_turns, inputs, budget, tools, memory,
/// ...}`.
pub(super) fn plan(
    decoder: &mut Decoder<'_>,
    tree: &Tree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<Plan> {
    let mut fields = decoder.fields(tree, path)?;
    let agent = asker(decoder, tree, &mut fields, mentions, None);
    let max_turns = fields.take("max_turns");
    let max_turns = max_turns.and_then(|t| decoder.number(t, &fields.at("max_turns"), 1, 100));
    let max_turns = u32::try_from(max_turns.unwrap_or(PLAN_TURNS)).unwrap_or(1);
    let inputs = inputs(decoder, &mut fields, mentions);
    let budget = budget(decoder, &mut fields);
    let grants = grants(decoder, &mut fields, mentions);
    decoder.finish(&fields);
    Some(Plan { agent: agent?, max_turns, inputs, budget, grants })
}

/// Decodes `tools` and `memory: {subject}` of a plan.
fn grants(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>, mentions: &mut Mentions) -> Grants {
    let tools = fields.take("tools");
    let tools = tools.and_then(|tree| toolbox::list(decoder, tree, &fields.at("tools")));
    let memory = fields.take("memory").and_then(|tree| {
        let mut fields = decoder.fields(tree, &fields.at("memory"))?;
        let subject = toolbox::memory_subject(decoder, tree, &mut fields, mentions);
        decoder.finish(&fields);
        subject
    });
    Grants { tools: tools.unwrap_or_default(), memory_subject: memory }
}

fn inputs(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>, mentions: &mut Mentions) -> Value {
    let empty = Value::Object(Map::new());
    let Some(tree) = fields.take("inputs") else { return empty };
    let path = fields.at("inputs");
    if !matches!(tree.kind, Kind::Map(_)) {
        decoder.add(tree, &path, format!("must be a map of inputs, is {}", tree.kind_name()));
        return empty;
    }
    decoder.templates(tree, &path, mentions);
    tree.value()
}

fn budget(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Option<Budget> {
    let tree = fields.take("budget")?;
    // A child run without a limit of its own is bounded by what its parent has left.
    Some(decoder.budget(tree, &fields.at("budget"), Budget::UNBOUND))
}
