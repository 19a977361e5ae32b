//! The graph noun: manifests, their validation and their versions.
//!
//! [`parse_manifest`] runs three stages, of which none calls a later one:
//!
//! - `yaml`: text to a tree of values with positions; `diagnostic`: errors and warnings by
//!   position.
//! - `decode_graph` and the `decode_*` files below it: tree to [`manifest::Graph`], one file a kind
//!   of node; `decoder`: what they share; `field_rules` refuses fields that a kind of node ignores.
//! - `graph_check`: rules between nodes, by `cycle`, `branch_exclusion` and `topology` (edges).
//!
//! Beside them: `manifest` (the types), `versions` (the [`GraphNoun`] rules and the version hash),
//! [`event`] (its events),
//! `tool_catalog` (tools a manifest may name), `grants` (limits of a proposed graph), and
//! `schema_check`, `schema_refs`, `schema_cost` (JSON Schemas and the bounds of checking them).
//!
//! Nothing here evaluates a template or a condition, reads a log or knows a run's state:
//! expressions are only parsed for the names that they use (`crate::expr`).

mod branch_exclusion;
mod cycle;
mod decode_agent;
mod decode_graph;
mod decode_node;
mod decode_retry;
mod decode_signal;
mod decode_sub_graph;
mod decode_tool;
mod decode_toolbox;
mod decoder;
mod diagnostic;
pub mod event;
mod field_rules;
mod grants;
mod graph_check;
pub mod manifest;
mod schema_check;
mod schema_cost;
mod schema_refs;
mod tool_catalog;
pub mod topology;
mod versions;
mod yaml;

pub use decode_node::NODE_KINDS;
pub use diagnostic::{Diagnostic, ValidManifest};
pub use grants::find_ungranted_uses;
pub use schema_check::{check_inputs, check_inputs_within};
pub use tool_catalog::{ToolCatalog, ToolEffect, ToolSpec};
pub use versions::{GraphNoun, GraphRejection, GraphState, RegisterGraph, graph_id};

use diagnostic::Diagnostics;

/// Parses a manifest, YAML or JSON, and checks everything that can be checked before it runs.
///
/// # Errors
/// Every error found, sorted by position, at most 100 of them.
pub fn parse_manifest(text: &str, tools: &ToolCatalog) -> Result<ValidManifest, Vec<Diagnostic>> {
    let mut diagnostics = Diagnostics::default();
    let tree = yaml::parse_yaml(text).map_err(|mistake| vec![mistake])?;
    let decoded = decode_graph::decode_graph(&tree, tools, &mut diagnostics);
    if let Some((mut graph, places)) = decoded {
        graph_check::check_graph(&mut graph, &places, &mut diagnostics);
        if diagnostics.is_empty() {
            return Ok(ValidManifest { graph, warnings: diagnostics.into_warnings() });
        }
    }
    Err(diagnostics.into_sorted_errors())
}

/// Largest manifest in bytes that [`parse_manifest_if_small`] takes.
const SMALL_MANIFEST_BYTES: usize = 16 << 10;

/// Parses a manifest if its validation is cheap whatever it contains; `None` if it might not be.
///
/// Schema references and patterns are what makes a short manifest expensive to check. They are
/// looked for as text: a backslash is refused as well, since an escape could hide their names.
pub fn parse_manifest_if_small(
    text: &str,
    tools: &ToolCatalog,
) -> Option<Result<ValidManifest, Vec<Diagnostic>>> {
    let contains_mark = |costly_mark: &str| text.contains(costly_mark);
    let is_small = text.len() <= SMALL_MANIFEST_BYTES
        // A hit within a plain text only sends the manifest to a worker: no parsing is needed to
        // decide.
        && !["\\", "$ref", "$dynamic", "$recursive", "pattern", "unevaluated"]
            .into_iter()
            .any(contains_mark);
    is_small.then(|| parse_manifest(text, tools))
}

/// Reads a manifest's text as a plain value, within the limits of size and depth.
///
/// # Errors
/// The text is not readable as YAML or JSON.
pub fn manifest_to_value(text: &str) -> Result<serde_json::Value, Diagnostic> {
    yaml::parse_yaml(text).map(|tree| tree.to_value())
}
