//! Candidate tables that a run remembers, so that a table in use is not stored again.

use super::routing::{RouterDecision, RoutingCandidates};
use super::state::RunState;

/// Maximum number of candidate tables that a run remembers, so that a table in use is not stored
/// again with every call.
const TABLES_LIMIT: usize = 4;

impl RunState {
    /// Remembers the candidate table of a call. The most recently used table is last, and the first
    /// is dropped at the limit.
    pub(super) fn remember_candidate_table(&mut self, routing: &RouterDecision) {
        let RoutingCandidates::Table(reference) = routing.candidates else { return };
        let reference = self.history_reference(reference);
        // A repeated table moves to the end, so that tables in use are not dropped.
        self.tables.retain(|known| *known != reference);
        if self.tables.len() == TABLES_LIMIT {
            self.tables.remove(0);
        }
        self.tables.push(reference);
    }
}

#[cfg(test)]
mod tests {
    use super::{RouterDecision, RoutingCandidates};
    use crate::run::RunState;

    #[test]
    fn the_last_tables_are_remembered_and_printed() {
        let mut state = RunState::default();
        let before = state.refresh_fingerprint();
        for table in [1, 2, 1, 3, 4, 5] {
            state.remember_candidate_table(&RouterDecision {
                candidates: RoutingCandidates::Table(
                    format!("{table}.0").parse().expect("a place"),
                ),
                tokens_in: 0,
                tokens_out: 0,
                local: false,
                pinned: None,
                prefers: None,
                verdicts: None,
            });
        }
        let known: Vec<_> = state.tables.iter().map(ToString::to_string).collect();
        assert_eq!(known, ["1.0", "3.0", "4.0", "5.0"]);
        assert_ne!(state.refresh_fingerprint(), before);
    }
}
