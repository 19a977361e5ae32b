//! A test heap that fails on demand and counts blocks in use.

use std::cell::Cell;

thread_local! {
    /// Blocks that may still be allocated on this thread.
    static GRANTS_LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    /// Blocks in use that this thread allocated.
    static BLOCKS_LENT: Cell<usize> = const { Cell::new(0) };
}

/// Counts an allocation; false if it must fail.
pub(crate) fn grant_block() -> bool {
    let grants = GRANTS_LEFT.get();
    if grants == 0 {
        return false;
    }
    GRANTS_LEFT.set(grants - 1);
    BLOCKS_LENT.set(BLOCKS_LENT.get() + 1);
    true
}

/// Counts a block that the kernel released.
pub(crate) fn return_block() {
    BLOCKS_LENT.set(BLOCKS_LENT.get().wrapping_sub(1));
}

/// Runs `work` with `grants` allocations and returns its result and the blocks still in use.
pub(crate) fn with_grants<T>(grants: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let before = BLOCKS_LENT.get();
    GRANTS_LEFT.set(grants);
    let result = work();
    GRANTS_LEFT.set(usize::MAX);
    (result, BLOCKS_LENT.get() - before)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::with_grants;
    use crate::{
        CompileError, EdgeSpec, ItemState, KernelError, KernelGraph, MemoryIndex, MemoryItem,
        NodeOutcome, NodeSpec, NodeState, NodeStatus, ScheduleDelta, Scheduler,
    };

    const DONE: NodeOutcome = NodeOutcome::Done { choice: None };

    fn chain() -> Result<Arc<KernelGraph>, CompileError> {
        let edges = [EdgeSpec { from: 0, to: 1, port: None }];
        KernelGraph::compile_graph(&[NodeSpec::default(); 2], &edges).map(Arc::new)
    }

    /// Everything that allocates, and gives all of it back.
    fn live_and_restore() -> Result<Vec<ScheduleDelta>, CompileError> {
        let graph = chain()?;
        let (mut scheduler, started) = Scheduler::start(&graph)?;
        let expanded = scheduler.expand_node(0, 2, 1)?;
        let next = scheduler.complete_item(0, 0, DONE)?;
        let items = vec![ItemState::Done, ItemState::Waiting];
        let states = [NodeState::Map { max_parallel: 1, items }, NodeState::Pending];
        let (_, restored) = Scheduler::restore_run(&graph, &states)?;
        Scheduler::load(&graph, &scheduler.save()?)?;
        MemoryIndex::new(1)?.add_item(&MemoryItem {
            text: "a word",
            vector: &[1],
            time_ms: 0,
            tokens: 2,
            importance: 0,
        })?;
        Ok(vec![started, expanded, next, restored])
    }

    #[test]
    fn every_refused_block_is_an_error_and_leaks_nothing() {
        let (wanted, _) = with_grants(usize::MAX, live_and_restore);
        for grants in 0.. {
            let (result, lent) = with_grants(grants, live_and_restore);
            assert_eq!(lent, 0, "blocks lost when block {grants} is refused");
            match result {
                Err(error) => assert_eq!(error.kind, KernelError::NoMemory),
                Ok(_) => {
                    assert!(grants > 8, "fewer blocks than parts");
                    assert_eq!(result, wanted);
                    return;
                }
            }
        }
    }

    #[test]
    fn a_call_that_ran_out_of_memory_can_be_repeated() {
        let graph = chain().expect("a chain compiles");
        let (mut scheduler, _) = Scheduler::start(&graph).expect("memory for two nodes");
        let wanted = scheduler.clone().expand_node(0, 40, 20).expect("memory for a map");
        let mut refusals = 0;
        let expanded = loop {
            match with_grants(refusals, || scheduler.expand_node(0, 40, 20)).0 {
                Ok(delta) => break delta,
                Err(error) => assert_eq!(error, KernelError::NoMemory),
            }
            assert_eq!(scheduler.node_status(0), Ok(NodeStatus::Ready));
            refusals += 1;
        };
        assert_eq!(expanded, wanted);
        assert!(refusals > 1, "the list of ready items and the map are separate blocks");
    }
}
