//! The nodes and variables that an expression refers to, found without evaluating it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::template::{ENVIRONMENT, explain, sole_expression};
use super::tokens::{Form, scan};
use super::{ExprError, condition};
use crate::id::NodeId;

/// Names, each with the line, from 1, where it is first used.
pub type Named = BTreeMap<String, usize>;

/// Functions that templates can call.
const FUNCTIONS: [&str; 1] = ["range"];

/// Names that an expression uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs {
    /// Node names in `nodes.NAME` or `nodes["NAME"]`.
    pub nodes: Named,
    /// Other variables, by the first name of their path.
    pub variables: Named,
}

impl Refs {
    pub(super) fn node(&mut self, name: &str, line: usize) {
        self.nodes.entry(name.to_owned()).or_insert(line);
    }

    pub(super) fn variable(&mut self, name: &str, line: usize) {
        self.variables.entry(name.to_owned()).or_insert(line);
    }
}

/// Returns the names that a template uses.
///
/// # Errors
/// The template cannot be parsed, or could cost more than the limits allow.
pub fn refs_in_text(text: &str) -> Result<Refs, ExprError> {
    if !super::template::is_template(text) {
        return Ok(Refs::default());
    }
    super::template::check_length(text)?;
    let (mut refs, names) = match sole_expression(text) {
        Some(expression) => {
            let (refs, _) = scan(expression, Form::Expression)?;
            let compiled = ENVIRONMENT.compile_expression(expression);
            (refs, compiled.map_err(|error| explain(&error))?.undeclared_variables(false))
        }
        None => {
            let (refs, _) = scan(text, Form::Template)?;
            let compiled = ENVIRONMENT.template_from_str(text);
            (refs, compiled.map_err(|error| explain(&error))?.undeclared_variables(false))
        }
    };
    // The scan also collects loop variables and argument names. The library knows which names come
    // from outside.
    refs.variables
        .retain(|name, _| names.contains(name.as_str()) && !FUNCTIONS.contains(&name.as_str()));
    Ok(refs)
}

/// Returns the nodes that the strings within a checked value refer to.
pub fn nodes_in_value(value: &Value) -> Vec<NodeId> {
    match value {
        Value::String(text) => {
            let refs = refs_in_text(text).unwrap_or_default();
            refs.nodes.keys().filter_map(|node| node.parse().ok()).collect()
        }
        Value::Array(list) => list.iter().flat_map(nodes_in_value).collect(),
        Value::Object(fields) => fields.values().flat_map(nodes_in_value).collect(),
        _ => Vec::new(),
    }
}

/// Returns the names that a condition uses.
///
/// # Errors
/// The condition cannot be parsed, or could cost more than the limits allow.
pub fn refs_in_condition(source: &str) -> Result<Refs, ExprError> {
    condition::compile(source).and_then(|program| super::walk::refs(&program))
}
