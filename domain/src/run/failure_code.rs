//! The codes with which a step can fail: the one list of them.

/// A code that the failure of a step can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureCode {
    /// The code, as `provider.timeout`.
    pub code: &'static str,
    /// Whether another try may help; such a failure is repeated as the node's `retry` says.
    pub is_retryable: bool,
}

const fn retryable(code: &'static str) -> FailureCode {
    FailureCode { code, is_retryable: true }
}

const fn lasting(code: &'static str) -> FailureCode {
    FailureCode { code, is_retryable: false }
}

/// Every code, in order.
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

/// The entry of a code, if a step can fail with it.
pub fn failure_code(code: &str) -> Option<&'static FailureCode> {
    FAILURE_CODES.iter().find(|known| known.code == code)
}

/// The codes that are repeated, in order.
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
