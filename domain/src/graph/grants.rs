//! Checks that a graph proposed by a model uses only what its plan was granted, at any depth.

use super::diagnostic::Diagnostic;
use super::manifest::{
    Agent, AgentMemory, CalleeRef, Grants, Graph, GraphNode, RECALL_TOOL, SPAWN_TOOL, ToolRef,
};
use super::manifest::{MapWork, NodeWork, ToolInvocation};

/// Prefix of the tools that read or write a subject's memory.
const MEMORY_TOOL_PREFIX: &str = "memory.";

impl Grants {
    /// True if nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty() && self.memory_subject.is_none()
    }

    fn has_tool(&self, name: &str) -> bool {
        // Memory is granted by subject, never by tool.
        if name.starts_with(MEMORY_TOOL_PREFIX) {
            return self.memory_subject.is_some();
        }
        self.tools.iter().any(|tool| matches!(tool, ToolRef::Builtin(known) if known == name))
    }

    fn has_agent(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| matches!(tool, ToolRef::Agent(known) if known.name == name))
    }

    /// A grant without a version covers every version.
    fn has_graph(&self, callee: &CalleeRef) -> bool {
        let is_it = |known: &CalleeRef| {
            known.name == callee.name
                && (known.version.is_none() || known.version == callee.version)
        };
        self.tools.iter().any(|tool| matches!(tool, ToolRef::Graph(known) if is_it(known)))
    }

    fn allows(&self, tool: &ToolRef) -> bool {
        match tool {
            ToolRef::Builtin(name) => self.has_tool(name),
            ToolRef::Agent(callee) => self.has_agent(&callee.name),
            ToolRef::Graph(callee) => self.has_graph(callee),
        }
    }
}

/// Returns each use of a tool, agent, graph or memory that was not granted, in the order of the
/// nodes. The granted subject is compared as text: a template in its place is refused, since what
/// it yields is not known before the run.
pub fn find_ungranted_uses(graph: &Graph, grants: &Grants) -> Vec<Diagnostic> {
    let mut check = GrantCheck { grants, diagnostics: Vec::new() };
    for (index, node) in graph.nodes.iter().enumerate() {
        check.check_node(node, &format!("nodes[{index}]"));
    }
    check.diagnostics
}

struct GrantCheck<'a> {
    grants: &'a Grants,
    diagnostics: Vec<Diagnostic>,
}

impl GrantCheck<'_> {
    fn check_node(&mut self, node: &GraphNode, path: &str) {
        match &node.work {
            NodeWork::Agent(agent) => self.check_agent(agent, &format!("{path}.agent")),
            NodeWork::Tool(tool) => self.check_tool(tool, &format!("{path}.tool")),
            NodeWork::Map(map) => match &map.work {
                MapWork::Agent(agent) => self.check_agent(agent, &format!("{path}.map.agent")),
                MapWork::Tool(tool) => self.check_tool(tool, &format!("{path}.map.tool")),
            },
            NodeWork::Graph(graph) => {
                let (name, version) = (graph.name.clone(), graph.version.clone());
                let callee = CalleeRef { name, version, description: None };
                if !self.grants.has_graph(&callee) {
                    self.report_ungranted(
                        &format!("{path}.graph"),
                        format!("the graph `{}`", callee.name),
                    );
                }
            }
            NodeWork::Plan(plan) => {
                let path = format!("{path}.plan");
                self.check_agent(&plan.agent, &path);
                self.check_tools(&plan.grants.tools, &format!("{path}.tools"));
                if let Some(subject) = &plan.grants.memory_subject {
                    self.check_subject(Some(subject), &format!("{path}.memory.subject"));
                }
            }
            NodeWork::Branch(_)
            | NodeWork::Approval(_)
            | NodeWork::Sleep(_)
            | NodeWork::Signal(_) => {}
        }
    }

    fn check_agent(&mut self, agent: &Agent, path: &str) {
        if let Some(AgentMemory { subject, .. }) = &agent.memory {
            self.check_subject(Some(subject), &format!("{path}.memory.subject"));
        }
        let Some(toolbox) = &agent.toolbox else { return };
        self.check_tools(&toolbox.tools, &format!("{path}.tools"));
        self.check_tools(&toolbox.spawn, &format!("{path}.spawn"));
        // Without `memory` the executor has no subject to bind the tool to, and the model would
        // choose it.
        let remembers = |tool: &ToolRef| {
            let ToolRef::Builtin(name) = tool else { return false };
            name.starts_with(MEMORY_TOOL_PREFIX)
        };
        if agent.memory.is_none() && toolbox.tools.iter().any(remembers) {
            let message = format!(
                "an agent with `{RECALL_TOOL}` and the like needs `memory: {{subject: ...}}`: \
                 without it it could ask for anybody's"
            );
            self.add_diagnostic(&format!("{path}.tools"), message);
        }
    }

    fn check_tools(&mut self, tools: &[ToolRef], path: &str) {
        for (index, tool) in tools.iter().enumerate() {
            // What `agent.spawn` runs is checked by the toolbox's `spawn` list.
            let is_spawn = matches!(tool, ToolRef::Builtin(name) if name == SPAWN_TOOL);
            if !is_spawn && !self.grants.allows(tool) {
                self.report_ungranted(&format!("{path}[{index}]"), describe_tool(tool));
            }
        }
    }

    fn check_tool(&mut self, tool: &ToolInvocation, path: &str) {
        if !self.grants.has_tool(&tool.name) {
            self.report_ungranted(path, format!("the tool `{}`", tool.name));
        } else if tool.name.starts_with(MEMORY_TOOL_PREFIX) {
            self.check_subject(tool.with["subject"].as_str(), &format!("{path}.with.subject"));
        }
    }

    fn check_subject(&mut self, subject: Option<&str>, path: &str) {
        let granted = self.grants.memory_subject.as_deref();
        if granted.is_none() {
            self.report_ungranted(path, "memory".to_owned());
        } else if subject != granted {
            let granted = granted.unwrap_or_default();
            self.add_diagnostic(
                path,
                format!("the subject must be `{granted}`, written out as it is"),
            );
        }
    }

    fn report_ungranted(&mut self, path: &str, what: String) {
        self.add_diagnostic(path, format!("{what} was not given to this plan"));
    }

    fn add_diagnostic(&mut self, path: &str, message: String) {
        self.diagnostics.push(Diagnostic { line: 1, column: 1, path: path.to_owned(), message });
    }
}

fn describe_tool(tool: &ToolRef) -> String {
    match tool {
        ToolRef::Builtin(name) => format!("the tool `{name}`"),
        ToolRef::Agent(callee) => format!("the agent `{}`", callee.name),
        ToolRef::Graph(callee) => format!("the graph `{}`", callee.name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::find_ungranted_uses;
    use crate::graph::manifest::{CalleeRef, Grants, ToolRef};
    use crate::graph::{ToolCatalog, ToolEffect, ToolSpec, parse_manifest};

    fn catalog() -> ToolCatalog {
        let tool = |name: &str| ToolSpec {
            name: name.to_owned(),
            description: String::new(),
            arguments: json!({"type": "object", "properties": {"subject": {}}}),
            effect: ToolEffect::Pure,
        };
        let names = ["text.join", "math.eval", "memory.recall", "memory.store"];
        ToolCatalog::new(names.into_iter().map(tool).collect())
    }

    fn beyond(nodes: &serde_json::Value, grants: &Grants) -> Vec<String> {
        let manifest = json!({"name": "p", "nodes": nodes}).to_string();
        let graph = parse_manifest(&manifest, &catalog()).expect("it is a graph").graph;
        find_ungranted_uses(&graph, grants).into_iter().map(|mistake| mistake.path).collect()
    }

    fn grants() -> Grants {
        let callee =
            |name: &str| CalleeRef { name: name.to_owned(), version: None, description: None };
        let tools = vec![
            ToolRef::Builtin("text.join".to_owned()),
            ToolRef::Graph(callee("brief")),
            ToolRef::Agent(callee("tutor")),
        ];
        Grants { tools, memory_subject: Some("student:42".to_owned()) }
    }

    #[test]
    fn nothing_is_granted_by_default() {
        let nodes = json!([
            {"id": "a", "tool": "text.join", "with": {}},
            {"id": "b", "graph": "brief"},
            {"id": "c", "agent": {"prompt": "p", "tools": [{"agent": "tutor"}]}},
            {"id": "d", "agent": {"prompt": "p"}},
        ]);
        let paths = beyond(&nodes, &Grants::default());
        assert_eq!(paths, ["nodes[0].tool", "nodes[1].graph", "nodes[2].agent.tools[0]"]);
        assert_eq!(beyond(&nodes, &grants()), Vec::<String>::new());
    }

    #[test]
    fn what_was_not_given_is_refused_wherever_it_stands() {
        let nodes = json!([
            {"id": "a", "map": {"over": "{{ [1] }}", "tool": "math.eval", "with": {}}},
            {"id": "b", "agent": {"prompt": "p", "tools": ["math.eval", {"graph": "other"}]}},
            {"id": "c", "plan": {"prompt": "p", "tools": ["text.join", "math.eval"]}},
            {"id": "d", "agent": {"prompt": "p", "tools": ["agent.spawn"],
                "spawn": [{"agent": "tutor"}, {"graph": "other"}]}},
        ]);
        let paths = beyond(&nodes, &grants());
        let expected = [
            "nodes[0].map.tool",
            "nodes[1].agent.tools[0]",
            "nodes[1].agent.tools[1]",
            "nodes[2].plan.tools[1]",
            "nodes[3].agent.spawn[1]",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn memory_is_of_the_granted_subject_alone() {
        let tool = |subject: &str| {
            let with = json!({ "subject": subject });
            json!([{"id": "a", "tool": "memory.recall", "with": with}])
        };
        assert_eq!(beyond(&tool("student:42"), &grants()), Vec::<String>::new());
        for other in ["student:43", "student:{{ inputs.n }}"] {
            assert_eq!(beyond(&tool(other), &grants()), ["nodes[0].tool.with.subject"], "{other}");
        }
        let agent = json!([{"id": "a", "agent": {"prompt": "p", "tools": ["memory.store"]}}]);
        assert_eq!(beyond(&agent, &grants()), ["nodes[0].agent.tools"]);
        let other = json!([{"id": "a", "agent": {"prompt": "p", "memory": {"subject": "ann"}}}]);
        assert_eq!(beyond(&other, &grants()), ["nodes[0].agent.memory.subject"]);
        let plan = json!([{"id": "a", "plan": {"prompt": "p", "memory": {"subject": "ann"}}}]);
        assert_eq!(beyond(&plan, &grants()), ["nodes[0].plan.memory.subject"]);
        assert_eq!(beyond(&tool("student:42"), &Grants::default()), ["nodes[0].tool"]);
    }
}
