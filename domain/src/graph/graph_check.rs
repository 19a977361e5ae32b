//! Rules between nodes: references, branches, joins and fallbacks are valid, and there are no
//! cycles.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graphmap::DiGraphMap;

use super::branch_exclusion::nodes_on_exclusive_sides;
use super::cycle::find_cycles;
use super::decoder::{GraphLocations, Mention, Mentions};
use super::diagnostic::Diagnostics;
use super::manifest::{Graph, Join, NodeWork, OnError};
use super::topology::{Edge, graph_edges};
use crate::time::Span;

/// Checks the graph, and adds to each node's `needs` the nodes that its expressions refer to.
pub(super) fn check_graph(
    graph: &mut Graph,
    locations: &GraphLocations,
    diagnostics: &mut Diagnostics,
) {
    let mut check = GraphCheck { locations, diagnostics, node_indices: BTreeMap::new() };
    // Names first: every other rule looks nodes up by name.
    check.check_names(graph);
    for number in 0..graph.nodes.len() {
        check.check_mentions(graph, &locations.mentions[number], Some(number));
    }
    check.check_mentions(graph, &locations.output, None);
    check.check_fallbacks(graph);
    let edges = graph_edges(graph);
    // The later checks walk the edges in topological order: with a cycle, or with nodes missing,
    // they would report errors that are not there.
    if !check.report_cycles(graph, &edges) && !locations.is_partial {
        check.check_joins(graph, &edges);
        check.warn_unused_outputs(graph, &edges);
        check.warn_unguarded_outputs(graph, &edges);
    }
    check.warn_long_waits(graph);
}

struct GraphCheck<'a> {
    locations: &'a GraphLocations,
    diagnostics: &'a mut Diagnostics,
    node_indices: BTreeMap<String, usize>,
}

impl GraphCheck<'_> {
    fn report_node(&mut self, node: usize, field: &str, message: impl Into<String>) {
        let at = &self.locations.nodes[node];
        let dot = if field.is_empty() { "" } else { "." };
        self.diagnostics.add_error(at.position, &format!("{}{dot}{field}", at.path), message);
    }

    /// Reports an error at the place where a name is used.
    fn report_mention(&mut self, mention: &Mention, message: impl Into<String>) {
        self.diagnostics.add_error(mention.location.position, &mention.location.path, message);
    }

    fn check_names(&mut self, graph: &Graph) {
        for (number, node) in graph.nodes.iter().enumerate() {
            match self.node_indices.get(node.id.as_str()) {
                Some(first) => {
                    let other = &self.locations.nodes[*first].path;
                    let message = format!("`{}` is the name of {other} too", node.id);
                    self.report_node(number, "id", message);
                }
                None => {
                    self.node_indices.insert(node.id.to_string(), number);
                }
            }
        }
    }

    /// Returns the node that a name refers to; an unknown name is reported.
    fn find_node(&mut self, mention: &Mention) -> Option<usize> {
        let number = self.node_indices.get(&mention.name).copied();
        if number.is_none() && !self.is_part_of_broken_node(&mention.name) {
            let names = self.node_indices.keys().map(String::as_str);
            let hint = self.diagnostics.spelling_hint(&mention.name, names);
            self.report_mention(mention, format!("there is no node `{}`{hint}", mention.name));
        }
        number
    }

    /// True if a name is that of a node that failed to decode, or a part of it: expressions read
    /// the hyphen of `fetch-page` as a minus, so that only `fetch` arrives here.
    fn is_part_of_broken_node(&self, name: &str) -> bool {
        let mut broken = self.locations.broken_nodes.iter();
        broken.any(|broken| broken == name || broken.split('-').any(|part| part == name))
    }

    /// Checks every name that a node, or the graph's output if `node` is `None`, uses.
    fn check_mentions(&mut self, graph: &mut Graph, mentions: &Mentions, node: Option<usize>) {
        for target in &mentions.targets {
            self.find_node(target);
        }
        for mention in &mentions.nodes {
            if let Some(named) = self.find_node(mention) {
                self.add_dependency(graph, mention, named, node);
            }
        }
        for mention in &mentions.variables {
            self.check_variable(mention);
        }
    }

    /// Makes a node wait for the node whose output it uses.
    fn add_dependency(
        &mut self,
        graph: &mut Graph,
        mention: &Mention,
        named: usize,
        node: Option<usize>,
    ) {
        let name = &mention.name;
        if matches!(graph.nodes[named].work, NodeWork::Branch(_)) {
            let message =
                format!("`{name}` is a branch and has no output: refer to a node that it leads to");
            return self.report_mention(mention, message);
        }
        // The graph's output waits for every node anyway.
        let Some(node) = node else { return };
        if named == node {
            return self.report_mention(mention, format!("`{name}` refers to its own output"));
        }
        let id = graph.nodes[named].id.clone();
        let needs = &mut graph.nodes[node].needs;
        if !needs.contains(&id) {
            needs.push(id);
        }
    }

    fn check_variable(&mut self, mention: &Mention) {
        let name = mention.name.as_str();
        let message = match name {
            "inputs" | "nodes" => return,
            _ if self.is_part_of_broken_node(name) => return,
            "item" | "index" => format!("`{name}` is known only inside of a map"),
            _ => {
                let hint = self.diagnostics.spelling_hint(name, ["inputs", "nodes"].into_iter());
                format!("`{name}` is not known: use `inputs.NAME` or `nodes.NAME.output`{hint}")
            }
        };
        self.report_mention(mention, message);
    }

    fn check_fallbacks(&mut self, graph: &Graph) {
        for (number, node) in graph.nodes.iter().enumerate() {
            let OnError::Fallback(other) = &node.on_error else { continue };
            let Some(target) = graph.find_node(other) else { continue };
            if *other == node.id {
                self.report_node(number, "on_error.fallback", "a node cannot be its own fallback");
            } else if matches!(target.work, NodeWork::Branch(_)) {
                self.report_node(number, "on_error.fallback", "a branch cannot be a fallback");
            }
        }
    }

    /// Reports cycles over needs, branch targets and fallbacks together. Returns whether there are
    /// any.
    fn report_cycles(&mut self, graph: &Graph, edges: &[Edge]) -> bool {
        let mut map = DiGraphMap::<usize, ()>::new();
        for edge in edges {
            map.add_edge(edge.from, edge.to, ());
        }
        for (from, node) in graph.nodes.iter().enumerate() {
            if let OnError::Fallback(other) = &node.on_error
                // Fallbacks are no edges of the schedule, but a fallback that leads back would
                // never start.
                && let Some(to) = self.node_indices.get(other.as_str())
            {
                map.add_edge(from, *to, ());
            }
        }
        let circles = find_cycles(&map);
        for circle in &circles {
            let names: Vec<_> = circle.iter().map(|node| graph.nodes[*node].id.as_str()).collect();
            let message = format!("wait for each other in a circle: {}", names.join(" -> "));
            self.report_node(circle[0], "", message);
        }
        !circles.is_empty()
    }

    fn check_joins(&mut self, graph: &Graph, edges: &[Edge]) {
        let mut inputs: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for edge in edges {
            inputs.entry(edge.to).or_default().insert(edge.from);
        }
        for (number, node) in graph.nodes.iter().enumerate() {
            let count = inputs.get(&number).map_or(0, BTreeSet::len);
            if let Join::AtLeast(least) = node.join
                && least as usize > count
            {
                let message = format!("waits for {least} of its {count} inputs: there are fewer");
                self.report_node(number, "join", message);
            }
        }
        for number in nodes_on_exclusive_sides(graph, edges) {
            let message =
                "needs both sides of a branch, and only one of them runs: add `join: any`";
            self.report_node(number, "join", message);
        }
    }

    /// Warns of nodes whose output is unused: probably forgotten, unless they wait or ask a person.
    fn warn_unused_outputs(&mut self, graph: &Graph, edges: &[Edge]) {
        let mut used: BTreeSet<&str> =
            self.locations.output.nodes.iter().map(|mention| mention.name.as_str()).collect();
        used.extend(edges.iter().map(|edge| graph.nodes[edge.from].id.as_str()));
        for node in &graph.nodes {
            if let OnError::Fallback(other) = &node.on_error {
                used.insert(other.as_str());
            }
        }
        for (number, node) in graph.nodes.iter().enumerate() {
            // A branch has no output, and people or time are waited for on purpose.
            let is_work = !matches!(
                node.work,
                NodeWork::Branch(_) | NodeWork::Approval(_) | NodeWork::Sleep(_)
            );
            if is_work && !used.contains(node.id.as_str()) {
                let at = &self.locations.nodes[number];
                let message = format!("nothing uses the output of `{}`", node.id);
                self.diagnostics.add_warning(at.position, &at.path, message);
            }
        }
    }

    /// Warns of waits that are longer than the run's deadline: they cannot end.
    fn warn_long_waits(&mut self, graph: &Graph) {
        let Some(deadline) = graph.budget.deadline else { return };
        for (number, node) in graph.nodes.iter().enumerate() {
            let Some((field, wait)) = longest_wait(&node.work).filter(|(_, wait)| *wait > deadline)
            else {
                continue;
            };
            let at = &self.locations.nodes[number];
            let message = format!(
                "`{field}` is {wait}, and the run lasts {deadline} at most: raise budget.deadline"
            );
            self.diagnostics.add_warning(at.position, &format!("{}.{field}", at.path), message);
        }
    }

    /// Warns of nodes that run although an input may be skipped, and use its output without a
    /// default.
    fn warn_unguarded_outputs(&mut self, graph: &Graph, edges: &[Edge]) {
        let skippable = find_skippable_nodes(graph, edges);
        // With `join: all` a node is skipped with its input, so that it never sees the absence.
        let partial_joins =
            (0..graph.nodes.len()).filter(|node| graph.nodes[*node].join != Join::All);
        let mentions = partial_joins.flat_map(|node| &self.locations.mentions[node].nodes);
        for mention in mentions.chain(&self.locations.output.nodes) {
            let may_be_absent =
                self.node_indices.get(&mention.name).is_some_and(|n| skippable.contains(n));
            if may_be_absent && !mention.is_guarded {
                let name = &mention.name;
                let message = format!(
                    "`{name}` may be skipped: provide for it, as \
                    `nodes.{name}.output | default(\"\")`"
                );
                self.diagnostics.add_warning(
                    mention.location.position,
                    &mention.location.path,
                    message,
                );
            }
        }
    }
}

/// Returns the longest time that a node may wait for a person, an event or a time, and its field.
fn longest_wait(work: &NodeWork) -> Option<(&'static str, Span)> {
    match work {
        NodeWork::Approval(approval) => approval.ttl.map(|ttl| ("approval.ttl", ttl)),
        NodeWork::Signal(signal) => signal.timeout.map(|timeout| ("signal.timeout", timeout)),
        NodeWork::Sleep(sleep) => Some(("sleep", sleep.span)),
        _ => None,
    }
}

/// The nodes that may be skipped: branch targets, nodes whose failure is skipped, and whatever
/// needs all inputs and has one of them.
fn find_skippable_nodes(graph: &Graph, edges: &[Edge]) -> BTreeSet<usize> {
    let mut pending: Vec<usize> = (0..graph.nodes.len())
        .filter(|node| matches!(graph.nodes[*node].on_error, OnError::Skip | OnError::Ask))
        .chain(edges.iter().filter(|edge| edge.port.is_some()).map(|edge| edge.to))
        .collect();
    let mut follow: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for edge in edges {
        follow.entry(edge.from).or_default().push(edge.to);
    }
    let mut skippable = BTreeSet::new();
    while let Some(node) = pending.pop() {
        if skippable.insert(node) {
            let next = follow.get(&node).into_iter().flatten();
            // Skipping spreads only through nodes that need all of their inputs.
            pending.extend(next.filter(|to| graph.nodes[**to].join == Join::All));
        }
    }
    skippable
}
