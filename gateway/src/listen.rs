//! Accepting connections: their number, the time limits on slow callers, and orderly shutdown.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::state::wait_for_stop;
use crate::tls::Tls;
use crate::unauthenticated_connections::{
    ConnectionAdmission, UnauthenticatedConnections, UnauthenticatedLimits,
};
use crate::work_runtime::{self, MovableStream};

/// Maximum time that open connections may take after shutdown was requested.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Delay after a failed accept, as happens when file descriptors run out.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Divisor of `max_connections` that gives the maximum of unauthenticated ones.
const UNAUTHENTICATED_DIVISOR: usize = 4;
/// Divisor of that maximum that gives the maximum of each address.
const ADDRESS_DIVISOR: usize = 2;

/// Limits on connections and on slow callers.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Maximum open connections; further ones wait in the kernel's queue. A quarter of them, at
    /// least two, may be unauthenticated, and half of those may come from one address.
    pub max_connections: usize,
    /// Maximum time from accept until the caller is authenticated.
    pub sign_in_timeout: Duration,
    /// Maximum time for the head of a request; also the idle timeout of a connection.
    pub head_timeout: Duration,
    /// Maximum time between two chunks of a request body.
    pub body_idle_timeout: Duration,
    /// Maximum time for a whole request body.
    pub body_timeout: Duration,
    /// Maximum time in which a caller reads nothing of what is sent.
    pub write_timeout: Duration,
    /// True if all connections come from one reverse proxy, which then has to limit each address.
    pub is_behind_proxy: bool,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            sign_in_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(30),
            is_behind_proxy: false,
        }
    }
}

impl ConnectionLimits {
    fn unauthenticated_limits(&self) -> UnauthenticatedLimits {
        let total = (self.max_connections / UNAUTHENTICATED_DIVISOR).max(2);
        // Behind a proxy all connections share the proxy's address.
        let per_address = if self.is_behind_proxy { total } else { total / ADDRESS_DIVISOR };
        UnauthenticatedLimits { total, per_address }
    }
}

/// Context of a connection task; cloned for each connection.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    pub(crate) app: Router,
    pub(crate) limits: ConnectionLimits,
    /// TLS configuration; connections are plain text if `None`.
    pub(crate) tls: Option<Tls>,
    /// Runtime that serves connections whose callers are authenticated; if `None`, they stay where
    /// they were accepted.
    pub(crate) work_runtime: Option<Handle>,
    /// Becomes true when the server shuts down.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Accepts connections until the server shuts down, then waits up to [`DRAIN_TIMEOUT`] for the open
/// ones.
pub(crate) async fn serve_connections(listener: TcpListener, context: ConnectionContext) {
    let (limits, mut stop) = (context.limits, context.stop.clone());
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let unauthenticated = UnauthenticatedConnections::new(limits.unauthenticated_limits());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept_connection(&listener, &permits) => accepted,
            () = wait_for_stop(&mut stop) => break,
        };
        if let Some((stream, address, permit)) = accepted {
            let admission = unauthenticated.admit_connection(address);
            connections.spawn(handle_connection(stream, context.clone(), admission, permit));
        }
        // Reaps finished tasks; a `JoinSet` keeps their results until they are taken.
        while connections.try_join_next().is_some() {}
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    // Streams that are still open are cut: clients resume from the log without loss.
    let _all_ended = timeout(DRAIN_TIMEOUT, ended).await;
}

async fn accept_connection(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    // The permit is taken before the accept, so that surplus connections stay in the kernel's queue
    // and cost no memory here.
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer.ip(), permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be accepted");
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            None
        }
    }
}

async fn handle_connection(
    stream: TcpStream,
    context: ConnectionContext,
    admission: Arc<ConnectionAdmission>,
    _permit: OwnedSemaphorePermit,
) {
    // `TCP_NODELAY` only improves latency, so its failure is ignored.
    let _sooner = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(MovableStream::new(stream, Arc::clone(&admission)));
    stream.set_write_timeout(Some(context.limits.write_timeout));
    let stream = Box::pin(stream);
    let Some(tls) = context.tls.clone() else {
        return serve_http(stream, context, admission).await;
    };
    // The TLS handshake counts as time before sign-in: an idle client must not hold the connection.
    let handshake = tokio::select! {
        handshake = timeout(context.limits.sign_in_timeout, tls.accept_tls(stream)) => handshake,
        () = admission.wait_for_eviction() => return,
    };
    match handshake {
        Ok(Ok(stream)) => serve_http(stream, context, admission).await,
        Ok(Err(error)) => tracing::debug!(%error, "a caller does not speak TLS as it should"),
        Err(_) => {}
    }
}

async fn serve_http<S>(stream: S, context: ConnectionContext, admission: Arc<ConnectionAdmission>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ConnectionContext { app, limits, tls: _, work_runtime, mut stop } = context;
    // HTTP/1.1 only: a connection has one request at a time, which the limits count on.
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
    let connection_admission = Arc::clone(&admission);
    let service =
        TowerToHyperService::new(app.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&connection_admission));
            request
        }));
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = Box::pin(connection);
    let mut sign_in_deadline = pin!(tokio::time::sleep(limits.sign_in_timeout));
    let (mut is_late, mut is_stopping) = (false, false);
    let ended = loop {
        tokio::select! {
            // In this order: polling the connection authenticates its caller, whose request then
            // waits for the move, so that no other end may come first.
            biased;
            ended = connection.as_mut() => break ended,
            () = admission.wait_for_authentication() => {
                let connection = async move {
                    admission.mark_moved_to_work();
                    let ended = tokio::select! {
                        ended = connection.as_mut() => ended,
                        () = wait_for_stop(&mut stop) => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    };
                    log_connection_error(ended);
                };
                return work_runtime::run_connection(work_runtime, connection).await;
            }
            () = admission.wait_for_eviction() => return,
            () = sign_in_deadline.as_mut() => {
                // A response on its way may still be sent, within the same time once more.
                if std::mem::replace(&mut is_late, true) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                sign_in_deadline.as_mut().reset(Instant::now() + limits.sign_in_timeout);
            }
            () = wait_for_stop(&mut stop), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    log_connection_error(ended);
}

fn log_connection_error(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Applies the body timeouts to a request; its reader gets an error if the body is too slow.
pub(crate) fn limit_body_time(limits: ConnectionLimits, request: Request) -> Request {
    use axum::body::HttpBody;
    if request.body().is_end_stream() {
        return request;
    }
    request.map(|body| Body::from_stream(with_body_timeouts(body.into_data_stream(), limits)))
}

fn with_body_timeouts<E: std::error::Error + Send + Sync + 'static>(
    chunks: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    limits: ConnectionLimits,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    let body_deadline = Instant::now() + limits.body_timeout;
    stream::unfold(Some(chunks), move |chunks| async move {
        let mut chunks = chunks?;
        let chunk_deadline = body_deadline.min(Instant::now() + limits.body_idle_timeout);
        match timeout_at(chunk_deadline, chunks.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
            Ok(Some(Err(error))) => Some((Err(std::io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => {
                let timeout_error =
                    std::io::Error::new(std::io::ErrorKind::TimedOut, "the body is too slow");
                Some((Err(timeout_error), None))
            }
        }
    })
}
