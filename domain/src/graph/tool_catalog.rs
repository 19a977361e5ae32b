//! The tools that validation knows: their names and the schemas of their arguments.

use std::collections::BTreeMap;

use serde_json::Value;

/// Trace that a call of a tool leaves beside its answer. A tool that leaves any is called only
/// after its intent is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolEffect {
    /// None: the answer follows from the arguments and from the time at which the step began.
    #[default]
    Pure,
    /// Something outside is read or changed; the same call under the same idempotency key changes
    /// nothing more.
    Idempotent,
    /// Something outside is changed by each call.
    Once,
}

/// A tool that nodes and agents may call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Unique name, as `text.split`.
    pub name: String,
    /// Purpose in a sentence, shown to models.
    pub description: String,
    /// JSON Schema of its arguments: an object with `properties` and `required`.
    pub arguments: Value,
    /// Declared effect of a call.
    pub effect: ToolEffect,
}

/// The tools that manifests may call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCatalog {
    tools: BTreeMap<String, ToolSpec>,
}

impl ToolCatalog {
    /// Builds a catalogue; of two tools with one name the last one counts.
    pub fn new(tools: Vec<ToolSpec>) -> Self {
        Self { tools: tools.into_iter().map(|tool| (tool.name.clone(), tool)).collect() }
    }

    /// Returns the tool of a name.
    pub fn get(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.get(name)
    }

    /// All tools in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &ToolSpec> {
        self.tools.values()
    }

    pub(super) fn tool_names(&self) -> impl Iterator<Item = &str> {
        self.tools.keys().map(String::as_str)
    }
}
