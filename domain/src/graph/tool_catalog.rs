//! The tools that validation knows: their names and the schemas of their arguments.

use std::collections::BTreeMap;

use serde_json::Value;

/// A tool that nodes and agents may call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Unique name, as `text.split`.
    pub name: String,
    /// Purpose in a sentence, shown to models.
    pub description: String,
    /// JSON Schema of its arguments: an object with `properties` and `required`.
    pub arguments: Value,
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
