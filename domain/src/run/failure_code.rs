//! The list of all codes with which a step can fail.

/// A code with which a step can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureCode {
    /// Stable text form, as `provider.timeout`.
    pub code: &'static str,
    /// True if another attempt may help; the node's `retry` policy then applies.
    pub is_retryable: bool,
}

const fn retryable(code: &'static str) -> FailureCode {
    FailureCode { code, is_retryable: true }
}

const fn lasting(code: &'static str) -> FailureCode {
    FailureCode { code, is_retryable: false }
}

/// All failure codes, in alphabetical order.
pub const FAILURE_CODES: [FailureCode; 34] = [
    lasting("agent.limit"),
    lasting("approval.denied"),
    lasting("approval.expired"),
    lasting("budget.exceeded"),
    lasting("byok.bad_key"),
    lasting("byok.missing_key"),
    lasting("evaluation.limit"),
    lasting("graph.invalid"),
    lasting("internal"),
    retryable("log.unavailable"),
    lasting("model.not_found"),
    lasting("payload.erased"),
    lasting("privacy.cloud_denied"),
    lasting("provider.content_filtered"),
    lasting("provider.context_exceeded"),
    retryable("provider.invalid_answer"),
    lasting("provider.quota_exceeded"),
    retryable("provider.rate_limited"),
    retryable("provider.timeout"),
    retryable("provider.unavailable"),
    lasting("request.invalid"),
    lasting("request.too_large"),
    lasting("request.unsupported"),
    lasting("run.cancelled"),
    lasting("run.imported"),
    lasting("signal.timeout"),
    lasting("sleep.timeout"),
    lasting("step.given_up"),
    lasting("step.unknown"),
    lasting("template.invalid"),
    lasting("tool.denied"),
    lasting("tool.invalid"),
    retryable("tool.timeout"),
    lasting("tool.unknown"),
];

/// Finds the entry of a code; `None` if no step fails with it.
pub fn failure_code(code: &str) -> Option<&'static FailureCode> {
    FAILURE_CODES.iter().find(|known| known.code == code)
}

/// Returns the retryable codes, in alphabetical order.
pub fn retryable_codes() -> impl Iterator<Item = &'static str> {
    FAILURE_CODES.iter().filter(|known| known.is_retryable).map(|known| known.code)
}

#[cfg(test)]
mod tests {
    use super::{FAILURE_CODES, failure_code, retryable_codes};

    #[test]
    fn the_list_is_in_order_and_names_each_code_once() {
        assert!(FAILURE_CODES.is_sorted_by(|one, next| one.code < next.code));
        assert!(failure_code("provider.timeout").is_some_and(|known| known.is_retryable));
        assert_eq!(failure_code("provider.rate_limit"), None);
        assert!(retryable_codes().all(|code| failure_code(code).is_some()));
    }
}
