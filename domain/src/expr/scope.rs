//! What expressions see: `inputs`, `nodes`, and inside of a map `item` and `index`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::weight::Weight;
use crate::id::NodeId;

/// Bytes that a node takes among the values of a text, besides its output.
const NODE_VIEW_BYTES: u64 = 1024;

/// A node as expressions see it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// `completed`, `failed`, `skipped` or `pending`.
    pub status: &'static str,
    /// What it yielded; undefined when absent.
    pub output: Option<Arc<Value>>,
}

/// The values of one rendering.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope {
    /// The run's inputs.
    pub inputs: Arc<Value>,
    /// The nodes that are waited for.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// The map's item and its number.
    pub item: Option<(Value, u32)>,
}

impl Scope {
    /// The values that a text may mean, as one object. What the text does not name is left out: a
    /// long document is not copied for a template that does not use it.
    pub(super) fn values_for(&self, text: &str) -> Map<String, Value> {
        let mut values = Map::new();
        let named = |name: &str| text.contains(name);
        if named("inputs") {
            values.insert("inputs".into(), Value::clone(&self.inputs));
        }
        if named("nodes") {
            let nodes = self.nodes.iter().filter(|(id, _)| named(id.as_str()));
            let nodes: Map<_, _> =
                nodes.map(|(id, view)| (id.as_str().to_owned(), view.value())).collect();
            values.insert("nodes".into(), Value::Object(nodes));
        }
        if let Some((item, index)) = &self.item {
            values.insert("item".into(), item.clone());
            values.insert("index".into(), json!(index));
        }
        values
    }
}

impl Scope {
    /// The weight of the values that a text may mean, as [`Self::values_for`] takes them.
    pub(super) fn weight_for(&self, text: &str, limit: u64) -> Weight {
        let mut weight = Weight::default();
        let named = |name: &str| text.contains(name);
        if named("inputs") {
            weight.add(&self.inputs, limit);
        }
        if named("nodes") {
            for (_, view) in self.nodes.iter().filter(|(id, _)| named(id.as_str())) {
                weight.add(view.output.as_deref().unwrap_or(&Value::Null), limit);
                weight.bytes += NODE_VIEW_BYTES;
            }
        }
        if let Some((item, _)) = &self.item {
            weight.add(item, limit);
        }
        weight
    }

    /// The value that a plain name like `inputs.text` or `nodes.a.output` means; `None` for any
    /// other expression, and for what is not defined.
    pub(super) fn named(&self, expression: &str) -> Option<&Value> {
        let mut names = expression.split('.');
        let (first, mut names) = (names.next()?, names.map(|name| is_name(name).then_some(name)));
        let mut value: &Value = match first {
            "inputs" => &self.inputs,
            "item" => &self.item.as_ref()?.0,
            "nodes" => {
                let wanted = names.next()??;
                let node = self.nodes.iter().find(|(id, _)| id.as_str() == wanted)?.1;
                match names.next()?? {
                    "output" => node.output.as_deref()?,
                    _ => return None,
                }
            }
            _ => return None,
        };
        for name in names {
            value = value.as_object()?.get(name?)?;
        }
        Some(value)
    }
}

fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let mut bytes = text.bytes();
    bytes.next().is_some_and(is_letter)
        && bytes.all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

impl NodeView {
    fn value(&self) -> Value {
        match &self.output {
            Some(output) => json!({"status": self.status, "output": **output}),
            None => json!({"status": self.status}),
        }
    }
}
