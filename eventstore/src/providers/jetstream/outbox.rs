//! The publishes of many writers, sent together.
//!
//! Writers that were acknowledged in one packet go on at the same time. Sent one by one, their next
//! publishes would be as many packets, and each server would write and sync for a few messages at a
//! time. So whoever is ready publishes before what was gathered is sent; nobody is waited for.

use async_nats::Client;
use async_nats::client::{Request, RequestError};
use async_nats::{Message, Subject};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::api::ANSWER;

/// Publishes that may wait to be gathered; more wait with their writers.
const WAITING: usize = 1024;

/// An answer, or why there is none; the outer `None` is an answer that did not come in time.
pub(super) type Answer = Option<Result<Message, RequestError>>;

struct Letter {
    subject: Subject,
    request: Request,
    answer: oneshot::Sender<Answer>,
}

/// Takes publishes in.
#[derive(Clone)]
pub(super) struct Outbox(mpsc::Sender<Letter>);

impl Outbox {
    /// Begins to send, until nobody can publish any more.
    pub(super) fn start(client: Client) -> Self {
        let (letters, waiting) = mpsc::channel(WAITING);
        tokio::spawn(send(client, waiting));
        Self(letters)
    }

    /// Sends a request; `None` if it is not answered in time. It goes out even if nobody waits for
    /// the answer any more.
    pub(super) async fn ask(&self, subject: Subject, request: Request) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.0.send(Letter { subject, request, answer }).await.ok()?;
        answered.await.ok()?
    }
}

async fn send(client: Client, mut waiting: mpsc::Receiver<Letter>) {
    let (mut letters, mut sent) = (Vec::new(), FuturesUnordered::new());
    loop {
        tokio::select! {
            count = waiting.recv_many(&mut letters, WAITING) => {
                if count == 0 {
                    break;
                }
                // Lets everybody who is ready add to it.
                tokio::task::yield_now().await;
                while let Ok(letter) = waiting.try_recv() {
                    letters.push(letter);
                }
                sent.extend(letters.drain(..).map(|letter| deliver(&client, letter)));
            }
            Some(()) = sent.next() => {}
        }
    }
    while sent.next().await.is_some() {}
}

async fn deliver(client: &Client, letter: Letter) {
    let Letter { subject, request, answer } = letter;
    let asked = tokio::time::timeout(ANSWER, client.send_request(subject, request)).await;
    // Nobody waiting is fine.
    let _left = answer.send(asked.ok());
}
