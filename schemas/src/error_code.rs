//! The stable codes of errors. Each has a page in `errors/`.

/// A code, its HTTP status and its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    /// The code.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The code in words.
    pub title: &'static str,
}

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
    /// Something about the request is malformed.
    REQUEST_INVALID = "request.invalid", 400, "The request is not valid";
    /// The request contradicts the state of things.
    REQUEST_CONFLICT = "request.conflict", 409, "The request conflicts with the state";
    /// The request is larger than the API takes.
    REQUEST_TOO_LARGE = "request.too_large", 413, "The request is too large";
    /// There is no such thing, or it is somebody else's.
    NOT_FOUND = "not_found", 404, "Not found";
    /// The method is not offered here.
    METHOD_NOT_ALLOWED = "request.method", 405, "The method is not offered here";
    /// The idempotency key was used for another request.
    IDEMPOTENCY_MISMATCH = "idempotency.mismatch", 422, "The idempotency key was used before";
    /// The manifest has mistakes.
    GRAPH_INVALID = "graph.invalid", 400, "The manifest has mistakes";
    /// The log cannot be written or read now.
    LOG_UNAVAILABLE = "log.unavailable", 503, "The log is not available";
    /// The log's disk is full.
    LOG_FULL = "log.full", 507, "The log's disk is full";
    /// A defect of the platform.
    INTERNAL = "internal", 500, "Internal error";
}
