//! Division of a budget among child runs and nodes that may spend of it.

use crate::failure::UnsealedFailure;
use crate::graph::manifest::{Graph, GraphNode, MapWork, NodeWork};
use crate::money::Money;
use crate::platform_text;
use crate::run::{Budget, BudgetUsage, RunState};
use crate::time::{SPAN_LIMIT, Span};

/// Returns one of `shares` equal parts of what a budget has left, when `usage` is spent and held.
/// Limits of time are not divided, and absent limits stay absent.
pub fn allot_share(budget: Budget, usage: BudgetUsage, shares: u64) -> Budget {
    let shares = shares.max(1);
    let BudgetUsage { tokens, reserved_tokens, cost, reserved_cost } = usage;
    let used = tokens.saturating_add(reserved_tokens);
    let money = |limit: Money| {
        // Rounded down, so that the shares together never exceed what is left.
        let left = limit.as_scaled() - (cost + reserved_cost).as_scaled();
        Money::from_scaled(left.max(0) / i128::from(shares))
    };
    Budget {
        tokens: budget.tokens.map(|limit| limit.saturating_sub(used) / shares),
        cost: budget.cost.map(money),
        ..budget
    }
}

/// Returns the budget that a child run gets of its share: no more than its graph and its caller
/// allow.
///
/// # Errors
/// No tokens are left, so that the child would fail at its first call.
pub fn allot_child_budget(
    share: Budget,
    graph_budget: Budget,
    caller_budget: Budget,
) -> Result<Budget, UnsealedFailure> {
    let budget = share.narrowed_by(graph_budget).narrowed_by(caller_budget);
    if budget.tokens == Some(0) {
        let message = platform_text!("nothing is left of budget.tokens for a run within: raise it");
        return Err(UnsealedFailure::new("budget.exceeded", message));
    }
    Ok(budget)
}

/// Returns the total budget of a child run that continues: an allotment on top of what it has used.
/// Spans longer than [`SPAN_LIMIT`] are cut to it.
pub fn extend_budget(
    added: Budget,
    (tokens, cost): (u64, Money),
    active: Span,
    age: Span,
) -> Budget {
    let extend_span = |span: Span, used: Span| Span(span.0.saturating_add(used.0)).min(SPAN_LIMIT);
    Budget {
        tokens: added.tokens.map(|more| more.saturating_add(tokens)),
        cost: added.cost.map(|more| more + cost),
        wall: added.wall.map(|more| extend_span(more, active)),
        deadline: added.deadline.map(|left| extend_span(left, age)),
    }
}

impl RunState {
    /// Counts the nodes of the graph that may still call a model: they share the remaining budget.
    pub fn budget_claimants(&self, graph: &Graph) -> u64 {
        let may_spend = |node: &&GraphNode| {
            let asks = match &node.work {
                NodeWork::Agent(_) | NodeWork::Graph(_) | NodeWork::Plan(_) => true,
                NodeWork::Map(map) => matches!(map.work, MapWork::Agent(_)),
                _ => false,
            };
            asks && !self.node_step(&node.id).is_some_and(|step| step.is_ended())
        };
        graph.nodes.iter().filter(may_spend).count() as u64
    }
}
