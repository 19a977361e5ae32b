//! The order in which calls wait for a permit: first come, first served within a run, round robin
//! between runs.

use std::collections::{BTreeMap, VecDeque};

use convergio_domain::id::RunId;

/// Waiting calls in the order in which permits are granted to them.
#[derive(Debug)]
pub(super) struct CallQueue<T> {
    /// Calls that the provider refused for overload: they had their turn already and go first.
    refused: VecDeque<T>,
    /// Calls that were not sent yet, by run; no list is empty.
    by_run: BTreeMap<Option<RunId>, VecDeque<T>>,
    /// Runs with waiting calls, each once, the next one first.
    turns: VecDeque<Option<RunId>>,
}

impl<T> CallQueue<T> {
    pub(super) fn new() -> Self {
        Self { refused: VecDeque::new(), by_run: BTreeMap::new(), turns: VecDeque::new() }
    }

    /// Adds a call of a run. Calls without a run share a turn of their own.
    pub(super) fn push(&mut self, run: Option<RunId>, call: T) {
        let calls = self.by_run.entry(run).or_default();
        // A run is in `turns` exactly while it has waiting calls.
        if calls.is_empty() {
            self.turns.push_back(run);
        }
        calls.push_back(call);
    }

    /// Adds a call that was refused and is to be sent again.
    pub(super) fn push_refused(&mut self, call: T) {
        self.refused.push_back(call);
    }

    /// Removes the next call: a refused one, else the first of the run whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        if let Some(call) = self.refused.pop_front() {
            return Some(call);
        }
        let run = self.turns.pop_front()?;
        let calls = self.by_run.get_mut(&run)?;
        let call = calls.pop_front();
        if calls.is_empty() {
            self.by_run.remove(&run);
        } else {
            // The run goes to the end, so that a run with many calls does not delay others.
            self.turns.push_back(run);
        }
        call
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::id::RunId;
    use uuid::Uuid;

    use super::CallQueue;

    fn run(number: u128) -> Option<RunId> {
        Some(RunId(Uuid::from_u128(number)))
    }

    #[test]
    fn runs_take_turns_and_a_wide_one_does_not_keep_others_waiting() {
        let mut queue = CallQueue::new();
        for call in ["a1", "a2", "a3"] {
            queue.push(run(9), call);
        }
        queue.push(run(1), "b1");
        queue.push(None, "c1");
        queue.push(run(1), "b2");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn refused_calls_go_first_in_the_order_of_their_refusals() {
        let mut queue = CallQueue::new();
        queue.push(run(1), "new");
        queue.push_refused("refused 1");
        queue.push_refused("refused 2");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["refused 1", "refused 2", "new"]);
    }

    #[test]
    fn a_run_that_comes_back_waits_for_its_turn() {
        let mut queue = CallQueue::new();
        queue.push(run(1), "a1");
        queue.push(run(2), "b1");
        assert_eq!(queue.pop(), Some("a1"));
        queue.push(run(1), "a2");
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some("b1"), Some("a2"), None));
    }
}
