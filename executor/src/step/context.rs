//! The scope of a step: the values that its templates may read.

use std::sync::Arc;

use convergio_domain::expr::ExprScope;
use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::graph::manifest::{MapNode, NodeWork};
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::platform_text;
use serde_json::Value;

use super::planner::Planner;
use crate::outputs::{OutputError, UncommittedOutcomes};
use crate::plan::CommitPlan;

/// Maximum items of the list that a map iterates over.
const MAP_WIDTH_LIMIT: usize = 100_000;

impl Planner<'_> {
    /// Builds the scope that the templates of a step may read.
    pub(super) async fn template_scope(
        &mut self,
        step: &StepId,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<ExprScope, OutputError> {
        let graph = self.graph;
        let Some(node) = graph.find_node(&step.node) else {
            return Err(OutputError::Failure(invalid_graph(missing_node_message(step))));
        };
        let mut scope = self
            .caches
            .outputs
            .build_scope(&self.run.state, graph, &node.needs, uncommitted)
            .await?;
        if let (NodeWork::Map(map), Some(item)) = (&node.work, step.item) {
            scope.item = Some((self.map_item(map, &step.node, &scope, item).await?, item));
        }
        Ok(scope)
    }

    /// Returns the list of a map; it is rendered once while the run is in memory.
    pub(super) async fn map_list(
        &mut self,
        map: &MapNode,
        node: &NodeId,
        scope: &ExprScope,
    ) -> Result<Arc<Vec<Value>>, OutputError> {
        if let Some(list) = self.caches.map_lists.get(node) {
            return Ok(Arc::clone(list));
        }
        // A string, so that a template of one expression keeps its type.
        let over = Value::String(map.over.clone());
        let list = match self.render_value(&over, scope).await? {
            Value::Array(list) if list.len() <= MAP_WIDTH_LIMIT => Arc::new(list),
            Value::Array(list) => {
                let message = platform_text!(
                    "map.over has {} items: at most {}",
                    list.len(),
                    MAP_WIDTH_LIMIT
                );
                return Err(OutputError::Failure(invalid_graph(message)));
            }
            _ => {
                let message =
                    platform_text!("map.over must yield a list: use an output that is one");
                return Err(OutputError::Failure(invalid_graph(message)));
            }
        };
        self.caches.map_lists.insert(node.clone(), Arc::clone(&list));
        Ok(list)
    }

    async fn map_item(
        &mut self,
        map: &MapNode,
        node: &NodeId,
        scope: &ExprScope,
        item: u32,
    ) -> Result<Value, OutputError> {
        let list = self.map_list(map, node, scope).await?;
        let missing =
            || OutputError::Failure(invalid_graph(platform_text!("the list has no item {}", item)));
        list.get(item as usize).cloned().ok_or_else(missing)
    }

    /// Renders the run's output; `None` if the graph declares none.
    pub(crate) async fn run_output(
        &mut self,
        plan: &CommitPlan,
    ) -> Result<Option<Value>, OutputError> {
        let graph = self.graph;
        let Some(output) = &graph.graph.output else { return Ok(None) };
        let needs = &graph.output_nodes;
        let scope = self
            .caches
            .outputs
            .build_scope(&self.run.state, graph, needs, plan.uncommitted_outcomes())
            .await?;
        self.render_value(output, &scope).await.map(Some)
    }

    /// Renders the templates of a value in the scope of a step.
    pub(super) async fn render_for_step(
        &mut self,
        step: &StepId,
        value: &Value,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<Value, OutputError> {
        let scope = self.template_scope(step, uncommitted).await?;
        self.render_value(value, &scope).await
    }
}

pub(super) fn missing_node_message(step: &StepId) -> PlatformText {
    platform_text!("no node {}", step.node)
}

pub(super) fn invalid_graph(message: PlatformText) -> UnsealedFailure {
    UnsealedFailure::new("graph.invalid", message)
}
