//! What every answer tells browsers and caches: keep nothing, guess nothing, embed nothing.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// How long browsers are to insist on TLS once they have seen it: a year.
const TLS_FROM_NOW_ON: HeaderValue = HeaderValue::from_static("max-age=31536000");

const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Adds them to the headers of an answer; `is_encrypted` tells whether it travels over TLS of ours.
pub(crate) fn add_security_headers(headers: &mut HeaderMap, is_encrypted: bool) {
    headers.reserve(HEADERS.len() + 2);
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    if is_encrypted {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, TLS_FROM_NOW_ON);
    }
}
