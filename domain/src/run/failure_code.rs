//! The list of all codes with which a step can fail.

/// A code with which a step can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureCode {
    /// Stable text form, as `provider.timeout`.
    pub code: &'static str,
    /// True if another attempt may help; the node's `retry` policy then applies.
    pub is_retryable: bool,
}

const fn retryable_entry(code: &'static str) -> FailureCode {
    FailureCode { code, is_retryable: true }
}

const fn permanent_entry(code: &'static str) -> FailureCode {
    FailureCode { code, is_retryable: false }
}

/// All failure codes, in alphabetical order.
pub const FAILURE_CODES: [FailureCode; 34] = [
    permanent_entry("agent.limit"),
    permanent_entry("approval.denied"),
    permanent_entry("approval.expired"),
    permanent_entry("budget.exceeded"),
    permanent_entry("byok.bad_key"),
    permanent_entry("byok.missing_key"),
    permanent_entry("evaluation.limit"),
    permanent_entry("graph.invalid"),
    permanent_entry("internal"),
    retryable_entry("log.unavailable"),
    permanent_entry("model.not_found"),
    permanent_entry("payload.erased"),
    permanent_entry("privacy.cloud_denied"),
    permanent_entry("provider.content_filtered"),
    permanent_entry("provider.context_exceeded"),
    retryable_entry("provider.invalid_answer"),
    permanent_entry("provider.quota_exceeded"),
    retryable_entry("provider.rate_limited"),
    retryable_entry("provider.timeout"),
    retryable_entry("provider.unavailable"),
    permanent_entry("request.invalid"),
    permanent_entry("request.too_large"),
    permanent_entry("request.unsupported"),
    permanent_entry("run.cancelled"),
    permanent_entry("run.imported"),
    permanent_entry("signal.timeout"),
    permanent_entry("sleep.timeout"),
    permanent_entry("step.given_up"),
    permanent_entry("step.unknown"),
    permanent_entry("template.invalid"),
    permanent_entry("tool.denied"),
    permanent_entry("tool.invalid"),
    retryable_entry("tool.timeout"),
    permanent_entry("tool.unknown"),
];

/// Finds the entry of a code; `None` if no step fails with it.
pub fn find_failure_code(code: &str) -> Option<&'static FailureCode> {
    FAILURE_CODES.iter().find(|known| known.code == code)
}

/// Returns the retryable codes, in alphabetical order.
pub fn retryable_codes() -> impl Iterator<Item = &'static str> {
    FAILURE_CODES.iter().filter(|known| known.is_retryable).map(|known| known.code)
}

#[cfg(test)]
mod tests {
    use super::{FAILURE_CODES, find_failure_code, retryable_codes};

    #[test]
    fn the_list_is_in_order_and_names_each_code_once() {
        assert!(FAILURE_CODES.is_sorted_by(|one, next| one.code < next.code));
        assert!(find_failure_code("provider.timeout").is_some_and(|known| known.is_retryable));
        assert_eq!(find_failure_code("provider.rate_limit"), None);
        assert!(retryable_codes().all(|code| find_failure_code(code).is_some()));
    }
}
