//! A state written down, so that it need not be folded again. What is derived is derived anew when
//! it is read: the fingerprint of what was read tells whether it is what was written.

use super::state::RunState;

impl RunState {
    pub(super) fn snapshot(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    pub(super) fn recall(bytes: &[u8]) -> Option<Self> {
        let mut state: Self = serde_json::from_slice(bytes).ok()?;
        let runnable = state.steps.values().filter(|step| step.is_runnable()).count();
        state.runnable = u32::try_from(runnable).ok()?;
        state.forget_prints();
        Some(state)
    }
}
