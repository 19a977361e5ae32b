//! What every answer tells browsers and caches: keep nothing, guess nothing, embed nothing.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

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

/// Whether answers travel over TLS of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IsEncrypted(pub(crate) bool);

pub(crate) async fn add_security_headers(
    State(IsEncrypted(is_encrypted)): State<IsEncrypted>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    if is_encrypted {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, TLS_FROM_NOW_ON);
    }
    response
}
