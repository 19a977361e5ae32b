//! The decoder that all `decode_*` files share: typed access to fields, and the errors found so
//! far.
//!
//! Decoding never stops at an error: a value that cannot be used is reported and left out, so that
//! one answer names everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::inputs::check_schema;
use super::manifest::Graph;
use super::mistake::{Mistakes, Place};
use super::nodes;
use super::source::{Kind, Tree};
use super::tools::ToolCatalog;
use crate::expr::{self, ExprError, Refs};
use crate::id::{Name, NodeId};
use crate::money::Money;
use crate::run::Budget;
use crate::time::Span;

/// Positions of a graph's parts, for the checks that follow decoding.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Path and position of each usable node, by its index in the graph.
    pub(super) nodes: Vec<At>,
    /// Names used by each usable node, by its index in the graph.
    pub(super) mentions: Vec<Mentions>,
    /// Names used by the graph's output.
    pub(super) output: Mentions,
    /// Ids of nodes that failed to decode; references to them are not reported a second time.
    pub(super) broken: BTreeSet<String>,
    /// True if a node failed to decode: checks over all nodes are skipped then.
    pub(super) is_partial: bool,
}

/// A path in the manifest, as `nodes[2].map.over`, and its position in the text.
#[derive(Debug, Clone, Default)]
pub(super) struct At {
    pub(super) path: String,
    pub(super) place: Place,
}

/// Names that a node's fields use, each with its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Mentions {
    /// Nodes whose output an expression uses.
    pub(super) nodes: Vec<Mention>,
    /// Other variables of expressions.
    pub(super) variables: Vec<Mention>,
    /// Nodes named by `needs`, branches and fallbacks.
    pub(super) targets: Vec<Mention>,
}

/// A name that an expression or a field uses.
#[derive(Debug, Clone)]
pub(super) struct Mention {
    pub(super) name: String,
    pub(super) at: At,
    /// True if the text provides for an absent value, for example by `default`.
    pub(super) is_guarded: bool,
}

impl Mentions {
    /// Adds the names of another part of the same node.
    pub(super) fn take(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.variables.extend(other.variables);
        self.targets.extend(other.targets);
    }

    /// Adds the names that an expression refers to.
    fn read(&mut self, tree: &Tree, path: &str, refs: &Refs) {
        let is_guarded = match &tree.kind {
            // One guard covers all names of the text: a false negative would be a warning that
            // cannot be silenced.
            Kind::Scalar(Value::String(text)) => GUARDS.iter().any(|guard| text.contains(guard)),
            _ => false,
        };
        let mention = |(name, line): (&String, &usize)| {
            let at = At { path: path.to_owned(), place: tree.line(*line) };
            Mention { name: name.clone(), at, is_guarded }
        };
        self.nodes.extend(refs.nodes.iter().map(mention));
        self.variables.extend(refs.variables.iter().map(mention));
    }
}

/// Words by which an expression provides for an absent value. They are looked for as text, so a hit
/// may be wrong; it only suppresses a warning.
const GUARDS: [&str; 5] = ["default", "| d(", "defined", ".status", "has("];

/// State of decoding one manifest.
pub(super) struct Decoder<'a> {
    pub(super) tools: &'a ToolCatalog,
    pub(super) mistakes: &'a mut Mistakes,
    /// Ids that are no valid node names: reported once, where they are defined.
    pub(super) invalid_ids: BTreeSet<String>,
}

/// The fields of a map while it is decoded; those that nobody took by the end are unknown.
pub(super) struct Fields<'t> {
    pub(super) path: String,
    left: BTreeMap<&'t str, &'t Tree>,
    known: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    /// Takes a field; its name counts as known from then on.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'t Tree> {
        self.known.push(key);
        self.left.remove(key)
    }

    /// Returns a field that another decoder will take.
    pub(super) fn get(&self, key: &str) -> Option<&'t Tree> {
        self.left.get(key).copied()
    }

    /// The path of a field, as `nodes[2].retry`.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Decoder<'_> {
    pub(super) fn add(&mut self, tree: &Tree, path: &str, message: impl Into<String>) {
        self.mistakes.add(tree.place, path, message);
    }

    pub(super) fn warn(&mut self, tree: &Tree, path: &str, message: impl Into<String>) {
        self.mistakes.warn(tree.place, path, message);
    }

    /// The fields of a map; another kind of value is reported.
    pub(super) fn fields<'t>(&mut self, tree: &'t Tree, path: &str) -> Option<Fields<'t>> {
        let Kind::Map(fields) = &tree.kind else {
            self.add(tree, path, format!("must be a map, is {}", tree.kind_name()));
            return None;
        };
        let left = fields.iter().map(|(key, field)| (key.as_str(), field)).collect();
        Some(Fields { path: path.to_owned(), left, known: Vec::new() })
    }

    /// Reports the fields that nobody took, with the known ones and a spelling hint.
    pub(super) fn finish(&mut self, fields: &Fields<'_>) {
        for (key, tree) in &fields.left {
            let hint = self.mistakes.hint(key, fields.known.iter().copied());
            let known = fields.known.join(", ");
            let message = format!("unknown key `{key}`{hint} (known: {known})");
            self.mistakes.add(tree.place, &fields.at(key), message);
        }
    }

    /// Decodes text. Numbers and booleans are taken as text too: YAML types a plain `2` as a
    /// number.
    pub(super) fn text(&mut self, tree: &Tree, path: &str) -> Option<String> {
        match &tree.kind {
            Kind::Scalar(Value::String(text)) => Some(text.clone()),
            // YAML types a plain `1` or `true`, which authors mean as text here.
            Kind::Scalar(value @ (Value::Number(_) | Value::Bool(_))) => Some(value.to_string()),
            _ => {
                self.add(tree, path, format!("must be text, is {}", tree.kind_name()));
                None
            }
        }
    }

    /// Decodes a whole number from `min` to `max`.
    pub(super) fn number(&mut self, tree: &Tree, path: &str, min: u64, max: u64) -> Option<u64> {
        let number = match &tree.kind {
            Kind::Scalar(value) => value.as_u64(),
            _ => None,
        };
        let number = number.filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.add(tree, path, format!("must be a whole number from {min} to {max}"));
        }
        number
    }

    /// Decodes text by the type's own parser, and reports the parser's error.
    pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        tree: &Tree,
        path: &str,
    ) -> Option<T> {
        match self.text(tree, path)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(tree, path, error.to_string());
                None
            }
        }
    }

    /// Decodes a node's id, which must be a name that expressions can use.
    pub(super) fn node_id(&mut self, tree: &Tree, path: &str) -> Option<NodeId> {
        let text = self.text(tree, path)?;
        let id = node_name(&text);
        if id.is_none() {
            let rule = "1 to 40 characters of a-z, 0-9 and `_`, beginning with a letter";
            let right = similar_name(&text);
            let message = format!("`{text}` is not a node's name: use {rule}, as `{right}`");
            self.add(tree, path, message);
        }
        id
    }

    /// Decodes the id of another node, and notes that it is referred to.
    pub(super) fn target(
        &mut self,
        tree: &Tree,
        path: &str,
        mentions: &mut Mentions,
    ) -> Option<NodeId> {
        // Reported where the node is defined; a second error here would not help.
        if tree.as_str().is_some_and(|text| self.invalid_ids.contains(text)) {
            return None;
        }
        let id = self.node_id(tree, path)?;
        let at = At { path: path.to_owned(), place: tree.place };
        mentions.targets.push(Mention { name: id.to_string(), at, is_guarded: true });
        Some(id)
    }

    /// Decodes one node id or a list of them.
    pub(super) fn targets(
        &mut self,
        tree: &Tree,
        path: &str,
        mentions: &mut Mentions,
    ) -> Vec<NodeId> {
        let Kind::List(list) = &tree.kind else {
            return self.target(tree, path, mentions).into_iter().collect();
        };
        let target = |(index, tree)| self.target(tree, &format!("{path}[{index}]"), mentions);
        list.iter().enumerate().filter_map(target).collect()
    }

    /// Notes the names used by the templates within a value.
    pub(super) fn templates(&mut self, tree: &Tree, path: &str, mentions: &mut Mentions) {
        match &tree.kind {
            Kind::Scalar(Value::String(text)) => {
                self.expression(tree, path, expr::refs_in_text(text), mentions);
            }
            Kind::Scalar(_) => {}
            Kind::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    self.templates(item, &format!("{path}[{index}]"), mentions);
                }
            }
            Kind::Map(fields) => {
                for (key, field) in fields {
                    self.templates(field, &format!("{path}.{key}"), mentions);
                }
            }
        }
    }

    /// Notes the names used by an expression, or reports why it cannot be parsed.
    pub(super) fn expression(
        &mut self,
        tree: &Tree,
        path: &str,
        read: Result<Refs, ExprError>,
        mentions: &mut Mentions,
    ) {
        match read {
            Ok(refs) => mentions.read(tree, path, &refs),
            // The invalid id is the cause and has been reported.
            Err(_) if self.names_invalid_id(tree) => {}
            Err(error) => {
                let place = tree.line(error.line.unwrap_or(1));
                self.mistakes.add(place, path, error.message);
            }
        }
    }

    /// True if an expression refers to a node by an invalid id, which is why it cannot be parsed.
    fn names_invalid_id(&self, tree: &Tree) -> bool {
        let text = tree.as_str().unwrap_or_default();
        self.invalid_ids.iter().any(|id| text.contains(&format!("nodes.{id}")))
    }

    /// Decodes a JSON Schema; one that the platform does not accept is reported.
    pub(super) fn schema(&mut self, tree: &Tree, path: &str) -> Value {
        let schema = tree.value();
        if let Err(error) = check_schema(&schema) {
            self.add(tree, path, format!("not a JSON Schema: {error}"));
        }
        schema
    }
}

/// Parses a node name: `a-z`, `0-9` and `_`, beginning with a letter.
fn node_name(text: &str) -> Option<NodeId> {
    let is_usable = text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.contains('-');
    text.parse().ok().filter(|_| is_usable)
}

/// Suggests the valid node name that is nearest to a text.
fn similar_name(text: &str) -> String {
    let is_taken = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let letters = text.to_ascii_lowercase();
    let letters: String = letters.chars().map(|c| if is_taken(c) { c } else { '_' }).collect();
    let name = letters.trim_matches('_');
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let name = if begins_well { name.to_owned() } else { format!("n{name}") };
    // The longest valid name has 40 characters.
    name.chars().take(40).collect()
}

/// The ids of a graph's nodes that are no valid names.
fn invalid_ids(tree: &Tree) -> BTreeSet<String> {
    let Some(Kind::List(nodes)) = tree.field("nodes").map(|nodes| &nodes.kind) else {
        return BTreeSet::new();
    };
    let ids = nodes.iter().filter_map(|node| node.field("id").and_then(Tree::as_str));
    ids.filter(|id| node_name(id).is_none()).map(str::to_owned).collect()
}

/// Decodes a graph; `None` when there are no nodes to be checked further.
pub(super) fn graph(
    tree: &Tree,
    tools: &ToolCatalog,
    mistakes: &mut Mistakes,
) -> Option<(Graph, Places)> {
    let invalid_ids = invalid_ids(tree);
    let mut decoder = Decoder { tools, mistakes, invalid_ids };
    let mut fields = decoder.fields(tree, "")?;
    let name = match fields.take("name") {
        Some(tree) => decoder.parsed::<Name>(tree, "name").map(String::from),
        None => {
            decoder.add(tree, "name", "missing: give the graph a name, as `name: brief`");
            None
        }
    };
    let description = fields.take("description").and_then(|t| decoder.text(t, "description"));
    let inputs = match fields.take("inputs") {
        Some(tree) => decoder.schema(tree, "inputs"),
        None => json!({"type": "object"}),
    };
    let budget = fields.take("budget");
    let budget = budget.map(|tree| decoder.budget(tree, "budget", Budget::default()));
    let mut places = Places::default();
    let output = fields.take("output").map(|tree| {
        decoder.templates(tree, "output", &mut places.output);
        tree.value()
    });
    let nodes = match fields.take("nodes") {
        Some(tree) => nodes::nodes(&mut decoder, tree, &mut places),
        None => {
            decoder.add(tree, "nodes", "missing: a graph has at least one node");
            None
        }
    };
    decoder.finish(&fields);
    // Errors have been reported: the graph only serves the checks that follow.
    let name = name.unwrap_or_default();
    let budget = budget.unwrap_or_default();
    let graph = Graph { name, description, inputs, budget, nodes: nodes?, output };
    Some((graph, places))
}

impl Decoder<'_> {
    /// Decodes the limits of a run; those that are not given keep the values of `budget`.
    pub(super) fn budget(&mut self, tree: &Tree, path: &str, mut budget: Budget) -> Budget {
        let Some(mut fields) = self.fields(tree, path) else { return budget };
        if let Some(tree) = fields.take("tokens") {
            let tokens = self.number(tree, &fields.at("tokens"), 1, 1 << 40);
            budget.tokens = tokens.or(budget.tokens);
        }
        if let Some(tree) = fields.take("cost") {
            budget.cost = self.parsed::<Money>(tree, &fields.at("cost"));
        }
        if let Some(tree) = fields.take("wall") {
            budget.wall = self.parsed::<Span>(tree, &fields.at("wall")).or(budget.wall);
        }
        if let Some(tree) = fields.take("deadline") {
            budget.deadline = self.parsed::<Span>(tree, &fields.at("deadline"));
        }
        self.finish(&fields);
        budget
    }
}
