//! Rules between nodes: references, branches, joins and fallbacks are valid, and there are no
//! cycles.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graphmap::DiGraphMap;

use super::circle::circles;
use super::decode::{Mention, Mentions, Places};
use super::manifest::{Graph, Join, OnError, Work};
use super::mistake::Mistakes;
use super::sides::torn;
use super::topology::{Edge, edges};
use crate::time::Span;

/// Checks the graph, and adds to each node's `needs` the nodes that its expressions refer to.
pub(super) fn check(graph: &mut Graph, places: &Places, mistakes: &mut Mistakes) {
    let mut check = Check { places, mistakes, numbers: BTreeMap::new() };
    // Names first: every other rule looks nodes up by name.
    check.names(graph);
    for number in 0..graph.nodes.len() {
        check.mentions(graph, &places.mentions[number], Some(number));
    }
    check.mentions(graph, &places.output, None);
    check.fallbacks(graph);
    let edges = edges(graph);
    // The later checks walk the edges in topological order: with a cycle, or with nodes missing,
    // they would report errors that are not there.
    if !check.circles(graph, &edges) && !places.is_partial {
        check.joins(graph, &edges);
        check.unused(graph, &edges);
        check.absent(graph, &edges);
    }
    check.waits(graph);
}

struct Check<'a> {
    places: &'a Places,
    mistakes: &'a mut Mistakes,
    numbers: BTreeMap<String, usize>,
}

impl Check<'_> {
    fn add(&mut self, node: usize, field: &str, message: impl Into<String>) {
        let at = &self.places.nodes[node];
        let dot = if field.is_empty() { "" } else { "." };
        self.mistakes.add(at.place, &format!("{}{dot}{field}", at.path), message);
    }

    /// Reports an error at the place where a name is used.
    fn add_at(&mut self, mention: &Mention, message: impl Into<String>) {
        self.mistakes.add(mention.at.place, &mention.at.path, message);
    }

    fn names(&mut self, graph: &Graph) {
        for (number, node) in graph.nodes.iter().enumerate() {
            match self.numbers.get(node.id.as_str()) {
                Some(first) => {
                    let other = &self.places.nodes[*first].path;
                    let message = format!("`{}` is the name of {other} too", node.id);
                    self.add(number, "id", message);
                }
                None => {
                    self.numbers.insert(node.id.to_string(), number);
                }
            }
        }
    }

    /// Returns the node that a name refers to; an unknown name is reported.
    fn known(&mut self, mention: &Mention) -> Option<usize> {
        let number = self.numbers.get(&mention.name).copied();
        if number.is_none() && !self.is_of_broken(&mention.name) {
            let names = self.numbers.keys().map(String::as_str);
            let hint = self.mistakes.hint(&mention.name, names);
            self.add_at(mention, format!("there is no node `{}`{hint}", mention.name));
        }
        number
    }

    /// True if a name is that of a node that failed to decode, or a part of it: expressions read
    /// the hyphen of `fetch-page` as a minus, so that only `fetch` arrives here.
    fn is_of_broken(&self, name: &str) -> bool {
        let mut broken = self.places.broken.iter();
        broken.any(|broken| broken == name || broken.split('-').any(|part| part == name))
    }

    /// Checks every name that a node, or the graph's output if `node` is `None`, uses.
    fn mentions(&mut self, graph: &mut Graph, mentions: &Mentions, node: Option<usize>) {
        for target in &mentions.targets {
            self.known(target);
        }
        for mention in &mentions.nodes {
            if let Some(named) = self.known(mention) {
                self.reference(graph, mention, named, node);
            }
        }
        for mention in &mentions.variables {
            self.variable(mention);
        }
    }

    /// Makes a node wait for the node whose output it uses.
    fn reference(
        &mut self,
        graph: &mut Graph,
        mention: &Mention,
        named: usize,
        node: Option<usize>,
    ) {
        let name = &mention.name;
        if matches!(graph.nodes[named].work, Work::Branch(_)) {
            let message =
                format!("`{name}` is a branch and has no output: refer to a node that it leads to");
            return self.add_at(mention, message);
        }
        // The graph's output waits for every node anyway.
        let Some(node) = node else { return };
        if named == node {
            return self.add_at(mention, format!("`{name}` refers to its own output"));
        }
        let id = graph.nodes[named].id.clone();
        let needs = &mut graph.nodes[node].needs;
        if !needs.contains(&id) {
            needs.push(id);
        }
    }

    fn variable(&mut self, mention: &Mention) {
        let name = mention.name.as_str();
        let message = match name {
            "inputs" | "nodes" => return,
            _ if self.is_of_broken(name) => return,
            "item" | "index" => format!("`{name}` is known only inside of a map"),
            _ => {
                let hint = self.mistakes.hint(name, ["inputs", "nodes"].into_iter());
                format!("`{name}` is not known: use `inputs.NAME` or `nodes.NAME.output`{hint}")
            }
        };
        self.add_at(mention, message);
    }

    fn fallbacks(&mut self, graph: &Graph) {
        for (number, node) in graph.nodes.iter().enumerate() {
            let OnError::Fallback(other) = &node.on_error else { continue };
            let Some(target) = graph.node(other) else { continue };
            if *other == node.id {
                self.add(number, "on_error.fallback", "a node cannot be its own fallback");
            } else if matches!(target.work, Work::Branch(_)) {
                self.add(number, "on_error.fallback", "a branch cannot be a fallback");
            }
        }
    }

    /// Reports cycles over needs, branch targets and fallbacks together. Returns whether there are
    /// any.
    fn circles(&mut self, graph: &Graph, edges: &[Edge]) -> bool {
        let mut map = DiGraphMap::<usize, ()>::new();
        for edge in edges {
            map.add_edge(edge.from, edge.to, ());
        }
        for (from, node) in graph.nodes.iter().enumerate() {
            if let OnError::Fallback(other) = &node.on_error
                // Fallbacks are no edges of the schedule, but a fallback that leads back would
                // never start.
                && let Some(to) = self.numbers.get(other.as_str())
            {
                map.add_edge(from, *to, ());
            }
        }
        let circles = circles(&map);
        for circle in &circles {
            let names: Vec<_> = circle.iter().map(|node| graph.nodes[*node].id.as_str()).collect();
            let message = format!("wait for each other in a circle: {}", names.join(" -> "));
            self.add(circle[0], "", message);
        }
        !circles.is_empty()
    }

    fn joins(&mut self, graph: &Graph, edges: &[Edge]) {
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
                self.add(number, "join", message);
            }
        }
        for number in torn(graph, edges) {
            let message =
                "needs both sides of a branch, and only one of them runs: add `join: any`";
            self.add(number, "join", message);
        }
    }

    /// Warns of nodes whose output is unused: probably forgotten, unless they wait or ask a person.
    fn unused(&mut self, graph: &Graph, edges: &[Edge]) {
        let mut used: BTreeSet<&str> =
            self.places.output.nodes.iter().map(|mention| mention.name.as_str()).collect();
        used.extend(edges.iter().map(|edge| graph.nodes[edge.from].id.as_str()));
        for node in &graph.nodes {
            if let OnError::Fallback(other) = &node.on_error {
                used.insert(other.as_str());
            }
        }
        for (number, node) in graph.nodes.iter().enumerate() {
            // A branch has no output, and people or time are waited for on purpose.
            let is_work =
                !matches!(node.work, Work::Branch(_) | Work::Approval(_) | Work::Sleep(_));
            if is_work && !used.contains(node.id.as_str()) {
                let at = &self.places.nodes[number];
                let message = format!("nothing uses the output of `{}`", node.id);
                self.mistakes.warn(at.place, &at.path, message);
            }
        }
    }

    /// Warns of waits that are longer than the run's deadline: they cannot end.
    fn waits(&mut self, graph: &Graph) {
        let Some(deadline) = graph.budget.deadline else { return };
        for (number, node) in graph.nodes.iter().enumerate() {
            let Some((field, wait)) = longest_wait(&node.work).filter(|(_, wait)| *wait > deadline)
            else {
                continue;
            };
            let at = &self.places.nodes[number];
            let message = format!(
                "`{field}` is {wait}, and the run lasts {deadline} at most: raise budget.deadline"
            );
            self.mistakes.warn(at.place, &format!("{}.{field}", at.path), message);
        }
    }

    /// Warns of nodes that run although an input may be skipped, and use its output without a
    /// default.
    fn absent(&mut self, graph: &Graph, edges: &[Edge]) {
        let skippable = skippable(graph, edges);
        // With `join: all` a node is skipped with its input, so that it never sees the absence.
        let lenient = (0..graph.nodes.len()).filter(|node| graph.nodes[*node].join != Join::All);
        let mentions = lenient.flat_map(|node| &self.places.mentions[node].nodes);
        for mention in mentions.chain(&self.places.output.nodes) {
            let may_lack = self.numbers.get(&mention.name).is_some_and(|n| skippable.contains(n));
            if may_lack && !mention.is_guarded {
                let name = &mention.name;
                let message = format!(
                    "`{name}` may be skipped: provide for it, as \
                    `nodes.{name}.output | default(\"\")`"
                );
                self.mistakes.warn(mention.at.place, &mention.at.path, message);
            }
        }
    }
}

/// Returns the longest time that a node may wait for a person, an event or a time, and its field.
fn longest_wait(work: &Work) -> Option<(&'static str, Span)> {
    match work {
        Work::Approval(approval) => approval.ttl.map(|ttl| ("approval.ttl", ttl)),
        Work::Signal(signal) => signal.timeout.map(|timeout| ("signal.timeout", timeout)),
        Work::Sleep(sleep) => Some(("sleep", sleep.span)),
        _ => None,
    }
}

/// The nodes that may be skipped: branch targets, nodes whose failure is skipped, and whatever
/// needs all inputs and has one of them.
fn skippable(graph: &Graph, edges: &[Edge]) -> BTreeSet<usize> {
    let mut found: Vec<usize> = (0..graph.nodes.len())
        .filter(|node| matches!(graph.nodes[*node].on_error, OnError::Skip | OnError::Ask))
        .chain(edges.iter().filter(|edge| edge.port.is_some()).map(|edge| edge.to))
        .collect();
    let mut follow: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for edge in edges {
        follow.entry(edge.from).or_default().push(edge.to);
    }
    let mut skippable = BTreeSet::new();
    while let Some(node) = found.pop() {
        if skippable.insert(node) {
            let next = follow.get(&node).into_iter().flatten();
            // Skipping spreads only through nodes that need all of their inputs.
            found.extend(next.filter(|to| graph.nodes[**to].join == Join::All));
        }
    }
    skippable
}
