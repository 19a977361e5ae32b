//! The graph noun: manifests, their validation and their versions.
//!
//! [`parse_manifest`] runs three stages, of which none calls a later one:
//!
//! - `yaml`: text to a tree of values with positions; `diagnostic`: errors and warnings by
//!   position.
//! - `decoder` and the `decode_*` files: tree to [`manifest::Graph`], one file a kind of node;
//!   `field_rules` refuses fields that a kind of node ignores.
//! - `graph_check`: rules between nodes, by `cycle`, `branch_exclusion` and `topology` (edges).
//!
//! Beside them: `manifest` (the types), `versions` (the [`GraphNoun`] rules and the version hash),
//! `tool_catalog` (tools a manifest may name), `grants` (limits of a proposed graph), and
//! `schema_check`, `schema_refs`, `schema_cost` (JSON Schemas and the bounds of checking them).
//!
//! Nothing here evaluates a template or a condition, reads a log or knows a run's state:
//! expressions are only parsed for the names that they use (`crate::expr`).

mod call;
mod check;
mod circle;
mod decide;
mod decode;
mod field_rules;
mod grants;
mod inputs;
pub mod manifest;
mod mistake;
mod nested;
mod nodes;
mod retry;
mod schema_refs;
mod schema_work;
mod sides;
mod source;
mod toolbox;
mod tools;
pub mod topology;
mod waiting;

pub use decide::{GraphNoun, GraphState, Never, Register, graph_id};
pub use grants::find_beyond_grants;
pub use inputs::{check_inputs, check_inputs_within};
pub use mistake::{Mistake, Parsed};
pub use nodes::NODE_KINDS;
pub use tools::{ToolCatalog, ToolSpec};

use mistake::Mistakes;

/// Parses a manifest, YAML or JSON, and checks everything that can be checked before it runs.
///
/// # Errors
/// Every error found, sorted by position, at most 100 of them.
pub fn parse(text: &str, tools: &ToolCatalog) -> Result<Parsed, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let tree = source::read(text).map_err(|mistake| vec![mistake])?;
    let decoded = decode::graph(&tree, tools, &mut mistakes);
    if let Some((mut graph, places)) = decoded {
        check::check(&mut graph, &places, &mut mistakes);
        if mistakes.is_empty() {
            return Ok(Parsed { graph, warnings: mistakes.warnings() });
        }
    }
    Err(mistakes.sorted())
}

/// Largest manifest in bytes that [`parse_manifest_if_small`] takes.
const SMALL_BYTES: usize = 16 << 10;

/// Parses a manifest if its validation is cheap whatever it contains; `None` if it might not be.
///
/// Schema references and patterns are what makes a short manifest expensive to check. They are
/// looked for as text: a backslash is refused as well, since an escape could hide their names.
pub fn parse_if_small(text: &str, tools: &ToolCatalog) -> Option<Result<Parsed, Vec<Mistake>>> {
    let is_dear = |mark: &str| text.contains(mark);
    let is_small = text.len() <= SMALL_BYTES
        // A hit within a plain text only sends the manifest to a worker: no parsing is needed to
        // decide.
        && !["\\", "$ref", "$dynamic", "$recursive", "pattern", "unevaluated"]
            .into_iter()
            .any(is_dear);
    is_small.then(|| parse(text, tools))
}

/// Reads a manifest's text as a plain value, within the limits of size and depth.
///
/// # Errors
/// The text is not readable as YAML or JSON.
pub fn to_value(text: &str) -> Result<serde_json::Value, Mistake> {
    source::read(text).map(|tree| tree.value())
}
