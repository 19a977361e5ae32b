//! From a tree to a graph, collecting every mistake on the way.

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

/// Where the parts of a graph stand, for the checks that follow.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Each usable node's path and place, by index.
    pub(super) nodes: Vec<At>,
    /// What each usable node names, by index.
    pub(super) mentions: Vec<Mentions>,
    /// What the graph's output names.
    pub(super) output: Mentions,
    /// Names of nodes that are unusable, and are not missed by others.
    pub(super) broken: BTreeSet<String>,
    /// Whether a node is unusable: what depends on all of them is not judged then.
    pub(super) is_partial: bool,
}

/// A place by path and line.
#[derive(Debug, Clone, Default)]
pub(super) struct At {
    pub(super) path: String,
    pub(super) place: Place,
}

/// What is named, and where.
#[derive(Debug, Clone, Default)]
pub(super) struct Mentions {
    /// Nodes whose output an expression uses.
    pub(super) nodes: Vec<Mention>,
    /// Other variables of expressions.
    pub(super) variables: Vec<Mention>,
    /// Nodes named by `needs`, branches and fallbacks.
    pub(super) targets: Vec<Mention>,
}

/// One name.
#[derive(Debug, Clone)]
pub(super) struct Mention {
    pub(super) name: String,
    pub(super) at: At,
    /// Whether the text provides for the value's absence.
    pub(super) is_guarded: bool,
}

impl Mentions {
    /// Takes in what another names.
    pub(super) fn take(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.variables.extend(other.variables);
        self.targets.extend(other.targets);
    }

    /// Takes in what an expression names.
    fn read(&mut self, tree: &Tree, path: &str, refs: &Refs) {
        let is_guarded = match &tree.kind {
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

/// Words by which an expression provides for a value that is absent.
const GUARDS: [&str; 5] = ["default", "| d(", "defined", ".status", "has("];

/// What decoding carries along.
pub(super) struct Decoder<'a> {
    pub(super) tools: &'a ToolCatalog,
    pub(super) mistakes: &'a mut Mistakes,
    /// Ids of nodes that are no names: told once, where they are given.
    pub(super) invalid_ids: BTreeSet<String>,
}

/// The fields of a map that is being read; what is left over at the end is unknown.
pub(super) struct Fields<'t> {
    pub(super) path: String,
    left: BTreeMap<&'t str, &'t Tree>,
    known: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    /// Takes a field.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'t Tree> {
        self.known.push(key);
        self.left.remove(key)
    }

    /// Looks at a field that another reader takes.
    pub(super) fn get(&self, key: &str) -> Option<&'t Tree> {
        self.left.get(key).copied()
    }

    /// The path of a field.
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

    /// The fields of a map, or a mistake.
    pub(super) fn fields<'t>(&mut self, tree: &'t Tree, path: &str) -> Option<Fields<'t>> {
        let Kind::Map(fields) = &tree.kind else {
            self.add(tree, path, format!("must be a map, is {}", tree.kind_name()));
            return None;
        };
        let left = fields.iter().map(|(key, field)| (key.as_str(), field)).collect();
        Some(Fields { path: path.to_owned(), left, known: Vec::new() })
    }

    /// Names the fields that nobody took.
    pub(super) fn finish(&mut self, fields: &Fields<'_>) {
        for (key, tree) in &fields.left {
            let hint = self.mistakes.hint(key, fields.known.iter().copied());
            let known = fields.known.join(", ");
            let message = format!("unknown key `{key}`{hint} (known: {known})");
            self.mistakes.add(tree.place, &fields.at(key), message);
        }
    }

    /// A field that is text.
    pub(super) fn text(&mut self, tree: &Tree, path: &str) -> Option<String> {
        match &tree.kind {
            Kind::Scalar(Value::String(text)) => Some(text.clone()),
            Kind::Scalar(value @ (Value::Number(_) | Value::Bool(_))) => Some(value.to_string()),
            _ => {
                self.add(tree, path, format!("must be text, is {}", tree.kind_name()));
                None
            }
        }
    }

    /// A field that is a whole number within bounds.
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

    /// A field whose text is read by its own rules.
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

    /// A node's name: one that expressions can use.
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

    /// A node that another one names.
    pub(super) fn target(
        &mut self,
        tree: &Tree,
        path: &str,
        mentions: &mut Mentions,
    ) -> Option<NodeId> {
        if tree.as_str().is_some_and(|text| self.invalid_ids.contains(text)) {
            return None;
        }
        let id = self.node_id(tree, path)?;
        let at = At { path: path.to_owned(), place: tree.place };
        mentions.targets.push(Mention { name: id.to_string(), at, is_guarded: true });
        Some(id)
    }

    /// One name or a list of names.
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

    /// Takes in what the templates within a value name.
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

    /// Takes in what an expression names, or notes why it cannot be read.
    pub(super) fn expression(
        &mut self,
        tree: &Tree,
        path: &str,
        read: Result<Refs, ExprError>,
        mentions: &mut Mentions,
    ) {
        match read {
            Ok(refs) => mentions.read(tree, path, &refs),
            Err(_) if self.names_invalid_id(tree) => {}
            Err(error) => {
                let place = tree.line(error.line.unwrap_or(1));
                self.mistakes.add(place, path, error.message);
            }
        }
    }

    /// Whether an expression names a node whose id is no name, and so cannot be read.
    fn names_invalid_id(&self, tree: &Tree) -> bool {
        let text = tree.as_str().unwrap_or_default();
        self.invalid_ids.iter().any(|id| text.contains(&format!("nodes.{id}")))
    }

    /// A JSON Schema.
    pub(super) fn schema(&mut self, tree: &Tree, path: &str) -> Value {
        let schema = tree.value();
        if let Err(error) = check_schema(&schema) {
            self.add(tree, path, format!("not a JSON Schema: {error}"));
        }
        schema
    }
}

/// A node's name, if a text is one.
fn node_name(text: &str) -> Option<NodeId> {
    let is_usable = text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.contains('-');
    text.parse().ok().filter(|_| is_usable)
}

/// The node's name that is nearest to a text that is none.
fn similar_name(text: &str) -> String {
    let is_taken = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let letters = text.to_ascii_lowercase();
    let letters: String = letters.chars().map(|c| if is_taken(c) { c } else { '_' }).collect();
    let name = letters.trim_matches('_');
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let name = if begins_well { name.to_owned() } else { format!("n{name}") };
    name.chars().take(40).collect()
}

/// The ids of a graph's nodes that are no names.
fn invalid_ids(tree: &Tree) -> BTreeSet<String> {
    let Some(Kind::List(nodes)) = tree.field("nodes").map(|nodes| &nodes.kind) else {
        return BTreeSet::new();
    };
    let ids = nodes.iter().filter_map(|node| node.field("id").and_then(Tree::as_str));
    ids.filter(|id| node_name(id).is_none()).map(str::to_owned).collect()
}

/// Reads a graph; `None` when there are no nodes to be checked further.
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
    let name = name.unwrap_or_default();
    let budget = budget.unwrap_or_default();
    let graph = Graph { name, description, inputs, budget, nodes: nodes?, output };
    Some((graph, places))
}

impl Decoder<'_> {
    /// Limits of what may be spent; those that are not named are the given ones.
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
