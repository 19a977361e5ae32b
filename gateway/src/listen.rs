//! Connections: how many there may be, how long one may take to say what it wants, and their
//! orderly end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::app::stopped;

/// How long open streams may go on after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(3);
/// Wait after an accept failed, as it does when file descriptors run out.
const AGAIN: Duration = Duration::from_millis(50);

/// What callers are held to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// Longest time until the head of a request is there; idle connections are closed after it.
    pub head: Duration,
    /// Longest silence within the body of a request.
    pub silence: Duration,
    /// Longest time of a whole body.
    pub body: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            head: Duration::from_secs(30),
            silence: Duration::from_secs(15),
            body: Duration::from_secs(120),
        }
    }
}

/// Serves until `stop` holds true, then lets what is under way come to its end.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut stopping = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = stopped(&mut stop) => break,
        };
        if let Some((stream, permit)) = accepted {
            let (app, stopping) = (app.clone(), stopping.clone());
            connections.spawn(connection(stream, app, limits, stopping, permit));
        }
        while connections.try_join_next().is_some() {}
    }
    stopped(&mut stopping).await;
    let ended = async { while connections.join_next().await.is_some() {} };
    // Whoever still listens then is cut off: the log has everything.
    let _all_ended = timeout(DRAIN, ended).await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be accepted");
            tokio::time::sleep(AGAIN).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    app: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    // Small answers leave at once; without it answers are slower, and as right.
    let _sooner = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let service = TowerToHyperService::new(app);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Lets a body come no slower than the limits say; who reads it hears of an error otherwise.
pub(crate) async fn impatient(limits: Limits, request: Request, next: Next) -> Response {
    use axum::body::HttpBody;
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = Body::from_stream(timed(body.into_data_stream(), limits));
    next.run(Request::from_parts(parts, body)).await
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
