//! Random runs of random graphs: every answer is that of the model.

use std::sync::Arc;

use convergio_kernel_c::{
    ItemState, KernelError, KernelGraph, NodeOutcome, NodeState, ReadyNode, RunResult,
    ScheduleDelta, Scheduler,
};
use proptest::prelude::*;

use crate::graphs::{Source, acyclic};
use crate::scheduler_model::{Action, Model};

const DONE: NodeOutcome = NodeOutcome::Done { choice: None };

/// Numbers that choose what happens next.
pub(crate) type Dice = (u32, u32, u32);

/// Enough dice for any run of the graphs used here.
pub(crate) fn dice() -> impl Strategy<Value = Vec<Dice>> {
    prop::collection::vec(any::<Dice>(), 120)
}

/// Something that may happen to what is in flight, if anything is.
pub(crate) fn pick(model: &Model, (which, what, how): Dice) -> Option<Action> {
    let units = model.in_flight();
    let ReadyNode { node, item } = *units.get(which as usize % units.len().max(1))?;
    Some(match (item, what % 10) {
        (None, 0..7) => Action::Done { node, choice: (how % 5).checked_sub(2) },
        (None, 7..9) if !model.has_failed() => {
            Action::Expand { node, width: how % 6, max_parallel: 1 + how / 6 % 4 }
        }
        (None, _) => Action::Failed { node },
        (Some(item), 0..9) => Action::ItemDone { node, item },
        (Some(item), _) if how % 2 == 0 => Action::ItemFailed { node, item },
        (Some(_), _) => Action::Failed { node },
    })
}

pub(crate) fn perform(
    scheduler: &mut Scheduler,
    action: Action,
) -> Result<ScheduleDelta, KernelError> {
    match action {
        Action::Done { node, choice } => {
            scheduler.complete_node(node, NodeOutcome::Done { choice })
        }
        Action::Failed { node } => scheduler.complete_node(node, NodeOutcome::Failed),
        Action::Expand { node, width, max_parallel } => {
            scheduler.expand_node(node, width, max_parallel)
        }
        Action::ItemDone { node, item } => scheduler.complete_item(node, item, DONE),
        Action::ItemFailed { node, item } => {
            scheduler.complete_item(node, item, NodeOutcome::Failed)
        }
    }
}

pub(crate) fn start(source: &Source) -> (Arc<KernelGraph>, Scheduler, ScheduleDelta) {
    let graph =
        KernelGraph::compile_graph(&source.nodes, &source.edges).expect("the graph is right");
    let graph = Arc::new(graph);
    let (scheduler, delta) = Scheduler::start(&graph).expect("memory for a small run");
    (graph, scheduler, delta)
}

/// Calls that make no sense now; each must be refused, and must leave no trace.
fn misuse(scheduler: &mut Scheduler, model: &Model, (which, item, _): Dice) {
    let node_count = scheduler.compiled_graph().node_count();
    let (node, item) = (which % node_count, item % 8);
    let mut item_refused = |error| {
        assert_eq!(scheduler.complete_item(node, item, DONE), Err(error));
    };
    match &model.states[node as usize] {
        NodeState::Ready => item_refused(KernelError::NotExpanded),
        NodeState::Map { items, .. } => {
            if items.get(item as usize) != Some(&ItemState::Ready) {
                item_refused(KernelError::ItemNotReady);
            }
            assert_eq!(scheduler.complete_node(node, DONE), Err(KernelError::AlreadyExpanded));
            assert_eq!(scheduler.expand_node(node, 1, 1), Err(KernelError::AlreadyExpanded));
        }
        _ => {
            item_refused(KernelError::NotReady);
            assert_eq!(scheduler.complete_node(node, DONE), Err(KernelError::NotReady));
            assert_eq!(scheduler.expand_node(node, 1, 1), Err(KernelError::NotReady));
        }
    }
    assert_eq!(scheduler.complete_node(node_count, DONE), Err(KernelError::BadNode));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_answer_is_that_of_the_model(source in acyclic(16), dice in dice()) {
        let (_, mut scheduler, started) = start(&source);
        let mut model = Model::new(&source.nodes, &source.edges);
        prop_assert_eq!(started, model.advance());
        for throw in dice {
            misuse(&mut scheduler, &model, throw);
            let Some(action) = pick(&model, throw) else { break };
            model.record(action);
            let wanted = model.advance();
            // An answer that is computed and thrown away leaves the original as it was.
            prop_assert_eq!(perform(&mut scheduler.clone(), action), Ok(wanted.clone()));
            prop_assert_eq!(perform(&mut scheduler, action), Ok(wanted), "after {:?}", action);
            prop_assert_eq!(scheduler.run_result(), model.result());
        }
        // Nothing in flight, nothing failed: then nothing is left waiting either.
        let stuck = model.in_flight().is_empty() && model.result() == RunResult::Running;
        prop_assert!(!stuck);
    }
}
