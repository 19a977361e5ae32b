//! The decoder that all `decode_*` files share: typed access to fields, and the errors found so
//! far.
//!
//! Decoding never stops at an error: a value that cannot be used is reported and left out, so that
//! one answer names everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::diagnostic::{Diagnostics, TextPosition};
use super::schema_check::check_schema;
use super::tool_catalog::ToolCatalog;
use super::yaml::{YamlKind, YamlTree};
use crate::expr::{self, ExprError, ExprRefs};
use crate::id::NodeId;
use crate::money::Money;
use crate::run::Budget;
use crate::time::Span;

/// Positions of a graph's parts, for the checks that follow decoding.
#[derive(Debug, Default)]
pub(super) struct GraphLocations {
    /// Path and position of each usable node, by its index in the graph.
    pub(super) nodes: Vec<ManifestLocation>,
    /// Names used by each usable node, by its index in the graph.
    pub(super) mentions: Vec<Mentions>,
    /// Names used by the graph's output.
    pub(super) output: Mentions,
    /// Ids of nodes that failed to decode; references to them are not reported a second time.
    pub(super) broken_nodes: BTreeSet<String>,
    /// True if a node failed to decode: checks over all nodes are skipped then.
    pub(super) is_partial: bool,
}

/// A path in the manifest, as `nodes[2].map.over`, and its position in the text.
#[derive(Debug, Clone, Default)]
pub(super) struct ManifestLocation {
    pub(super) path: String,
    pub(super) position: TextPosition,
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
    pub(super) location: ManifestLocation,
    /// True if the text provides for an absent value, for example by `default`.
    pub(super) is_guarded: bool,
}

impl Mentions {
    /// Adds the names of another part of the same node.
    pub(super) fn merge_mentions(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.variables.extend(other.variables);
        self.targets.extend(other.targets);
    }

    /// Adds the names that an expression refers to.
    fn add_refs(&mut self, tree: &YamlTree, path: &str, refs: &ExprRefs) {
        let is_guarded = match &tree.kind {
            // One guard covers all names of the text: a false negative would be a warning that
            // cannot be silenced.
            YamlKind::Scalar(Value::String(text)) => {
                ABSENCE_GUARDS.iter().any(|guard| text.contains(guard))
            }
            _ => false,
        };
        let mention = |(name, line): (&String, &usize)| {
            let at =
                ManifestLocation { path: path.to_owned(), position: tree.position_of_line(*line) };
            Mention { name: name.clone(), location: at, is_guarded }
        };
        self.nodes.extend(refs.nodes.iter().map(mention));
        self.variables.extend(refs.variables.iter().map(mention));
    }
}

/// Words by which an expression provides for an absent value. They are looked for as text, so a hit
/// may be wrong; it only suppresses a warning.
const ABSENCE_GUARDS: [&str; 5] = ["default", "| d(", "defined", ".status", "has("];

/// State of decoding one manifest.
pub(super) struct ManifestDecoder<'a> {
    pub(super) tools: &'a ToolCatalog,
    pub(super) diagnostics: &'a mut Diagnostics,
    /// Ids that are no valid node names: reported once, where they are defined.
    pub(super) invalid_ids: BTreeSet<String>,
}

/// The fields of a map while it is decoded; those that nobody took by the end are unknown.
pub(super) struct MapFields<'t> {
    pub(super) path: String,
    remaining: BTreeMap<&'t str, &'t YamlTree>,
    known_keys: Vec<&'static str>,
}

impl<'t> MapFields<'t> {
    /// Takes a field; its name counts as known from then on.
    pub(super) fn take_field(&mut self, key: &'static str) -> Option<&'t YamlTree> {
        self.known_keys.push(key);
        self.remaining.remove(key)
    }

    /// Returns a field that another decoder will take.
    pub(super) fn peek_field(&self, key: &str) -> Option<&'t YamlTree> {
        self.remaining.get(key).copied()
    }

    /// The path of a field, as `nodes[2].retry`.
    pub(super) fn field_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl ManifestDecoder<'_> {
    pub(super) fn add_error(&mut self, tree: &YamlTree, path: &str, message: impl Into<String>) {
        self.diagnostics.add_error(tree.position, path, message);
    }

    pub(super) fn add_warning(&mut self, tree: &YamlTree, path: &str, message: impl Into<String>) {
        self.diagnostics.add_warning(tree.position, path, message);
    }

    /// The fields of a map; another kind of value is reported.
    pub(super) fn map_fields<'t>(
        &mut self,
        tree: &'t YamlTree,
        path: &str,
    ) -> Option<MapFields<'t>> {
        let YamlKind::Map(fields) = &tree.kind else {
            self.add_error(tree, path, format!("must be a map, is {}", tree.kind_name()));
            return None;
        };
        let left = fields.iter().map(|(key, field)| (key.as_str(), field)).collect();
        Some(MapFields { path: path.to_owned(), remaining: left, known_keys: Vec::new() })
    }

    /// Reports the fields that nobody took, with the known ones and a spelling hint.
    pub(super) fn reject_unknown_fields(&mut self, fields: &MapFields<'_>) {
        for (key, tree) in &fields.remaining {
            let hint = self.diagnostics.spelling_hint(key, fields.known_keys.iter().copied());
            let known = fields.known_keys.join(", ");
            let message = format!("unknown key `{key}`{hint} (known: {known})");
            self.diagnostics.add_error(tree.position, &fields.field_path(key), message);
        }
    }

    /// Decodes text. Numbers and booleans are taken as text too: YAML types a plain `2` as a
    /// number.
    pub(super) fn decode_text(&mut self, tree: &YamlTree, path: &str) -> Option<String> {
        match &tree.kind {
            YamlKind::Scalar(Value::String(text)) => Some(text.clone()),
            // YAML types a plain `1` or `true`, which authors mean as text here.
            YamlKind::Scalar(value @ (Value::Number(_) | Value::Bool(_))) => {
                Some(value.to_string())
            }
            _ => {
                self.add_error(tree, path, format!("must be text, is {}", tree.kind_name()));
                None
            }
        }
    }

    /// Decodes a whole number from `min` to `max`.
    pub(super) fn decode_number(
        &mut self,
        tree: &YamlTree,
        path: &str,
        min: u64,
        max: u64,
    ) -> Option<u64> {
        let number = match &tree.kind {
            YamlKind::Scalar(value) => value.as_u64(),
            _ => None,
        };
        let number = number.filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.add_error(tree, path, format!("must be a whole number from {min} to {max}"));
        }
        number
    }

    /// Decodes text by the type's own parser, and reports the parser's error.
    pub(super) fn decode_parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        tree: &YamlTree,
        path: &str,
    ) -> Option<T> {
        match self.decode_text(tree, path)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add_error(tree, path, error.to_string());
                None
            }
        }
    }

    /// Decodes a node's id, which must be a name that expressions can use.
    pub(super) fn decode_node_id(&mut self, tree: &YamlTree, path: &str) -> Option<NodeId> {
        let text = self.decode_text(tree, path)?;
        let id = parse_node_name(&text);
        if id.is_none() {
            let rule = "1 to 40 characters of a-z, 0-9 and `_`, beginning with a letter";
            let suggestion = suggest_node_name(&text);
            let message = format!("`{text}` is not a node's name: use {rule}, as `{suggestion}`");
            self.add_error(tree, path, message);
        }
        id
    }

    /// Decodes the id of another node, and notes that it is referred to.
    pub(super) fn decode_target(
        &mut self,
        tree: &YamlTree,
        path: &str,
        mentions: &mut Mentions,
    ) -> Option<NodeId> {
        // Reported where the node is defined; a second error here would not help.
        if tree.as_str().is_some_and(|text| self.invalid_ids.contains(text)) {
            return None;
        }
        let id = self.decode_node_id(tree, path)?;
        let location = ManifestLocation { path: path.to_owned(), position: tree.position };
        mentions.targets.push(Mention { name: id.to_string(), location, is_guarded: true });
        Some(id)
    }

    /// Decodes one node id or a list of them.
    pub(super) fn decode_targets(
        &mut self,
        tree: &YamlTree,
        path: &str,
        mentions: &mut Mentions,
    ) -> Vec<NodeId> {
        let YamlKind::List(list) = &tree.kind else {
            return self.decode_target(tree, path, mentions).into_iter().collect();
        };
        let target =
            |(index, tree)| self.decode_target(tree, &format!("{path}[{index}]"), mentions);
        list.iter().enumerate().filter_map(target).collect()
    }

    /// Notes the names used by the templates within a value.
    pub(super) fn add_template_refs(
        &mut self,
        tree: &YamlTree,
        path: &str,
        mentions: &mut Mentions,
    ) {
        match &tree.kind {
            YamlKind::Scalar(Value::String(text)) => {
                self.add_expression_refs(tree, path, expr::refs_in_text(text), mentions);
            }
            YamlKind::Scalar(_) => {}
            YamlKind::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    self.add_template_refs(item, &format!("{path}[{index}]"), mentions);
                }
            }
            YamlKind::Map(fields) => {
                for (key, field) in fields {
                    self.add_template_refs(field, &format!("{path}.{key}"), mentions);
                }
            }
        }
    }

    /// Notes the names used by an expression, or reports why it cannot be parsed.
    pub(super) fn add_expression_refs(
        &mut self,
        tree: &YamlTree,
        path: &str,
        read: Result<ExprRefs, ExprError>,
        mentions: &mut Mentions,
    ) {
        match read {
            Ok(refs) => mentions.add_refs(tree, path, &refs),
            // The invalid id is the cause and has been reported.
            Err(_) if self.names_invalid_id(tree) => {}
            Err(error) => {
                let place = tree.position_of_line(error.line.unwrap_or(1));
                self.diagnostics.add_error(place, path, error.message);
            }
        }
    }

    /// True if an expression refers to a node by an invalid id, which is why it cannot be parsed.
    fn names_invalid_id(&self, tree: &YamlTree) -> bool {
        let text = tree.as_str().unwrap_or_default();
        self.invalid_ids.iter().any(|id| text.contains(&format!("nodes.{id}")))
    }

    /// Decodes a JSON Schema; one that the platform does not accept is reported.
    pub(super) fn decode_schema(&mut self, tree: &YamlTree, path: &str) -> Value {
        let schema = tree.to_value();
        if let Err(error) = check_schema(&schema) {
            self.add_error(tree, path, format!("not a JSON Schema: {error}"));
        }
        schema
    }
}

/// Decodes a text that may be a template, and notes the names that it uses.
pub(super) fn decode_template(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<String> {
    let text = decoder.decode_text(tree, path)?;
    decoder.add_template_refs(tree, path, mentions);
    Some(text)
}

/// Parses a node name: `a-z`, `0-9` and `_`, beginning with a letter.
pub(super) fn parse_node_name(text: &str) -> Option<NodeId> {
    let is_usable = text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.contains('-');
    text.parse().ok().filter(|_| is_usable)
}

/// Suggests the valid node name that is nearest to a text.
fn suggest_node_name(text: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let letters = text.to_ascii_lowercase();
    let letters: String = letters.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect();
    let name = letters.trim_matches('_');
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let name = if begins_well { name.to_owned() } else { format!("n{name}") };
    // The longest valid name has 40 characters.
    name.chars().take(40).collect()
}

impl ManifestDecoder<'_> {
    /// Decodes the limits of a run; those that are not given keep the values of `budget`.
    pub(super) fn decode_budget(
        &mut self,
        tree: &YamlTree,
        path: &str,
        mut budget: Budget,
    ) -> Budget {
        let Some(mut fields) = self.map_fields(tree, path) else { return budget };
        if let Some(tree) = fields.take_field("tokens") {
            let tokens = self.decode_number(tree, &fields.field_path("tokens"), 1, 1 << 40);
            budget.tokens = tokens.or(budget.tokens);
        }
        if let Some(tree) = fields.take_field("cost") {
            budget.cost = self.decode_parsed::<Money>(tree, &fields.field_path("cost"));
        }
        if let Some(tree) = fields.take_field("wall") {
            budget.wall =
                self.decode_parsed::<Span>(tree, &fields.field_path("wall")).or(budget.wall);
        }
        if let Some(tree) = fields.take_field("deadline") {
            budget.deadline = self.decode_parsed::<Span>(tree, &fields.field_path("deadline"));
        }
        self.reject_unknown_fields(&fields);
        budget
    }
}
