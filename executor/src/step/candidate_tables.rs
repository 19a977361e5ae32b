//! Candidate tables: the models that a call was chosen from, stored once while they stay the same.

use convergio_domain::run::{CandidateTableRef, RouterDecision, lineage};
use convergio_eventstore::LogError;

use super::planner::Planner;
use crate::catalog::router::RoutingRecord;
use crate::plan::{CommitPlan, table_digest};

impl Planner<'_> {
    /// Records the candidates of a call for its intent.
    pub(super) async fn record_routing(
        &mut self,
        plan: &mut CommitPlan,
        routed: RoutingRecord,
    ) -> Result<Box<RouterDecision<CandidateTableRef>>, LogError> {
        // A single candidate is written into the event itself, without a table.
        if routed.candidates.len() > 1 {
            self.load_known_tables().await?;
        }
        let known_tables = self.caches.candidate_tables.as_deref().unwrap_or_default();
        Ok(Box::new(routed.into_routing(|offered| plan.find_or_store_table(known_tables, offered))))
    }

    /// Loads the digests of the tables that this run wrote before it was loaded.
    async fn load_known_tables(&mut self) -> Result<(), LogError> {
        if self.caches.candidate_tables.is_some() {
            return Ok(());
        }
        let mut known_tables = Vec::new();
        for reference in &self.run.state.tables {
            let (stream, stored_at) =
                lineage::locate_payload(&self.run.state.lineage, &self.run.stream, *reference);
            if let Some(bytes) = self.shared.repository.read_payload(&stream, stored_at).await? {
                known_tables.push((table_digest(&bytes), stored_at));
            }
        }
        self.caches.candidate_tables = Some(known_tables);
        Ok(())
    }
}
