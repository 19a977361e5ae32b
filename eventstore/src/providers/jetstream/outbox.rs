//! Batching of publishes: those of many writers are sent in one packet.
//!
//! Writers that were acknowledged in one packet continue at the same time. Sent one by one, their
//! next publishes would be as many packets, and each server would write and sync for a few messages
//! at a time. So all writers that are ready publish before the batch is sent; nobody is waited for.

use async_nats::Client;
use async_nats::client::{Request, RequestError};
use async_nats::{Message, Subject};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::api::ANSWER_TIMEOUT;

/// Capacity of the queue; further writers wait (back-pressure).
const QUEUED_REQUESTS: usize = 1024;

/// Reply of the broker, or the error of sending; `None` if no reply came in time.
pub(super) type RequestAnswer = Option<Result<Message, RequestError>>;

/// A publish in the queue.
struct QueuedRequest {
    subject: Subject,
    request: Request,
    answer: oneshot::Sender<RequestAnswer>,
}

/// Sending end of the queue of publishes.
#[derive(Clone)]
pub(super) struct Outbox(mpsc::Sender<QueuedRequest>);

impl Outbox {
    /// Starts the sending task, which ends with the last clone.
    pub(super) fn start(client: Client) -> Self {
        let (letters, waiting) = mpsc::channel(QUEUED_REQUESTS);
        tokio::spawn(send_queued(client, waiting));
        Self(letters)
    }

    /// Sends a request; `None` if it is not answered in time. The message is sent even if the
    /// caller is cancelled.
    pub(super) async fn send_request(&self, subject: Subject, request: Request) -> RequestAnswer {
        let (answer, answered) = oneshot::channel();
        self.0.send(QueuedRequest { subject, request, answer }).await.ok()?;
        answered.await.ok()?
    }
}

async fn send_queued(client: Client, mut waiting: mpsc::Receiver<QueuedRequest>) {
    let (mut letters, mut sent) = (Vec::new(), FuturesUnordered::new());
    loop {
        tokio::select! {
            count = waiting.recv_many(&mut letters, QUEUED_REQUESTS) => {
                if count == 0 {
                    break;
                }
                // Lets all writers that are ready add to the batch.
                tokio::task::yield_now().await;
                while let Ok(letter) = waiting.try_recv() {
                    letters.push(letter);
                }
                sent.extend(letters.drain(..).map(|letter| deliver_request(&client, letter)));
            }
            Some(()) = sent.next() => {}
        }
    }
    // All senders are gone; what was sent is still awaited, so that no request is cut off.
    while sent.next().await.is_some() {}
}

async fn deliver_request(client: &Client, letter: QueuedRequest) {
    let QueuedRequest { subject, request, answer } = letter;
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, client.send_request(subject, request)).await;
    // The writer may have been cancelled; its message is out all the same.
    let _left = answer.send(asked.ok());
}
