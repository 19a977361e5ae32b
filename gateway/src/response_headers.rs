//! Headers that every answer carries for browsers and caches: store nothing, sniff nothing, embed
//! nothing. No answer is a page, so the strictest policy fits all of them.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Value of `Strict-Transport-Security`: browsers insist on TLS for a year.
const STRICT_TRANSPORT_SECURITY_VALUE: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Sent with every answer, encrypted or not.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 6] = [
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

/// Adds the security headers; `Strict-Transport-Security` only if this process terminates TLS.
pub(crate) fn add_security_headers(headers: &mut HeaderMap, is_encrypted: bool) {
    // One allocation: headers of the answer, and one more for TLS.
    headers.reserve(SECURITY_HEADERS.len() + 2);
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, value);
    }
    if is_encrypted {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY_VALUE);
    }
}
