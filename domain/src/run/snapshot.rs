//! Snapshots: the state as bytes, so that loading a run need not fold its whole history.
//!
//! Derived fields are computed anew on decoding. The reader compares the fingerprint with the
//! recorded one, so that a faulty snapshot is not used.
//!
//! ```text
//! format mark: 1 byte · length of the JSON: u64, little endian
//! the state as JSON, without compact steps · compact steps
//! ```

use super::compact_steps;
use super::state::RunState;
use super::step::RunStep;

/// Format number at the start of every snapshot. Change it with every change of the format, so that
/// older snapshots are ignored.
const FORMAT_MARK: u8 = 2;

impl RunState {
    /// Encodes the state; `None` only if it cannot be serialised.
    pub(super) fn encode_snapshot(&self) -> Option<Vec<u8>> {
        let json = serde_json::to_vec(self).ok()?;
        // 9 bytes of header; a compact step takes about 8.
        let mut bytes = Vec::with_capacity(json.len() + 8 * self.steps.len() + 9);
        bytes.push(FORMAT_MARK);
        bytes.extend_from_slice(&u64::try_from(json.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&json);
        compact_steps::write_compact_steps(&self.steps, &mut bytes);
        Some(bytes)
    }

    /// Decodes a state and recomputes its counters and hashes.
    pub(super) fn decode_snapshot(bytes: &[u8]) -> Option<Self> {
        let (FORMAT_MARK, rest) = bytes.split_first().map(|(mark, rest)| (*mark, rest))? else {
            return None;
        };
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (json, steps) = rest.split_at_checked(length)?;
        let mut state: Self = serde_json::from_slice(json).ok()?;
        state.steps.append(&mut compact_steps::read_compact_steps(steps)?);
        // Counters and hashes are not serialised: a stored one could contradict the steps.
        let runnable = state.steps.values().filter(|step| step.is_runnable()).count();
        state.runnable_steps = u32::try_from(runnable).ok()?;
        state.queued_calls = state.steps.values().map(RunStep::queued_call_count).sum();
        let active = state.steps.values().filter(|step| step.is_active()).count();
        state.active_steps = u32::try_from(active).ok()?;
        state.rehash_all_parts();
        Some(state)
    }
}
