//! The values that expressions see: `inputs`, `nodes` and, inside of a map, `item` and `index`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::weight::ValueWeight;
use crate::id::NodeId;

/// Bytes that a node counts among the values of a text, besides its output.
const NODE_VIEW_BYTES: u64 = 1024;

/// A node as expressions see it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// One of `completed`, `failed`, `skipped` or `pending`.
    pub status: &'static str,
    /// Output of the node; undefined in expressions when absent.
    pub output: Option<Arc<Value>>,
}

/// Values that one evaluation sees.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExprScope {
    /// Inputs of the run, an object.
    pub inputs: Arc<Value>,
    /// Nodes that the evaluated node waits for.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Item of the enclosing map, and its `index`.
    pub item: Option<(Value, u32)>,
}

impl ExprScope {
    /// Returns the values that a text may use, as one object. Values whose name is not in the text
    /// are left out, so that a long document is not copied for a template that does not use it.
    pub(super) fn values_for(&self, text: &str) -> Map<String, Value> {
        let mut values = Map::new();
        let named = |name: &str| text.contains(name);
        if named("inputs") {
            values.insert("inputs".into(), Value::clone(&self.inputs));
        }
        if named("nodes") {
            let nodes = self.nodes.iter().filter(|(id, _)| named(id.as_str()));
            let nodes: Map<_, _> =
                nodes.map(|(id, view)| (id.as_str().to_owned(), view.to_json())).collect();
            values.insert("nodes".into(), Value::Object(nodes));
        }
        if let Some((item, index)) = &self.item {
            values.insert("item".into(), item.clone());
            values.insert("index".into(), json!(index));
        }
        values
    }
}

impl ExprScope {
    /// Returns the weight of the values that [`Self::values_for`] would return.
    pub(super) fn weight_for(&self, text: &str, limit: u64) -> ValueWeight {
        let mut weight = ValueWeight::default();
        let named = |name: &str| text.contains(name);
        if named("inputs") {
            weight.add_value(&self.inputs, limit);
        }
        if named("nodes") {
            for (_, view) in self.nodes.iter().filter(|(id, _)| named(id.as_str())) {
                weight.add_value(view.output.as_deref().unwrap_or(&Value::Null), limit);
                weight.bytes += NODE_VIEW_BYTES;
            }
        }
        if let Some((item, _)) = &self.item {
            weight.add_value(item, limit);
        }
        weight
    }

    /// Returns the value of a plain path like `inputs.text` or `nodes.a.output`, without a copy;
    /// `None` for any other expression and for an undefined path.
    pub(super) fn find_value(&self, expression: &str) -> Option<&Value> {
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
    fn to_json(&self) -> Value {
        match &self.output {
            Some(output) => json!({"status": self.status, "output": **output}),
            None => json!({"status": self.status}),
        }
    }
}
