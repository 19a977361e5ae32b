//! What a fork may change in its parent's graph: models and prompts, but no edges.

use std::collections::BTreeMap;

use crate::expr;
use crate::graph::manifest::{Agent, Graph, GraphNode, MapWork, NodeWork};

/// Changed models and prompts of a fork.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForkChanges {
    /// Model of all agents, unless a node names another.
    pub model: Option<String>,
    /// Changes of single nodes, by name.
    pub nodes: BTreeMap<String, ForkNodeChange>,
}

/// Changes of one agent node; absent ones keep what the parent has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForkNodeChange {
    /// Model of the agent.
    pub model: Option<String>,
    /// Prompt template.
    pub prompt: Option<String>,
    /// System prompt template.
    pub system: Option<String>,
}

/// Rejection of a change, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidForkChange(String);

impl ForkChanges {
    /// Applies the changes to the graph and returns their paths, as `model` or
    /// `nodes.summary.prompt`.
    ///
    /// # Errors
    /// A node does not exist, is no agent, or would need another edge.
    pub fn apply_to(mut self, graph: &mut Graph) -> Result<Vec<String>, InvalidForkChange> {
        let mut changes = Vec::new();
        if let Some(model) = self.model {
            for agent in graph.nodes.iter_mut().filter_map(agent_of_node) {
                agent.model.clone_from(&model);
            }
            changes.push("model".to_owned());
        }
        for node in &mut graph.nodes {
            let Some(node_change) = self.nodes.remove(node.id.as_str()) else { continue };
            change_node(node, node_change, &mut changes)?;
        }
        // What is left names no node of the graph.
        match self.nodes.keys().next() {
            Some(name) => Err(InvalidForkChange(format!("nodes: there is no node `{name}`"))),
            None => Ok(changes),
        }
    }
}

fn agent_of_node(node: &mut GraphNode) -> Option<&mut Agent> {
    match &mut node.work {
        NodeWork::Agent(agent) => Some(agent),
        NodeWork::Map(map) => match &mut map.work {
            MapWork::Agent(agent) => Some(agent),
            MapWork::Tool(_) => None,
        },
        _ => None,
    }
}

fn change_node(
    node: &mut GraphNode,
    node_change: ForkNodeChange,
    changes: &mut Vec<String>,
) -> Result<(), InvalidForkChange> {
    let name = node.id.to_string();
    for text in [&node_change.prompt, &node_change.system].into_iter().flatten() {
        check_template(node, text)?;
    }
    let ForkNodeChange { model, prompt, system } = node_change;
    let Some(agent) = agent_of_node(node) else {
        return Err(InvalidForkChange(format!("nodes.{name}: it is no agent, and has no prompt")));
    };
    if let Some(model) = model {
        agent.model = model;
        changes.push(format!("nodes.{name}.model"));
    }
    if let Some(prompt) = prompt {
        // A node with a whole request takes its messages from there; a prompt would be ignored.
        if agent.request.is_some() {
            let detail = format!("nodes.{name}: it has a whole request in place of a prompt");
            return Err(InvalidForkChange(detail));
        }
        agent.prompt = prompt;
        changes.push(format!("nodes.{name}.prompt"));
    }
    if let Some(system) = system {
        agent.system = Some(system);
        changes.push(format!("nodes.{name}.system"));
    }
    Ok(())
}

/// Rejects a prompt that reads outputs the node does not wait for: an override must not change the
/// graph's edges.
fn check_template(node: &GraphNode, text: &str) -> Result<(), InvalidForkChange> {
    let name = &node.id;
    let refs = expr::refs_in_text(text)
        .map_err(|error| InvalidForkChange(format!("nodes.{name}: {}", error.message)))?;
    let is_needed = |other: &&String| node.needs.iter().any(|need| need.as_str() == **other);
    if let Some(other) = refs.nodes.keys().find(|other| !is_needed(other)) {
        let detail = format!(
            "nodes.{name}: the prompt uses `{other}`, which the node does not wait for: fork with \
            a manifest"
        );
        return Err(InvalidForkChange(detail));
    }
    let is_map = matches!(node.work, NodeWork::Map(_));
    // Variables of a `map` node's prompt are those of its items.
    let is_known = |variable: &&String| match variable.as_str() {
        "inputs" | "nodes" => true,
        "item" | "index" => is_map,
        _ => false,
    };
    match refs.variables.keys().find(|variable| !is_known(variable)) {
        Some(other) => Err(InvalidForkChange(format!("nodes.{name}: `{other}` is not known"))),
        None => Ok(()),
    }
}
