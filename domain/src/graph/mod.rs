//! The graph noun: manifests, their validation and their versions.

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

/// Reads a manifest, YAML or JSON, and checks everything that can be checked before it runs.
///
/// # Errors
/// Every mistake, by path and line.
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

/// Bytes of a manifest that is read where it is asked for.
const SMALL_BYTES: usize = 16 << 10;

/// The same, if it costs little in any case; nothing if it may cost more. References and patterns
/// of schemas are what can make a short manifest dear, and an escape can hide their names.
pub fn parse_if_small(text: &str, tools: &ToolCatalog) -> Option<Result<Parsed, Vec<Mistake>>> {
    let is_dear = |mark: &str| text.contains(mark);
    let is_small = text.len() <= SMALL_BYTES
        && !["\\", "$ref", "$dynamic", "$recursive", "pattern", "unevaluated"]
            .into_iter()
            .any(is_dear);
    is_small.then(|| parse(text, tools))
}

/// A manifest's text as a plain value, within the limits of size and depth.
///
/// # Errors
/// It is not readable as YAML or JSON.
pub fn to_value(text: &str) -> Result<serde_json::Value, Mistake> {
    source::read(text).map(|tree| tree.value())
}
