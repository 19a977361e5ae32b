//! Moves connections whose callers are authenticated to a runtime of their own. Accepting, TLS,
//! health checks and authentication stay on another one, so that they answer however busy the
//! workers are; and a request is read, worked on and answered without a change of thread.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::unauthenticated_connections::ConnectionAdmission;

/// Runs a connection on the work runtime, or on the current one if there is none. It is aborted
/// when this future is dropped.
pub(crate) async fn run_connection(
    work_runtime: Option<Handle>,
    connection: impl Future<Output = ()> + Send + 'static,
) {
    match work_runtime {
        // An error means that the runtime is shutting down or that the connection panicked: either
        // way it is closed.
        Some(runtime) => drop(AbortOnDropHandle::new(runtime.spawn(connection)).await),
        None => connection.await,
    }
}

/// A socket that registers anew with the reactor of the runtime to which its connection was moved:
/// its readiness then wakes a thread of that runtime, and of no other.
pub(crate) struct MovableStream {
    /// `None` only if registering failed.
    stream: Option<TcpStream>,
    admission: Arc<ConnectionAdmission>,
    has_moved: bool,
}

impl MovableStream {
    pub(crate) fn new(stream: TcpStream, admission: Arc<ConnectionAdmission>) -> Self {
        Self { stream: Some(stream), admission, has_moved: false }
    }

    fn poll_stream(&mut self) -> Poll<io::Result<Pin<&mut TcpStream>>> {
        if !self.has_moved && self.admission.is_moved_to_work() {
            self.has_moved = true;
            if let Some(stream) = self.stream.take() {
                self.stream = Some(TcpStream::from_std(stream.into_std()?)?);
            }
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Poll::Ready(Ok(Pin::new(stream)))
    }
}

impl AsyncRead for MovableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_stream())?.poll_read(context, buffer)
    }
}

impl AsyncWrite for MovableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream())?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream())?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream())?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream())?.poll_shutdown(context)
    }
}
