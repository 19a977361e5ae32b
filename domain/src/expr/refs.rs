//! The nodes and variables that an expression refers to, found without evaluating it.

use serde_json::Value;

use super::condition;
use super::error::ExprError;
use super::expr_refs::ExprRefs;
use super::template::{ENVIRONMENT, explain_template_error, sole_expression};
use super::token_scan::{SourceForm, scan_text};
use crate::id::NodeId;

/// Functions that templates can call.
const TEMPLATE_FUNCTIONS: [&str; 1] = ["range"];

/// Returns the names that a template uses.
///
/// # Errors
/// The template cannot be parsed, or could cost more than the limits allow.
pub fn refs_in_text(text: &str) -> Result<ExprRefs, ExprError> {
    if !super::template::is_template(text) {
        return Ok(ExprRefs::default());
    }
    super::template::check_length(text)?;
    let (mut refs, names) = match sole_expression(text) {
        Some(expression) => {
            let (refs, _) = scan_text(expression, SourceForm::Expression)?;
            let compiled = ENVIRONMENT.compile_expression(expression);
            (
                refs,
                compiled
                    .map_err(|error| explain_template_error(&error))?
                    .undeclared_variables(false),
            )
        }
        None => {
            let (refs, _) = scan_text(text, SourceForm::Template)?;
            let compiled = ENVIRONMENT.template_from_str(text);
            (
                refs,
                compiled
                    .map_err(|error| explain_template_error(&error))?
                    .undeclared_variables(false),
            )
        }
    };
    // The scan also collects loop variables and argument names. The library knows which names come
    // from outside.
    refs.variables.retain(|name, _| {
        names.contains(name.as_str()) && !TEMPLATE_FUNCTIONS.contains(&name.as_str())
    });
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
pub fn refs_in_condition(source: &str) -> Result<ExprRefs, ExprError> {
    condition::compile_condition(source)
        .and_then(|program| super::condition_refs::collect_program_refs(&program))
}
