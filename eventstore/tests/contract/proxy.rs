//! TCP proxies: one loses things, together with the connection, and one says another word.

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

/// A word that is said in place of another one of the same length.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    pub(crate) from: &'static [u8],
    pub(crate) to: &'static [u8],
}

/// Listens, and passes on to a port, changing what the server says; gives its own port.
pub(crate) async fn changing(to: u16, words: Words) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            tokio::spawn(async move {
                static NONE: AtomicU64 = AtomicU64::new(0);
                tokio::join!(
                    pass(client_read, server_write, &NONE),
                    pass_changed(server_read, client_write, words)
                );
            });
        }
    });
    port
}

async fn pass_changed(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, words: Words) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let said = &mut buffer[..read];
        for at in 0..said.len().saturating_sub(words.from.len() - 1) {
            if said[at..].starts_with(words.from) {
                said[at..at + words.to.len()].copy_from_slice(words.to);
            }
        }
        if to.write_all(said).await.is_err() {
            return;
        }
    }
}
