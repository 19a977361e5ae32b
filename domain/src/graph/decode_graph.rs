//! Decoding of a whole graph: its own fields, and the list of its nodes.

use std::collections::BTreeSet;

use serde_json::json;

use super::decode_node;
use super::decoder::{GraphLocations, ManifestDecoder, parse_node_name};
use super::diagnostic::Diagnostics;
use super::manifest::Graph;
use super::tool_catalog::ToolCatalog;
use super::yaml::{YamlKind, YamlTree};
use crate::id::Name;
use crate::run::Budget;

/// Decodes a graph; `None` when there are no nodes to be checked further.
pub(super) fn decode_graph(
    tree: &YamlTree,
    tools: &ToolCatalog,
    diagnostics: &mut Diagnostics,
) -> Option<(Graph, GraphLocations)> {
    let invalid_ids = find_invalid_ids(tree);
    let mut decoder = ManifestDecoder { tools, diagnostics, invalid_ids };
    let mut fields = decoder.map_fields(tree, "")?;
    let name = match fields.take_field("name") {
        Some(tree) => decoder.decode_parsed::<Name>(tree, "name").map(String::from),
        None => {
            decoder.add_error(tree, "name", "missing: give the graph a name, as `name: brief`");
            None
        }
    };
    let description =
        fields.take_field("description").and_then(|t| decoder.decode_text(t, "description"));
    let inputs = match fields.take_field("inputs") {
        Some(tree) => decoder.decode_schema(tree, "inputs"),
        None => json!({"type": "object"}),
    };
    let budget = fields.take_field("budget");
    let budget = budget.map(|tree| decoder.decode_budget(tree, "budget", Budget::default()));
    let mut locations = GraphLocations::default();
    let output = fields.take_field("output").map(|tree| {
        decoder.add_template_refs(tree, "output", &mut locations.output);
        tree.to_value()
    });
    let nodes = match fields.take_field("nodes") {
        Some(tree) => decode_node::decode_nodes(&mut decoder, tree, &mut locations),
        None => {
            decoder.add_error(tree, "nodes", "missing: a graph has at least one node");
            None
        }
    };
    decoder.reject_unknown_fields(&fields);
    // Errors have been reported: the graph only serves the checks that follow.
    let name = name.unwrap_or_default();
    let budget = budget.unwrap_or_default();
    let graph = Graph { name, description, inputs, budget, nodes: nodes?, output };
    Some((graph, locations))
}

/// The ids of a graph's nodes that are no valid names.
fn find_invalid_ids(tree: &YamlTree) -> BTreeSet<String> {
    let Some(YamlKind::List(nodes)) = tree.find_field("nodes").map(|nodes| &nodes.kind) else {
        return BTreeSet::new();
    };
    let ids = nodes.iter().filter_map(|node| node.find_field("id").and_then(YamlTree::as_str));
    ids.filter(|id| parse_node_name(id).is_none()).map(str::to_owned).collect()
}
