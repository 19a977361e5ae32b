//! What must hold between nodes: references, branches, joins, fallbacks, no circles.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::{has_path_connecting, tarjan_scc};
use petgraph::graphmap::DiGraphMap;

use super::decode::Places;
use super::manifest::{Graph, Join, OnError, Work};
use super::mistake::{Mistakes, Place, hint};
use super::topology::{Edge, edges};
use crate::expr;
use crate::id::NodeId;

/// Checks the graph, and adds to each node's needs what its expressions refer to.
pub(super) fn check(graph: &mut Graph, places: &Places, mistakes: &mut Mistakes) {
    let mut check = Check { places, mistakes, numbers: BTreeMap::new() };
    check.names(graph);
    check.references(graph);
    check.fallbacks(graph);
    if check.mistakes.is_empty() {
        let edges = edges(graph);
        check.circles(graph, &edges);
        check.joins(graph, &edges);
        check.output(graph);
        check.unused(graph, &edges);
    }
}

struct Check<'a> {
    places: &'a Places,
    mistakes: &'a mut Mistakes,
    numbers: BTreeMap<NodeId, usize>,
}

impl Check<'_> {
    fn add(&mut self, node: usize, field: &str, message: impl Into<String>) {
        let place = self.places.nodes.get(node).copied().unwrap_or_default();
        let dot = if field.is_empty() { "" } else { "." };
        self.mistakes.add(place, &format!("nodes[{node}]{dot}{field}"), message);
    }

    fn names(&mut self, graph: &Graph) {
        for (number, node) in graph.nodes.iter().enumerate() {
            if let Some(first) = self.numbers.insert(node.id.clone(), number) {
                self.numbers.insert(node.id.clone(), first);
                let message = format!("`{}` is the name of nodes[{first}] too", node.id);
                self.add(number, "id", message);
            }
        }
    }

    fn known(&mut self, node: usize, field: &str, id: &str) -> bool {
        let known = self.numbers.keys().any(|known| known.as_str() == id);
        if !known {
            let hint = hint(id, self.numbers.keys().map(NodeId::as_str));
            self.add(node, field, format!("there is no node `{id}`{hint}"));
        }
        known
    }

    fn references(&mut self, graph: &mut Graph) {
        for number in 0..graph.nodes.len() {
            let node = graph.nodes[number].clone();
            for need in &node.needs {
                self.known(number, "needs", need.as_str());
            }
            if let Work::Branch(branch) = &node.work {
                let ways = branch.cases.iter().flat_map(|case| &case.to).chain(&branch.otherwise);
                for target in ways {
                    self.known(number, "branch", target.as_str());
                }
            }
            let refs = self.places.refs.get(number).cloned().unwrap_or_default();
            for id in &refs.nodes {
                self.reference(graph, number, id);
            }
            self.variables(number, &refs.variables);
        }
    }

    /// A node that an expression names is waited for.
    fn reference(&mut self, graph: &mut Graph, number: usize, id: &str) {
        if !self.known(number, "", id) {
            return;
        }
        let Ok(id) = id.parse::<NodeId>() else { return };
        let node = &mut graph.nodes[number];
        if node.id == id {
            self.add(number, "", format!("`{id}` refers to its own output"));
        } else if !node.needs.contains(&id) {
            node.needs.push(id);
        }
    }

    fn variables(&mut self, number: usize, variables: &BTreeSet<String>) {
        let known = ["inputs", "nodes"];
        for name in variables.iter().filter(|name| !known.contains(&name.as_str())) {
            let message = match name.as_str() {
                "item" | "index" => format!("`{name}` is known only inside of a map"),
                _ => format!(
                    "`{name}` is not known: use `inputs.NAME` or `nodes.NAME.output`{}",
                    hint(name, known.into_iter())
                ),
            };
            self.add(number, "", message);
        }
    }

    fn fallbacks(&mut self, graph: &Graph) {
        for (number, node) in graph.nodes.iter().enumerate() {
            let OnError::Fallback(other) = &node.on_error else { continue };
            if !self.known(number, "on_error", other.as_str()) {
                continue;
            }
            let target = graph.node(other);
            if *other == node.id {
                self.add(number, "on_error", "a node cannot be its own fallback");
            } else if target.is_some_and(|node| matches!(node.work, Work::Branch(_))) {
                self.add(number, "on_error", "a branch cannot be a fallback");
            }
        }
    }

    /// Needs, branch targets and fallbacks together must not lead back.
    fn circles(&mut self, graph: &Graph, edges: &[Edge]) {
        let mut map = as_map(graph, edges);
        for (from, node) in graph.nodes.iter().enumerate() {
            if let OnError::Fallback(other) = &node.on_error
                && let Some(to) = self.numbers.get(other)
            {
                map.add_edge(from, *to, ());
            }
        }
        for mut circle in tarjan_scc(&map) {
            if circle.len() < 2 && !circle.iter().any(|node| map.contains_edge(*node, *node)) {
                continue;
            }
            circle.sort_unstable();
            let names = circle.iter().map(|number| graph.nodes[*number].id.as_str());
            let names: Vec<_> = names.collect();
            let message = format!("the nodes {} wait for each other in a circle", names.join(", "));
            self.add(circle[0], "", message);
        }
    }

    /// A node that needs both sides of one branch can never have all of them.
    fn joins(&mut self, graph: &Graph, edges: &[Edge]) {
        if !self.mistakes.is_empty() {
            return;
        }
        let map = as_map(graph, edges);
        for (number, node) in graph.nodes.iter().enumerate() {
            let inputs: Vec<usize> =
                edges.iter().filter(|edge| edge.to == number).map(|edge| edge.from).collect();
            if let Join::AtLeast(count) = node.join
                && count as usize > inputs.len()
            {
                let message =
                    format!("waits for {count} of its {} inputs: there are fewer", inputs.len());
                self.add(number, "join", message);
            }
            if node.join == Join::All && self.is_torn(graph, edges, &map, &inputs) {
                let message = "needs both sides of a branch, and only one of them runs: \
                    add `join: any`";
                self.add(number, "join", message);
            }
        }
    }

    /// Whether two of the inputs lie on different sides of one branch, each reachable by its side
    /// alone.
    fn is_torn(
        &self,
        graph: &Graph,
        edges: &[Edge],
        map: &DiGraphMap<usize, ()>,
        inputs: &[usize],
    ) -> bool {
        let is_branch = |number: &usize| matches!(graph.nodes[*number].work, Work::Branch(_));
        (0..graph.nodes.len()).filter(is_branch).any(|branch| {
            let sides = |input: usize| -> BTreeSet<u32> {
                let out = edges.iter().filter(|edge| edge.from == branch);
                let leads = out.filter(|edge| {
                    edge.to == input
                        || (only_by_all(graph, input)
                            && has_path_connecting(map, edge.to, input, None))
                });
                leads.filter_map(|edge| edge.port).collect()
            };
            let sides: Vec<_> =
                inputs.iter().map(|input| sides(*input)).filter(|s| !s.is_empty()).collect();
            sides.iter().any(|a| sides.iter().any(|b| a.is_disjoint(b)))
        })
    }

    fn output(&mut self, graph: &Graph) {
        let Some(output) = &graph.output else { return };
        let refs = expr::refs_in_value(output).unwrap_or_default();
        for id in &refs.nodes {
            if !self.numbers.keys().any(|known| known.as_str() == id) {
                let hint = hint(id, self.numbers.keys().map(NodeId::as_str));
                self.at_output(format!("there is no node `{id}`{hint}"));
            }
        }
        for name in refs.variables.iter().filter(|name| *name != "inputs" && *name != "nodes") {
            self.at_output(format!("`{name}` is not known here: use inputs and nodes"));
        }
    }

    /// A node whose output nobody uses is probably forgotten, unless it waits or asks.
    fn unused(&mut self, graph: &Graph, edges: &[Edge]) {
        let refs = graph.output.as_ref().map(expr::refs_in_value);
        let named = refs.and_then(Result::ok).unwrap_or_default().nodes;
        for (number, node) in graph.nodes.iter().enumerate() {
            let is_work = matches!(node.work, Work::Agent(_) | Work::Tool(_) | Work::Map(_));
            let leads_on = edges.iter().any(|edge| edge.from == number);
            let replaces = graph
                .nodes
                .iter()
                .any(|other| other.on_error == OnError::Fallback(node.id.clone()));
            if is_work && !leads_on && !replaces && !named.contains(node.id.as_str()) {
                let place = self.places.nodes.get(number).copied().unwrap_or_default();
                let message = format!("nothing uses the output of `{}`", node.id);
                self.mistakes.warn(place, &format!("nodes[{number}]"), message);
            }
        }
    }

    fn at_output(&mut self, message: String) {
        let place: Place = self.places.output;
        self.mistakes.add(place, "output", message);
    }
}

/// Whether everything on the way to the node needs all its inputs: then a skipped one skips it.
fn only_by_all(graph: &Graph, node: usize) -> bool {
    graph.nodes[node].join == Join::All
}

fn as_map(graph: &Graph, edges: &[Edge]) -> DiGraphMap<usize, ()> {
    let mut map = DiGraphMap::new();
    for number in 0..graph.nodes.len() {
        map.add_node(number);
    }
    for edge in edges {
        map.add_edge(edge.from, edge.to, ());
    }
    map
}
