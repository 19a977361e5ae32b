//! Calls to the broker, with outcomes classified by what they prove about the message.

use std::borrow::Cow;
use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, RawMessageError, RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;

use super::outbox::Outbox;

/// Timeout of one call.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Outcome of a publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublishOutcome {
    /// The message is stored.
    Stored {
        /// Sequence number of the message in its JetStream stream.
        sequence: u64,
    },
    /// The expected version is stale. Our own message, sent before, may have moved it.
    WrongVersion,
    /// Refused for the moment; this message was not stored.
    NotNow(String),
    /// The stream or the server is out of space; this message was not stored.
    Full,
    /// Refused permanently; this message was not stored.
    Refused(String),
    /// No acknowledgement: the message may be stored, now or later.
    Unknown(String),
}

/// Reason why a call got no usable answer. Nothing is known about the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoAnswerError(pub(super) String);

#[derive(Deserialize)]
struct PublishAck<'a> {
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(default)]
    seq: u64,
    error: Option<JetStreamError>,
}

#[derive(Deserialize)]
struct JetStreamError {
    code: u16,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// A connection to the cluster with the calls of the log.
#[derive(Clone)]
pub(super) struct ClusterApi {
    pub(super) client: Client,
    pub(super) context: Context,
    outbox: Outbox,
}

impl ClusterApi {
    pub(super) fn new(client: Client) -> Self {
        let context =
            jetstream::ContextBuilder::new().timeout(ANSWER_TIMEOUT).build(client.clone());
        let outbox = Outbox::start(client.clone());
        Self { client, context, outbox }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Publishes a message once. If a position is expected, the broker stores it only directly
    /// after the subject's message at that position (0: as the subject's first).
    pub(super) async fn publish_message(
        &self,
        stream: &str,
        subject: &str,
        expected: Option<u64>,
        body: Bytes,
    ) -> PublishOutcome {
        // The client would buffer the message and send it after reconnecting, when its outcome is
        // no longer awaited.
        if !self.is_connected() {
            return PublishOutcome::NotNow("not connected to the cluster".into());
        }
        // The outbox applies the timeout, so that it runs from sending and not from queueing.
        let mut request = Request::new().payload(body).timeout(None);
        if let Some(position) = expected {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, position.to_string());
            request = request.headers(headers);
        }
        let answer = match self.outbox.send_request(subject.into(), request).await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => {
                let reason = error.to_string();
                return match error.kind() {
                    RequestErrorKind::NoResponders => {
                        PublishOutcome::NotNow("the stream has no leader".into())
                    }
                    RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                        PublishOutcome::Refused(reason)
                    }
                    RequestErrorKind::TimedOut | RequestErrorKind::Other => {
                        PublishOutcome::Unknown(reason)
                    }
                };
            }
            None => return PublishOutcome::Unknown("the cluster does not answer".into()),
        };
        parse_publish_ack(stream, &answer.payload)
    }

    /// Reads a stream's settings and state from its leader; `None` if there is no such stream.
    pub(super) async fn stream_info(&self, stream: &str) -> Result<Option<Info>, NoAnswerError> {
        use jetstream::context::GetStreamErrorKind;
        match self.context.get_stream(stream).await {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(inner)
                    if inner.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(NoAnswerError(error.to_string())),
            },
        }
    }

    /// Reads the message at a sequence number from the leader.
    pub(super) async fn message_at(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<StreamMessage>, NoAnswerError> {
        let request = self.stream_handle(stream).await?.raw_message_builder().sequence(sequence);
        optional_message(request.send().await)
    }

    /// Reads a subject's last message from the leader.
    pub(super) async fn last_message(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StreamMessage>, NoAnswerError> {
        let request =
            self.stream_handle(stream).await?.raw_message_builder().last_by_subject(subject);
        optional_message(request.send().await)
    }

    /// Reads a subject's first message at or after a sequence number from the leader.
    pub(super) async fn next_message(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
    ) -> Result<Option<StreamMessage>, NoAnswerError> {
        let request = self.stream_handle(stream).await?.raw_message_builder();
        optional_message(request.next_by_subject(subject).sequence(from).send().await)
    }

    /// Reads up to `limit` messages of a subject from a sequence number on, from any replica.
    /// Messages at the end may be missing, and all of them if the replica lags.
    pub(super) async fn read_batch(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StreamMessage>, NoAnswerError> {
        let no_answer = |error: &dyn std::fmt::Display| NoAnswerError(error.to_string());
        let inbox = self.client.new_inbox();
        let mut answers =
            self.client.subscribe(inbox.clone()).await.map_err(|error| no_answer(&error))?;
        let request = json!({"seq": from, "batch": limit, "next_by_subj": subject});
        let call = format!("$JS.API.DIRECT.GET.{stream}");
        let sent = self.client.publish_with_reply(call, inbox, request.to_string().into()).await;
        sent.map_err(|error| no_answer(&error))?;
        let mut messages = Vec::with_capacity(limit.min(1024));
        loop {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, answers.next()).await;
            let Ok(Some(answer)) = answer else {
                return Err(NoAnswerError("the cluster does not answer".into()));
            };
            match answer.status.map(|status| status.as_u16()) {
                None => {
                    let message = StreamMessage::try_from(answer);
                    messages.push(message.map_err(|error| no_answer(&error))?);
                }
                // Status 204 ends a batch, 404 means that there are no messages.
                Some(204 | 404) => return Ok(messages),
                Some(code) => {
                    let reason = answer.description.unwrap_or_default();
                    return Err(NoAnswerError(format!("{code} {reason}")));
                }
            }
        }
    }

    /// Overwrites a message with random bytes and removes it; true if it existed.
    pub(super) async fn erase_message(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<bool, NoAnswerError> {
        let call = format!("STREAM.MSG.DELETE.{stream}");
        let request = json!({"seq": sequence, "no_erase": false});
        let answer: Result<DeleteReply, _> = self.context.request(call, &request).await;
        match answer.map_err(|error| NoAnswerError(error.to_string()))? {
            DeleteReply { error: Some(error), .. } if !error.is_missing_message() => {
                Err(NoAnswerError(error.description))
            }
            DeleteReply { success, .. } => Ok(success),
        }
    }

    async fn stream_handle(&self, name: &str) -> Result<Stream<()>, NoAnswerError> {
        let stream = self.context.get_stream_no_info(name).await;
        stream.map_err(|error| NoAnswerError(error.to_string()))
    }

    /// Sends one request to many responders, and collects their replies until `enough` accepts them
    /// or `wait` has passed.
    pub(super) async fn request_all(
        &self,
        subject: &str,
        wait: Duration,
        enough: impl Fn(&[Bytes]) -> bool,
    ) -> Result<Vec<Bytes>, NoAnswerError> {
        let no_answer = |error: &dyn std::fmt::Display| NoAnswerError(error.to_string());
        let inbox = self.client.new_inbox();
        let mut answers =
            self.client.subscribe(inbox.clone()).await.map_err(|error| no_answer(&error))?;
        let sent = self.client.publish_with_reply(subject.to_owned(), inbox, Bytes::new()).await;
        sent.map_err(|error| no_answer(&error))?;
        let mut found = Vec::new();
        let deadline = tokio::time::Instant::now() + wait;
        while !enough(&found) {
            match tokio::time::timeout_at(deadline, answers.next()).await {
                Ok(Some(answer)) if answer.status.is_none() => {
                    found.push(answer.payload);
                }
                _ => break,
            }
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct DeleteReply {
    #[serde(default)]
    success: bool,
    error: Option<JetStreamError>,
}

/// Classifies an acknowledgement. A sequence number of another stream means that the subject was
/// reassigned, and proves nothing about our log.
fn parse_publish_ack(stream: &str, answer: &[u8]) -> PublishOutcome {
    match serde_json::from_slice::<PublishAck>(answer) {
        Ok(PublishAck { error: Some(error), .. }) => classify_refusal(error),
        Ok(PublishAck { seq, stream: by, .. }) if seq > 0 && by == stream => {
            PublishOutcome::Stored { sequence: seq }
        }
        // Stored elsewhere: somebody has given our subjects to another stream.
        Ok(PublishAck { seq, stream: by, .. }) if seq > 0 => {
            PublishOutcome::Refused(format!("the subject belongs to the stream {by} now"))
        }
        _ => PublishOutcome::Unknown("the acknowledgement cannot be read".into()),
    }
}

fn optional_message(
    answer: Result<StreamMessage, RawMessageError>,
) -> Result<Option<StreamMessage>, NoAnswerError> {
    match answer {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(NoAnswerError(error.to_string())),
    }
}

impl JetStreamError {
    /// Returns whether the message does not exist. For a delete, the broker answers a general code
    /// with the reason as text.
    fn is_missing_message(&self) -> bool {
        let is_failed_delete = self.err_code == DELETE_FAILED;
        self.err_code == NO_MESSAGE
            || (is_failed_delete && self.description.contains("no message found"))
    }
}

const NO_MESSAGE: u32 = 10_037;
const DELETE_FAILED: u32 = 10_057;

/// Classifies a refusal by JetStream's error codes.
fn classify_refusal(error: JetStreamError) -> PublishOutcome {
    let JetStreamError { code, err_code, description } = error;
    match err_code {
        10_071 => PublishOutcome::WrongVersion,
        // The version depends on a message that is still on its way, or the stream is not ready
        // yet.
        10_164 | 10_163 => PublishOutcome::NotNow(description),
        // Insufficient resources, memory or storage exceeded, maximum bytes or messages exceeded.
        10_023 | 10_028 | 10_047 | 10_077 | 10_122 => PublishOutcome::Full,
        _ if code == 503 || code == 429 => PublishOutcome::NotNow(description),
        _ => PublishOutcome::Refused(format!("{description} ({err_code})")),
    }
}

#[cfg(test)]
mod tests {
    use super::{JetStreamError, PublishOutcome, classify_refusal, parse_publish_ack};

    fn publish_outcome(code: u16, err_code: u32) -> PublishOutcome {
        classify_refusal(JetStreamError { code, err_code, description: "why".into() })
    }

    #[test]
    fn refusals_are_told_apart() {
        assert_eq!(publish_outcome(400, 10_071), PublishOutcome::WrongVersion);
        assert_eq!(publish_outcome(400, 10_164), PublishOutcome::NotNow("why".into()));
        assert_eq!(publish_outcome(503, 10_008), PublishOutcome::NotNow("why".into()));
        assert_eq!(publish_outcome(503, 10_077), PublishOutcome::Full);
        assert_eq!(publish_outcome(400, 10_060), PublishOutcome::Refused("why (10060)".into()));
    }

    #[test]
    fn only_what_lies_in_our_stream_is_stored() {
        let publish_outcome = |answer: &str| parse_publish_ack("A_LOG", answer.as_bytes());
        assert_eq!(
            publish_outcome(r#"{"stream":"A_LOG","seq":7}"#),
            PublishOutcome::Stored { sequence: 7 }
        );
        let other = publish_outcome(r#"{"stream":"B","seq":7}"#);
        assert!(
            matches!(other, PublishOutcome::Refused(reason) if reason.contains("stream B now"))
        );
        let wrong = r#"{"error":{"code":400,"err_code":10071},"stream":"A_LOG","seq":0}"#;
        assert_eq!(publish_outcome(wrong), PublishOutcome::WrongVersion);
        for unknown in ["", "{}", r#"{"stream":"A_LOG","seq":0}"#, "+OK"] {
            assert!(matches!(publish_outcome(unknown), PublishOutcome::Unknown(_)), "{unknown}");
        }
    }
}
