//! A scheduler restored from the log answers as one that has lived through the run.

use convergio_kernel_c::{NodeState, ScheduleDelta, Scheduler};
use proptest::prelude::*;

use crate::graphs::acyclic;
use crate::scheduler::{dice, perform, pick, start};
use crate::scheduler_model::Model;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The scheduler is thrown away and restored before every step.
    #[test]
    fn restored_is_as_good_as_lived(source in acyclic(16), dice in dice()) {
        let (graph, _, _) = start(&source);
        let mut model = Model::new(&source.nodes, &source.edges);
        model.advance();
        for throw in dice {
            let (mut scheduler, implied) = Scheduler::restore_run(&graph, &model.states)
                .expect("a true account is accepted");
            let nothing = ScheduleDelta {
                ready: vec![],
                skipped: vec![],
                cancelled: vec![],
                asking: None,
                result: model.result(),
            };
            prop_assert_eq!(implied, nothing);
            let Some(action) = pick(&model, throw) else { break };
            model.record(action);
            prop_assert_eq!(perform(&mut scheduler, action), Ok(model.advance()));
        }
    }

    /// An account that ends with what happened, and lacks what follows from it, yields just that.
    #[test]
    fn restoring_finds_what_the_account_leaves_out(source in acyclic(16), dice in dice()) {
        let (graph, _, started) = start(&source);
        let mut model = Model::new(&source.nodes, &source.edges);
        let (_, implied) = Scheduler::restore_run(&graph, &model.states)
            .expect("nothing happened yet");
        prop_assert_eq!(implied, started);
        model.advance();
        for throw in dice {
            let Some(action) = pick(&model, throw) else { break };
            model.record(action);
            let (_, implied) = Scheduler::restore_run(&graph, &model.states)
                .expect("a true account is accepted");
            prop_assert_eq!(implied, model.advance());
        }
    }

    /// Whatever is claimed: an answer or a refusal, never a crash, and never a node both ways.
    #[test]
    fn any_account_is_answered(
        source in acyclic(8),
        claims in prop::collection::vec((0..6u32, any::<u32>()), 8),
    ) {
        let (graph, _, _) = start(&source);
        let claim = |&(status, choice): &(u32, u32)| match status {
            0 => NodeState::Pending,
            1 => NodeState::Ready,
            2 => NodeState::Done { choice: (choice % 5).checked_sub(2) },
            3 => NodeState::Failed,
            4 => NodeState::Skipped,
            _ => NodeState::Map { max_parallel: choice % 3, items: vec![] },
        };
        let states: Vec<NodeState> = claims.iter().map(claim).take(source.nodes.len()).collect();
        if let Ok((_, delta)) = Scheduler::restore_run(&graph, &states) {
            for ready in &delta.ready {
                prop_assert_eq!(&states[ready.node as usize], &NodeState::Pending);
                prop_assert!(!delta.skipped.contains(&ready.node));
            }
        }
    }
}
