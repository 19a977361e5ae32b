//! The stable codes of error answers. Each has a page in `errors/`.

/// A code, its HTTP status and its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    /// Stable text of the code, as `graph.invalid`.
    pub code: &'static str,
    /// HTTP status of the answer.
    pub status: u16,
    /// The code in words.
    pub title: &'static str,
}

// One list gives the constants and `ALL`, against which a test compares the pages.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $title:literal;)*) => {
        $($(#[$doc])* pub const $name: ErrorCode =
            ErrorCode { code: $code, status: $status, title: $title };)*

        /// Every code that the API answers with.
        pub const ALL: &[ErrorCode] = &[$($name),*];
    };
}

codes! {
    /// No token, or a wrong one.
    AUTH_INVALID = "auth.invalid", 401, "Not signed in";
    /// The token's roles do not permit it.
    AUTH_FORBIDDEN = "auth.forbidden", 403, "Not permitted";
    /// Something about the request is malformed.
    REQUEST_INVALID = "request.invalid", 400, "The request is not valid";
    /// The provider has no such field, and without it the answer would be another.
    REQUEST_UNSUPPORTED = "request.unsupported", 400, "The provider does not take a field";
    /// The request contradicts the state of things.
    REQUEST_CONFLICT = "request.conflict", 409, "The request conflicts with the state";
    /// The run does not stand where what was asked for begins.
    RUN_NOT_RESUMABLE = "run.not_resumable", 409, "The run cannot go on like this";
    /// The run came as a file: it is history.
    RUN_IMPORTED = "run.imported", 409, "The run was imported";
    /// The run cannot go on by the graph version that was named.
    RUN_DIVERGED = "run.diverged", 409, "The run cannot go on by this version";
    /// The request is larger than the API takes.
    REQUEST_TOO_LARGE = "request.too_large", 413, "The request is too large";
    /// What is to be evaluated takes more time or memory than it may.
    EVALUATION_LIMIT = "evaluation.limit", 422, "The evaluation takes too much";
    /// So much is under way that nothing more is begun now.
    SERVER_BUSY = "server.busy", 503, "The server has too much to do";
    /// There is no such thing, or it is somebody else's.
    NOT_FOUND = "not_found", 404, "Not found";
    /// No provider that may be asked has the model.
    MODEL_NOT_FOUND = "model.not_found", 404, "There is no such model";
    /// The method is not offered here.
    METHOD_NOT_ALLOWED = "request.method", 405, "The method is not offered here";
    /// The idempotency key was used for another request.
    IDEMPOTENCY_MISMATCH = "idempotency.mismatch", 422, "The idempotency key was used before";
    /// The manifest has mistakes.
    GRAPH_INVALID = "graph.invalid", 400, "The manifest has mistakes";
    /// The log cannot be written or read now.
    LOG_UNAVAILABLE = "log.unavailable", 503, "The log is not available";
    /// A part of the server does not work, or is behind.
    NOT_READY = "server.not_ready", 503, "The server is not ready";
    /// The log's disk is full.
    LOG_FULL = "log.full", 507, "The log's disk is full";
    /// No key, or none that the provider wants.
    BYOK_MISSING_KEY = "byok.missing_key", 401, "The provider's key is missing";
    /// The provider refuses the configured key.
    BYOK_BAD_KEY = "byok.bad_key", 401, "The provider refuses its key";
    /// The next call could go over the run's budget.
    BUDGET_EXCEEDED = "budget.exceeded", 402, "The budget is used up";
    /// Privacy is `local`, and what was asked for is not.
    PRIVACY_DENIED = "privacy.cloud_denied", 403, "Privacy keeps it from the cloud";
    /// The provider's account has no money left, or has reached its limit.
    QUOTA_EXCEEDED = "provider.quota_exceeded", 402, "The provider's account may not spend";
    /// The provider wants to be left alone.
    RATE_LIMITED = "provider.rate_limited", 429, "The provider limits its use";
    /// The provider took too long.
    PROVIDER_TIMEOUT = "provider.timeout", 504, "The provider did not answer in time";
    /// The provider cannot be reached, or broke off.
    PROVIDER_UNAVAILABLE = "provider.unavailable", 503, "The provider is not available";
    /// The answer is not what was asked for.
    INVALID_ANSWER = "provider.invalid_answer", 502, "The model answered nonsense";
    /// The provider's filter refused the prompt or the answer.
    CONTENT_FILTERED = "provider.content_filtered", 400, "The provider filtered the content";
    /// The prompt and the answer do not fit the model's context.
    CONTEXT_EXCEEDED = "provider.context_exceeded", 400, "The prompt is too long for the model";
    /// A defect of the platform.
    INTERNAL = "internal", 500, "Internal error";
}

/// The code of this name.
pub fn find_code(code: &str) -> Option<ErrorCode> {
    ALL.iter().find(|known| known.code == code).copied()
}
