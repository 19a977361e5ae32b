//! Connections: how many there may be, how long one may take to say what it wants, and their
//! orderly end.

use std::net::IpAddr;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::app::stopped;
use crate::tls::Tls;
use crate::unauthenticated::{Admission, UnauthenticatedConnections, UnauthenticatedLimits};

/// How long open streams may go on after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(3);
/// Wait after an accept failed, as it does when file descriptors run out.
const AGAIN: Duration = Duration::from_millis(50);
/// One in so many connections may be of callers who have not signed in.
const UNAUTHENTICATED_PART: usize = 4;
/// One in so many of those may come from one address.
const ADDRESS_PART: usize = 2;

/// What callers are held to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted. A quarter of them, two at least, may
    /// be of callers who have not signed in; half of those from one address.
    pub connections: usize,
    /// Longest time from the beginning of a connection until its caller has signed in.
    pub sign_in: Duration,
    /// Longest time until the head of a request is there; idle connections are closed after it.
    pub head: Duration,
    /// Longest silence within the body of a request.
    pub silence: Duration,
    /// Longest time of a whole body.
    pub body: Duration,
    /// Longest time in which a caller takes nothing of what is sent.
    pub write: Duration,
    /// Whether all connections come from a proxy, which limits them by address.
    pub is_behind_proxy: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            sign_in: Duration::from_secs(5),
            head: Duration::from_secs(30),
            silence: Duration::from_secs(15),
            body: Duration::from_secs(120),
            write: Duration::from_secs(30),
            is_behind_proxy: false,
        }
    }
}

impl Limits {
    fn unauthenticated(&self) -> UnauthenticatedLimits {
        let total = (self.connections / UNAUTHENTICATED_PART).max(2);
        let per_address = if self.is_behind_proxy { total } else { total / ADDRESS_PART };
        UnauthenticatedLimits { total, per_address }
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct ConnectionContext {
    app: Router,
    limits: Limits,
    tls: Option<Tls>,
    stop: watch::Receiver<bool>,
}

/// Serves until `stop` holds true, then lets what is under way come to its end.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    tls: Option<Tls>,
    mut stop: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let unauthenticated = UnauthenticatedConnections::new(limits.unauthenticated());
    let mut connections = JoinSet::new();
    let context = ConnectionContext { app, limits, tls, stop: stop.clone() };
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = stopped(&mut stop) => break,
        };
        if let Some((stream, address, permit)) = accepted {
            let admission = unauthenticated.enter(address);
            connections.spawn(connection(stream, context.clone(), admission, permit));
        }
        while connections.try_join_next().is_some() {}
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    // Whoever still listens then is cut off: the log has everything.
    let _all_ended = timeout(DRAIN, ended).await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer.ip(), permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be accepted");
            tokio::time::sleep(AGAIN).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    context: ConnectionContext,
    admission: Arc<Admission>,
    _permit: OwnedSemaphorePermit,
) {
    // Small answers leave at once; without it answers are slower, and as right.
    let _sooner = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(context.limits.write));
    let stream = Box::pin(stream);
    let Some(tls) = context.tls.clone() else {
        return serve_connection(stream, context, admission).await;
    };
    let handshake = tokio::select! {
        handshake = timeout(context.limits.sign_in, tls.accept(stream)) => handshake,
        () = admission.evicted() => return,
    };
    match handshake {
        Ok(Ok(stream)) => serve_connection(stream, context, admission).await,
        Ok(Err(error)) => tracing::debug!(%error, "a caller does not speak TLS as it should"),
        Err(_) => {}
    }
}

async fn serve_connection<S>(stream: S, context: ConnectionContext, admission: Arc<Admission>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ConnectionContext { app, limits, tls: _, mut stop } = context;
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let of_connection = Arc::clone(&admission);
    let service =
        TowerToHyperService::new(app.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&of_connection));
            request
        }));
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = admission.evicted() => return,
        () = is_too_late_to_sign_in(&admission, limits.sign_in) => {
            connection.as_mut().graceful_shutdown();
            // An answer that is on its way may still arrive.
            timeout(limits.sign_in, connection).await.unwrap_or(Ok(()))
        }
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Waits until a caller has had its time to sign in and has not; for ever if it has.
async fn is_too_late_to_sign_in(admission: &Admission, patience: Duration) {
    tokio::time::sleep(patience).await;
    if admission.is_authenticated() {
        std::future::pending::<()>().await;
    }
}

/// Lets a body come no slower than the limits say; who reads it hears of an error otherwise.
pub(crate) fn limit_body_time(limits: Limits, request: Request) -> Request {
    use axum::body::HttpBody;
    if request.body().is_end_stream() {
        return request;
    }
    request.map(|body| Body::from_stream(timed(body.into_data_stream(), limits)))
}

fn timed<E: std::error::Error + Send + Sync + 'static>(
    chunks: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    limits: Limits,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    let end = Instant::now() + limits.body;
    stream::unfold(Some(chunks), move |chunks| async move {
        let mut chunks = chunks?;
        let until = end.min(Instant::now() + limits.silence);
        match timeout_at(until, chunks.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
            Ok(Some(Err(error))) => Some((Err(std::io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => {
                let late =
                    std::io::Error::new(std::io::ErrorKind::TimedOut, "the body is too slow");
                Some((Err(late), None))
            }
        }
    })
}
