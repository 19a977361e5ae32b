//! The graph noun: manifests, their validation and their versions.

mod call;
mod check;
mod circle;
mod decide;
mod decode;
mod field_rules;
mod inputs;
pub mod manifest;
mod mistake;
mod nested;
mod nodes;
mod retry;
mod sides;
mod source;
mod toolbox;
mod tools;
pub mod topology;
mod waiting;

pub use decide::{GraphNoun, GraphState, Never, Register, graph_id};
pub use inputs::check_inputs;
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

/// A manifest's text as a plain value, within the limits of size and depth.
///
/// # Errors
/// It is not readable as YAML or JSON.
pub fn to_value(text: &str) -> Result<serde_json::Value, Mistake> {
    source::read(text).map(|tree| tree.value())
}
