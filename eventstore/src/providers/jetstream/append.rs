//! Appending: one message per record, sent until its outcome is known.
//!
//! The broker's replies are not enough: the order of its checks differs with the number of
//! replicas, and an acknowledgement may be lost. So every reply but a plain "stored" is resolved by
//! reading from the leader the record that follows the expected one. That record is ours
//! (appended), another (a conflict for ever, since versions only grow), or absent (send again).

use std::time::Duration;

use tokio::time::Instant;

use super::api::PublishOutcome;
use super::log_core::{Backoff, LogCore, RETRY_TIMEOUT};
use super::wire;
use crate::error::{AppendError, LogError};
use crate::log::Durability;
use crate::prepare::PreparedCommit;
use crate::record::{Position, Record, StreamHead};

/// Time to wait for a permit among the commits in progress.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);

impl LogCore {
    pub(super) async fn append_commit(
        &self,
        prepared: PreparedCommit,
        require: Durability,
    ) -> Result<StreamHead, AppendError> {
        self.check_open()?;
        self.check_durability(require)?;
        let place = tokio::time::timeout(PERMIT_TIMEOUT, self.commit_permits.acquire()).await;
        let _place = place.map_err(|_| AppendError::Busy)?.map_err(|_| LogError::Closed)?;
        if let Some(settled) = self.resolve_expected_head(&prepared).await? {
            return settled;
        }
        // Payloads first: a record must never name a payload that is not stored.
        let pieces = self.put_payloads(&prepared).await?;
        let stored = self.publish_record(&prepared).await;
        match &stored {
            Ok(head) => {
                // Later reads of this process must not return less, even from a lagging leader.
                self.heads.remember_head(&prepared.stream, *head);
                self.ack_marker.observe_position(head.position);
            }
            Err(AppendError::Conflict { .. } | AppendError::CommitMismatch) => {
                self.drop_pieces(pieces).await;
            }
            // The outcome is open or the log is damaged: an unused payload does no harm.
            Err(_) => {}
        }
        stored
    }

    pub(super) fn check_durability(&self, require: Durability) -> Result<(), AppendError> {
        let proof = self.proof.borrow();
        if proof.is_refused {
            return Err(AppendError::Unavailable(proof.reason.clone()));
        }
        if proof.durability >= require {
            return Ok(());
        }
        Err(AppendError::Unavailable(format!(
            "{} is required, and the cluster promises {}: {}",
            require.as_str(),
            proof.durability.as_str(),
            proof.reason
        )))
    }

    /// Resolves what the broker cannot check, since it compares positions only: whether the
    /// expected head is the record at that position. `Some` is the final result of the append.
    async fn resolve_expected_head(
        &self,
        prepared: &PreparedCommit,
    ) -> Result<Option<Result<StreamHead, AppendError>>, AppendError> {
        let known = self.heads.newest_head(&prepared.stream);
        let Some(expected) = prepared.expected else {
            // A stream with a known head is not new: either this is a retry, or a conflict.
            return if known.is_some() {
                self.resolve_by_reading(prepared).await
            } else {
                Ok(None)
            };
        };
        if known == Some(expected) {
            return Ok(None);
        }
        let position = expected.position;
        let at =
            self.retry_until_answered(|| self.api.message_at(&self.names.log, position.0)).await?;
        let actual = match at {
            Some(message) => Some(wire::decode_message(&self.names, &message)?.0),
            None => None,
        };
        let is_right =
            |record: &Record| record.stream == prepared.stream && record.stream_head() == expected;
        if actual.as_ref().is_some_and(is_right) {
            // The expected head is known to be stale: the record after it decides.
            let is_behind = known.is_some_and(|known| known.position > position);
            return if is_behind { self.resolve_by_reading(prepared).await } else { Ok(None) };
        }
        let actual = self.read_head(&prepared.stream).await?;
        Ok(Some(Err(AppendError::Conflict { actual })))
    }

    /// Publishes the record until its outcome is known. While a message may still be stored, this
    /// does not give up: "not available" would be a guess.
    async fn publish_record(&self, prepared: &PreparedCommit) -> Result<StreamHead, AppendError> {
        let (log, subject) = (&self.names.log, self.names.record_subject(&prepared.stream));
        let expected = prepared.expected.map_or(0, |head| head.position.0);
        let body = wire::encode_body(prepared);
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let (mut waits, mut is_open) = (Backoff::default(), false);
        loop {
            let answer =
                self.api.publish_message(log, &subject, Some(expected), body.clone()).await;
            let refused = match answer {
                PublishOutcome::Stored { sequence } => {
                    return Ok(head_at(prepared, Position(sequence)));
                }
                PublishOutcome::WrongVersion => match self.resolve_by_reading(prepared).await {
                    Ok(Some(settled)) => return settled,
                    Ok(None) => AppendError::Unavailable("the leader is behind".into()),
                    Err(error @ AppendError::Corrupt { .. }) => return Err(error),
                    Err(error) => error,
                },
                PublishOutcome::Unknown(reason) => {
                    is_open = true;
                    AppendError::Unavailable(reason)
                }
                PublishOutcome::NotNow(reason) => AppendError::Unavailable(reason),
                // While an earlier message may still be stored, not even "full" is a final answer.
                PublishOutcome::Full if !is_open => return Err(AppendError::Full),
                PublishOutcome::Full => AppendError::Full,
                PublishOutcome::Refused(reason) => return Err(AppendError::Unavailable(reason)),
            };
            if !is_open && Instant::now() >= deadline {
                return Err(refused);
            }
            tracing::debug!(stream = %prepared.stream, %refused, is_open, "sent again");
            self.sleep_unless_closed(waits.next_delay()).await?;
        }
    }

    /// Resolves an open outcome by the record after the expected head; `None` if there is none.
    async fn resolve_by_reading(
        &self,
        prepared: &PreparedCommit,
    ) -> Result<Option<Result<StreamHead, AppendError>>, AppendError> {
        let subject = self.names.record_subject(&prepared.stream);
        let from = prepared.expected.map_or(0, |head| head.position.0) + 1;
        let next = self
            .retry_until_answered(|| self.api.next_message(&self.names.log, &subject, from))
            .await?;
        let Some(message) = next else { return Ok(None) };
        let (record, _) = wire::decode_message(&self.names, &message)?;
        // Ours, appended by an earlier try, perhaps of another process.
        if record.body.commit == prepared.commit {
            let same = prepared.is_same_commit(&record.body);
            let same =
                if same { Ok(record.stream_head()) } else { Err(AppendError::CommitMismatch) };
            return Ok(Some(same));
        }
        let actual = self.read_head(&prepared.stream).await?;
        Ok(Some(Err(AppendError::Conflict { actual })))
    }
}

fn head_at(prepared: &PreparedCommit, position: Position) -> StreamHead {
    StreamHead { position, seq: prepared.last_seq(), hash: prepared.hash }
}
