//! Fingerprint of a run's state, updated at the cost of what changed.
//!
//! Each step, approval and child run is hashed by itself. The state's fingerprint is the wrapping
//! sum of these hashes, hashed together with the single fields. A commit hashes only the parts that
//! it touched, so that its cost does not grow with the graph.
//!
//! The hash covers field and variant names of the serialised parts. A field that is added must be
//! left out while it has its default value: fingerprints in existing logs would change otherwise.

use serde::Serialize;

use super::state::{FingerprintPart, RunState};
use crate::fingerprint::Fingerprint;

impl RunState {
    /// Rehashes the changed parts and returns the fingerprint of the state.
    pub fn refresh_fingerprint(&mut self) -> Fingerprint {
        for part in std::mem::take(&mut self.changed_parts) {
            self.rehash_part(&part);
        }
        let once = (
            (self.fingerprint_sum, self.seq, self.phase, self.created),
            (&self.graph, &self.input, &self.request_hash, &self.budget),
            (&self.spent, &self.output, &self.error),
        );
        // A run without a privacy limit hashes as if the field did not exist: older logs have none.
        let privacy = (!self.privacy.is_any()).then_some(self.privacy);
        let once =
            privacy.map_or_else(|| hash_value(&once), |privacy| hash_value(&(&once, privacy)));
        let with_origin = self.hash_with_origin(once);
        // Each later group of fields is hashed only where it is set, for the sake of existing logs.
        let steered = (self.paused, self.stood, &self.signals, &self.lineage);
        let is_plain =
            !self.paused && self.stood.0 == 0 && self.signals.is_empty() && self.lineage.is_empty();
        let steered = if is_plain { with_origin } else { hash_value(&(with_origin, steered)) };
        let steered =
            if self.pause.inherited { hash_value(&(steered, self.pause)) } else { steered };
        let has_tables = !self.tables.is_empty();
        let with_tables = if has_tables { hash_value(&(steered, &self.tables)) } else { steered };
        let has_requests = !self.requests.is_empty();
        let with_requests =
            if has_requests { hash_value(&(with_tables, &self.requests)) } else { with_tables };
        Fingerprint(if self.is_imported {
            hash_value(&(with_requests, "imported"))
        } else {
            with_requests
        })
    }

    /// Adds parent and agent to the hash. A run without either hashes as if the fields did not
    /// exist.
    fn hash_with_origin(&self, base_hash: u64) -> u64 {
        if self.origin.is_none() && self.agent.is_none() {
            return base_hash;
        }
        hash_value(&(base_hash, &self.origin, &self.agent, self.told))
    }

    /// Rehashes all parts, for a state that was decoded from a snapshot.
    pub(super) fn rehash_all_parts(&mut self) {
        self.changed_parts.clear();
        // A sum does not depend on the order of the parts, and one summand can be replaced without
        // the others.
        let mut sum = 0_u64;
        let mut add = |print: &mut u64, now: u64| {
            *print = now;
            sum = sum.wrapping_add(now);
        };
        for (id, step) in &mut self.steps {
            let now = hash_value(&(id, &*step));
            add(&mut step.fingerprint, now);
        }
        for (id, approval) in &mut self.approvals {
            let now = hash_value(&(id, &*approval));
            add(&mut approval.fingerprint, now);
        }
        for (id, child) in &mut self.children {
            let now = hash_value(&(id, &*child));
            add(&mut child.fingerprint, now);
        }
        self.fingerprint_sum = sum;
    }

    /// Rehashes one part and replaces its summand.
    fn rehash_part(&mut self, part: &FingerprintPart) {
        let (previous, now) = match part {
            FingerprintPart::Step(id) => {
                let Some(step) = self.steps.get_mut(id) else { return };
                let now = hash_value(&(id, &*step));
                (std::mem::replace(&mut step.fingerprint, now), now)
            }
            FingerprintPart::Approval(id) => {
                let Some(approval) = self.approvals.get_mut(id) else { return };
                let now = hash_value(&(id, &*approval));
                (std::mem::replace(&mut approval.fingerprint, now), now)
            }
            FingerprintPart::Child(id) => {
                let Some(child) = self.children.get_mut(id) else { return };
                let now = hash_value(&(id, &*child));
                (std::mem::replace(&mut child.fingerprint, now), now)
            }
        };
        self.fingerprint_sum = self.fingerprint_sum.wrapping_sub(previous).wrapping_add(now);
    }
}

/// Buffer capacity that suffices for most parts as JSON.
const PART_CAPACITY_BYTES: usize = 256;

/// Returns the first eight bytes of BLAKE3 of the value as JSON.
fn hash_value(value: &impl Serialize) -> u64 {
    let mut bytes = Vec::with_capacity(PART_CAPACITY_BYTES);
    // Serialising plain values into memory cannot fail.
    let _written = serde_json::to_writer(&mut bytes, value);
    let hash = blake3::hash(&bytes);
    let first = hash.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}
