//! Usage of a call whose outcome is lost: most likely its input was processed.

use super::usage::{Meter, Usage};
use crate::run::PendingModelCall;

/// Returns what the intent of a call notes for the case that its outcome is lost: the meter (`None`
/// for fresh input tokens, which the event leaves out) and the quantity. `service_quantity` is that
/// of a call that is no chat.
pub fn lost_call_estimate(
    service_quantity: Option<(Meter, u64)>,
    input_tokens: u64,
) -> (Option<Meter>, u64) {
    let (meter, quantity) = service_quantity.unwrap_or((Meter::InFresh, input_tokens));
    (Some(meter).filter(|meter| *meter != Meter::InFresh), quantity)
}

impl PendingModelCall {
    /// Returns the usage to record if the call's outcome is lost. Records of early versions have no
    /// estimate: their input is the hold without the answer's limit, `answer_tokens`.
    pub fn lost_usage(&self, answer_tokens: u64) -> Usage {
        let derived_input = || self.reserved_tokens.saturating_sub(answer_tokens);
        let quantity = self.estimated_tokens.unwrap_or_else(derived_input);
        Usage([(self.estimated_meter.unwrap_or(Meter::InFresh), quantity)].into())
    }
}
