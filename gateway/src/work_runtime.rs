//! Runs requests on a runtime of their own. Connections, health checks and authentication stay on
//! another one, so that they answer however busy the workers are.

use axum::response::{IntoResponse, Response};
use convergio_schemas::error_code;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::problem::ApiError;

/// Runs a request on the work runtime. It is aborted when its caller disconnects, as hyper would
/// drop it on the connection's own runtime.
pub(crate) async fn hand_over(
    work_runtime: &Handle,
    work: impl Future<Output = Response> + Send + 'static,
) -> Response {
    // A spawned task does not inherit the span of the request.
    let work = work.instrument(tracing::Span::current());
    match AbortOnDropHandle::new(work_runtime.spawn(work)).await {
        Ok(response) => response,
        // The connection's task then fails as if the handler had panicked in it.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {
            let detail = "the server is stopping: send the request again";
            ApiError::retryable_error(error_code::NOT_READY, detail).into_response()
        }
    }
}
