//! What validation must know of tools: their names and the shape of their arguments.

use std::collections::BTreeMap;

use serde_json::Value;

/// A tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name, as `text.split`.
    pub name: String,
    /// What it does, in a sentence.
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
    /// A catalogue of these tools.
    pub fn new(tools: Vec<ToolSpec>) -> Self {
        Self { tools: tools.into_iter().map(|tool| (tool.name.clone(), tool)).collect() }
    }

    /// The tool of a name.
    pub fn get(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.get(name)
    }

    /// All tools, by name.
    pub fn iter(&self) -> impl Iterator<Item = &ToolSpec> {
        self.tools.values()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tools.keys().map(String::as_str)
    }
}
