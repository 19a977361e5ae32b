//! Candidate tables: the models that a call was chosen from, stored once while they stay the same.

use convergio_domain::payload::{PayloadPurpose, PayloadRef};
use convergio_domain::run::{CandidateTableRef, RouterCandidate, RouterDecision, lineage};
use convergio_eventstore::LogError;
use sha2::{Digest, Sha256};

use super::Actor;
use super::commit_plan::CommitPlan;
use crate::catalog::router::RoutingRecord;

/// SHA-256 of a table's JSON, which identifies equal tables.
pub(super) type TableDigest = [u8; 32];

impl Actor {
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
        let known_tables = self.candidate_tables.as_deref().unwrap_or_default();
        Ok(Box::new(routed.into_routing(|offered| plan.find_or_store_table(known_tables, offered))))
    }

    /// Loads the digests of the tables that this run wrote before it was loaded.
    async fn load_known_tables(&mut self) -> Result<(), LogError> {
        if self.candidate_tables.is_some() {
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
        self.candidate_tables = Some(known_tables);
        Ok(())
    }
}

impl CommitPlan {
    /// Finds an equal table in an earlier commit or in this one, else stores it.
    fn find_or_store_table(
        &mut self,
        known_tables: &[(TableDigest, PayloadRef)],
        offered: &[RouterCandidate],
    ) -> CandidateTableRef {
        // Serialising plain values cannot fail.
        let bytes = serde_json::to_vec(offered).unwrap_or_default();
        let digest = table_digest(&bytes);
        if let Some((_, reference)) = known_tables.iter().find(|(other, _)| *other == digest) {
            return CandidateTableRef::Known(*reference);
        }
        if let Some((_, slot)) = self.candidate_tables.iter().find(|(other, _)| *other == digest) {
            return CandidateTableRef::New(*slot);
        }
        let slot = self.store_payload(bytes, "application/json", PayloadPurpose::Candidates);
        self.candidate_tables.push((digest, slot));
        CandidateTableRef::New(slot)
    }
}

fn table_digest(bytes: &[u8]) -> TableDigest {
    Sha256::digest(bytes).into()
}
