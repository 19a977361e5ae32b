//! A TCP proxy that loses things: what it loses, it loses together with the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Which pieces are lost: every n-th of each direction; 0 is none.
#[derive(Default)]
pub(crate) struct Losses {
    pub(crate) requests: AtomicU64,
    pub(crate) answers: AtomicU64,
    /// Connections cut so far.
    pub(crate) cut: AtomicU64,
}

/// Listens, and passes on to a port; gives its own.
pub(crate) async fn start(to: u16, losses: Arc<Losses>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(connection(client, to, Arc::clone(&losses)));
        }
    });
    port
}

async fn connection(client: TcpStream, to: u16, losses: Arc<Losses>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    // Whoever ends first ends both: the connection is gone.
    tokio::select! {
        () = pass(client_read, server_write, &losses.requests) => {}
        () = pass(server_read, client_write, &losses.answers) => {}
    }
    losses.cut.fetch_add(1, Ordering::Relaxed);
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, every: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    let mut pieces = 0;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        pieces += 1;
        let every = every.load(Ordering::Relaxed);
        if every != 0 && pieces % every == 0 {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
