//! Which nodes and variables an expression refers to, without evaluating it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::template::{check_size, environment, explain, sole_expression};
use super::{ExprError, check_condition};
use crate::id::NodeId;

/// What an expression names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs {
    /// Nodes, by `nodes.NAME`.
    pub nodes: BTreeSet<String>,
    /// Other variables, by their first name.
    pub variables: BTreeSet<String>,
}

impl Refs {
    fn add(&mut self, path: &str) {
        let mut parts = path.split('.');
        match (parts.next(), parts.next()) {
            (Some("nodes"), Some(node)) => self.nodes.insert(node.to_owned()),
            (Some(name), _) => self.variables.insert(name.to_owned()),
            (None, _) => false,
        };
    }

    /// Takes another's names in.
    pub fn merge(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.variables.extend(other.variables);
    }
}

/// What a template names.
///
/// # Errors
/// The template cannot be read.
pub fn refs_in_text(text: &str) -> Result<Refs, ExprError> {
    check_size(text)?;
    let environment = environment();
    let names = match sole_expression(text) {
        Some(expression) => environment
            .compile_expression(expression)
            .map_err(|error| explain(&error))?
            .undeclared_variables(true),
        None => environment
            .template_from_str(text)
            .map_err(|error| explain(&error))?
            .undeclared_variables(true),
    };
    let mut refs = Refs::default();
    for name in names {
        refs.add(&name);
    }
    // The library names no paths below a slice or a call; the text does.
    for path in blocks(text).into_iter().flat_map(paths) {
        if path.starts_with("nodes.") {
            refs.add(&path);
        }
    }
    Ok(refs)
}

/// The expressions and statements of a template.
fn blocks(text: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    for (open, close) in [("{{", "}}"), ("{%", "%}")] {
        let parts = text.split(open).skip(1);
        blocks.extend(parts.filter_map(|part| part.split_once(close)).map(|(inner, _)| inner));
    }
    blocks
}

/// What the strings within a value name.
///
/// # Errors
/// One of them cannot be read.
pub fn refs_in_value(value: &Value) -> Result<Refs, ExprError> {
    let mut refs = Refs::default();
    match value {
        Value::String(text) => refs = refs_in_text(text)?,
        Value::Array(list) => {
            for item in list {
                refs.merge(refs_in_value(item)?);
            }
        }
        Value::Object(fields) => {
            for field in fields.values() {
                refs.merge(refs_in_value(field)?);
            }
        }
        _ => {}
    }
    Ok(refs)
}

/// The nodes that a checked value refers to.
pub fn nodes_in_value(value: &Value) -> Vec<NodeId> {
    let refs = refs_in_value(value).unwrap_or_default();
    refs.nodes.iter().filter_map(|node| node.parse().ok()).collect()
}

/// What a condition names.
///
/// # Errors
/// The condition cannot be read.
pub fn refs_in_condition(source: &str) -> Result<Refs, ExprError> {
    check_condition(source)?;
    let mut refs = Refs::default();
    for path in paths(source) {
        refs.add(&path);
    }
    Ok(refs)
}

/// The dotted names of a condition, strings left out. Function names and fields after a call are
/// among them; they do no harm.
fn paths(source: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut path = String::new();
    let mut quote = None;
    let mut escaped = false;
    for letter in source.chars().chain([' ']) {
        if let Some(open) = quote {
            let closes = letter == open && !escaped;
            escaped = letter == '\\' && !escaped;
            if closes {
                quote = None;
            }
        } else if letter.is_alphanumeric() || letter == '_' || letter == '.' {
            path.push(letter);
        } else {
            if path.starts_with("nodes.") || path.starts_with("inputs") {
                paths.push(std::mem::take(&mut path));
            }
            path.clear();
            quote = (letter == '"' || letter == '\'').then_some(letter);
        }
    }
    paths
}
