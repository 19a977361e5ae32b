//! Where requests are worked on: connections, health and sign-in have a runtime of their own, so
//! that they answer however busy the others are.

use axum::response::{IntoResponse, Response};
use convergio_schemas::error_code;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::problem::ApiError;

/// Hands the work on a request over to the runtime that works. It is given up when its caller
/// leaves, as it would be without.
pub(crate) async fn hand_over(
    work_runtime: &Handle,
    work: impl Future<Output = Response> + Send + 'static,
) -> Response {
    let work = work.instrument(tracing::Span::current());
    match AbortOnDropHandle::new(work_runtime.spawn(work)).await {
        Ok(response) => response,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {
            let detail = "the server is stopping: send the request again";
            ApiError::retryable(error_code::NOT_READY, detail).into_response()
        }
    }
}
