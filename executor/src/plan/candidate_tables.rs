//! Candidate tables within the commit in preparation, each stored once.

use convergio_domain::payload::{PayloadPurpose, PayloadRef};
use convergio_domain::run::{CandidateTableRef, RouterCandidate};
use sha2::{Digest, Sha256};

use super::commit_plan::{CommitPlan, TableDigest};

impl CommitPlan {
    /// Finds an equal table in an earlier commit or in this one, else stores it.
    pub(crate) fn find_or_store_table(
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

/// Computes the digest of a table's JSON.
pub(crate) fn table_digest(bytes: &[u8]) -> TableDigest {
    Sha256::digest(bytes).into()
}
