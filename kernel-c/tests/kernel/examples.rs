//! The wrapper by example.

use std::sync::Arc;
use std::thread;

use convergio_kernel_c::{
    CompileError, EdgeSpec, KernelError, KernelGraph, NodeAnswer, NodeOutcome, NodeSpec, NodeState,
    NodeStatus, OnErrorSpec, ReadyNode, RunResult, Scheduler, ScopeSpec,
};

const DONE: NodeOutcome = NodeOutcome::Done { choice: None };

fn edge(from: u32, to: u32) -> EdgeSpec {
    EdgeSpec { from, to, port: None }
}

fn chain(length: u32) -> Arc<KernelGraph> {
    let edges: Vec<EdgeSpec> = (1..length).map(|to| edge(to - 1, to)).collect();
    let nodes = vec![NodeSpec::default(); length as usize];
    Arc::new(KernelGraph::compile_graph(&nodes, &edges).expect("a chain compiles"))
}

#[test]
fn a_chain_runs_to_its_end() {
    let (mut scheduler, started) = Scheduler::start(&chain(2)).expect("memory");
    assert_eq!(started.ready, [ReadyNode { node: 0, item: None }]);
    let delta = scheduler.complete_node(0, DONE).expect("node 0 is in flight");
    assert_eq!(delta.ready, [ReadyNode { node: 1, item: None }]);
    assert_eq!(scheduler.node_status(0), Ok(NodeStatus::Done));
    assert_eq!(scheduler.node_status(1), Ok(NodeStatus::Ready));
    assert_eq!(scheduler.node_status(2), Err(KernelError::BadNode));
    let delta = scheduler.complete_node(1, DONE).expect("node 1 is in flight");
    assert_eq!((delta.ready, delta.result), (vec![], RunResult::Succeeded));
}

#[test]
fn a_map_emits_its_items() {
    let (mut scheduler, _) = Scheduler::start(&chain(1)).expect("memory");
    let delta = scheduler.expand_node(0, 3, 2).expect("node 0 is in flight");
    let item = |item| ReadyNode { node: 0, item: Some(item) };
    assert_eq!(delta.ready, [item(0), item(1)]);
    assert_eq!(scheduler.complete_item(0, 0, DONE).expect("in flight").ready, [item(2)]);
}

#[test]
fn mistakes_are_named_with_their_place() {
    let nodes = [NodeSpec::default(), NodeSpec { join: 2, on_error: OnErrorSpec::Skip }];
    let error =
        KernelGraph::compile_graph(&nodes, &[edge(0, 1)]).expect_err("a join of 2 over one edge");
    assert_eq!(error, CompileError { kind: KernelError::BadJoin, node: Some(1), edge: None });
    assert_eq!(error.to_string(), "node 1: a join asks for more in-edges than the node has");
    let error =
        KernelGraph::compile_graph(&nodes, &[edge(0, 1), edge(7, 1)]).expect_err("no node 7");
    assert_eq!(error.to_string(), "edge 1: an edge names a node that does not exist");
}

#[test]
fn the_number_that_means_none_is_no_port_and_no_choice() {
    let always = EdgeSpec { from: 0, to: 1, port: Some(u32::MAX) };
    let error =
        KernelGraph::compile_graph(&[NodeSpec::default(); 2], &[always]).expect_err("not a port");
    assert_eq!((error.kind, error.edge), (KernelError::BadArgument, Some(0)));
    let (mut scheduler, _) = Scheduler::start(&chain(1)).expect("memory");
    let none = NodeOutcome::Done { choice: Some(u32::MAX) };
    assert_eq!(scheduler.complete_node(0, none), Err(KernelError::BadArgument));
    assert_eq!(scheduler.node_status(0), Ok(NodeStatus::Ready));
}

#[test]
fn accounts_that_do_not_fit_the_graph_are_refused() {
    let short = Scheduler::restore_run(&chain(2), &[NodeState::Pending]).expect_err("one of two");
    assert_eq!(short.kind, KernelError::BadArgument);
    let account = [NodeState::Pending, NodeState::Done { choice: None }];
    let early = Scheduler::restore_run(&chain(2), &account).expect_err("1 cannot precede 0");
    assert_eq!((early.kind, early.node), (KernelError::BadState, Some(1)));
    let idle = [NodeState::Map { max_parallel: 0, items: vec![] }];
    let idle = Scheduler::restore_run(&chain(1), &idle).expect_err("nothing could ever run");
    assert_eq!((idle.kind, idle.node), (KernelError::BadArgument, Some(0)));
}

#[test]
fn a_graph_serves_many_threads_and_outlives_its_name() {
    let graph = chain(100);
    let run = |graph: Arc<KernelGraph>| {
        let (mut scheduler, _) = Scheduler::start(&graph).expect("memory");
        drop(graph);
        for node in 0..100 {
            scheduler.complete_node(node, DONE).expect("each follows the one before");
        }
        scheduler
    };
    let runs: Vec<_> =
        (0..4).map(|_| Arc::clone(&graph)).map(|graph| thread::spawn(move || run(graph))).collect();
    drop(graph);
    for run in runs {
        let scheduler = run.join().expect("no run panics");
        assert_eq!(scheduler.run_result(), RunResult::Succeeded);
    }
}

/// A loop of up to two iterations over one node, which asks when it fails; then another node.
fn looping() -> Arc<KernelGraph> {
    let mut nodes = [NodeSpec::default(); 3];
    nodes[1].on_error = OnErrorSpec::Ask;
    let scopes = [ScopeSpec { node: 0, body: 1, max_iterations: 2 }];
    Arc::new(KernelGraph::compile_scoped(&nodes, &[edge(0, 2)], &scopes).expect("a loop compiles"))
}

#[test]
fn a_loop_asks_and_goes_round() {
    let node = |node| ReadyNode { node, item: None };
    let (mut scheduler, started) = Scheduler::start(&looping()).expect("memory");
    assert_eq!(started.ready, [node(0)]);
    assert_eq!(scheduler.iterate_scope(0).expect("idle").ready, [node(1)]);
    let failed = scheduler.complete_node(1, NodeOutcome::Failed).expect("in flight");
    assert_eq!((failed.asking, failed.result), (Some(1), RunResult::Running));
    assert_eq!(scheduler.node_status(1), Ok(NodeStatus::Asking));
    assert_eq!(scheduler.answer_node(1, NodeAnswer::Retry).expect("it asks").ready, [node(1)]);
    let over = scheduler.complete_node(1, DONE).expect("in flight");
    assert_eq!(over.ready, [ReadyNode { node: 0, item: Some(0) }]);
    assert_eq!(scheduler.complete_node(0, DONE).expect("idle").ready, [node(2)]);
    let cancelled = scheduler.cancel_run().expect("it runs");
    assert_eq!((cancelled.cancelled, cancelled.result), (vec![2], RunResult::Cancelled));
}

#[test]
fn a_loop_is_restored_where_it_was() {
    let scope = |iterating| NodeState::Scope {
        status: NodeStatus::Ready,
        choice: None,
        iterations: 2,
        iterating,
    };
    let account = [scope(true), NodeState::Asking, NodeState::Pending];
    let (mut scheduler, implied) = Scheduler::restore_run(&looping(), &account).expect("it can be");
    assert_eq!((implied.ready, implied.asking), (vec![], None));
    let skipped = scheduler.answer_node(1, NodeAnswer::Skip).expect("it asks");
    assert_eq!(skipped.ready, [ReadyNode { node: 0, item: Some(1) }]);
    assert_eq!(scheduler.iterate_scope(0), Err(KernelError::IterationLimit));

    // The last outcome is in the log, and not yet what follows from it.
    let account = [scope(true), NodeState::Done { choice: None }, NodeState::Pending];
    let (_, implied) = Scheduler::restore_run(&looping(), &account).expect("it can be");
    assert_eq!(implied.ready, [ReadyNode { node: 0, item: Some(1) }]);
    let account = [scope(false), NodeState::Ready, NodeState::Pending];
    let error = Scheduler::restore_run(&looping(), &account).expect_err("no iteration goes on");
    assert_eq!((error.kind, error.node), (KernelError::BadState, Some(1)));
}

#[test]
fn bytes_that_were_not_saved_are_refused() {
    let (scheduler, _) = Scheduler::start(&chain(3)).expect("memory");
    let bytes = scheduler.save().expect("saved");
    let other = Scheduler::load(&chain(2), &bytes).expect_err("another graph");
    assert_eq!(other.kind, KernelError::BadBytes);
    let short = Scheduler::load(&chain(3), &bytes[1..]).expect_err("truncated");
    assert_eq!(short.kind, KernelError::BadBytes);
    assert_eq!(Scheduler::load(&chain(3), &bytes).expect("the same").hash(), scheduler.hash());
}
