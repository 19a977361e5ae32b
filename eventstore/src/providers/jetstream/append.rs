//! Appending: one message per record, sent until its outcome is known.
//!
//! The broker's replies are not enough: the order of its checks differs with the number of
//! replicas, and an acknowledgement may be lost. So every reply but a plain "stored" is resolved by
//! reading from the leader the record that follows the expected one. That record is ours
//! (appended), another (a conflict for ever, since versions only grow), or absent (send again).

use std::time::Duration;

use tokio::time::Instant;

use super::api::Published;
use super::inner::{Inner, PATIENCE, Waits};
use super::wire;
use crate::error::{AppendError, LogError};
use crate::log::Durability;
use crate::prepare::Prepared;
use crate::record::{Head, Position, Record};

/// Time to wait for a permit among the commits in progress.
const PLACE: Duration = Duration::from_secs(5);

impl Inner {
    pub(super) async fn append(
        &self,
        prepared: Prepared,
        require: Durability,
    ) -> Result<Head, AppendError> {
        self.check_open()?;
        self.check_proof(require)?;
        let place = tokio::time::timeout(PLACE, self.permits.acquire()).await;
        let _place = place.map_err(|_| AppendError::Busy)?.map_err(|_| LogError::Closed)?;
        if let Some(settled) = self.check_expected(&prepared).await? {
            return settled;
        }
        // Payloads first: a record must never name a payload that is not stored.
        let pieces = self.put_payloads(&prepared).await?;
        let stored = self.store(&prepared).await;
        match &stored {
            Ok(head) => {
                // Later reads of this process must not return less, even from a lagging leader.
                self.heads.saw(&prepared.stream, *head);
                self.witness.saw(head.position);
            }
            Err(AppendError::Conflict { .. } | AppendError::CommitMismatch) => {
                self.drop_pieces(pieces).await;
            }
            // The outcome is open or the log is damaged: an unused payload does no harm.
            Err(_) => {}
        }
        stored
    }

    pub(super) fn check_proof(&self, require: Durability) -> Result<(), AppendError> {
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
    async fn check_expected(
        &self,
        prepared: &Prepared,
    ) -> Result<Option<Result<Head, AppendError>>, AppendError> {
        let known = self.heads.newest(&prepared.stream);
        let Some(expected) = prepared.expected else {
            // A stream with a known head is not new: either this is a retry, or a conflict.
            return if known.is_some() { self.settle(prepared).await } else { Ok(None) };
        };
        if known == Some(expected) {
            return Ok(None);
        }
        let position = expected.position;
        let at = self.patiently(|| self.api.at(&self.names.log, position.0)).await?;
        let actual = match at {
            Some(message) => Some(wire::read(&self.names, &message)?.0),
            None => None,
        };
        let is_right =
            |record: &Record| record.stream == prepared.stream && record.head() == expected;
        if actual.as_ref().is_some_and(is_right) {
            // The expected head is known to be stale: the record after it decides.
            let is_behind = known.is_some_and(|known| known.position > position);
            return if is_behind { self.settle(prepared).await } else { Ok(None) };
        }
        let actual = self.head(&prepared.stream).await?;
        Ok(Some(Err(AppendError::Conflict { actual })))
    }

    /// Publishes the record until its outcome is known. While a message may still be stored, this
    /// does not give up: "not available" would be a guess.
    async fn store(&self, prepared: &Prepared) -> Result<Head, AppendError> {
        let (log, subject) = (&self.names.log, self.names.records(&prepared.stream));
        let expected = prepared.expected.map_or(0, |head| head.position.0);
        let body = wire::body(prepared);
        let until = Instant::now() + PATIENCE;
        let (mut waits, mut is_open) = (Waits::default(), false);
        loop {
            let answer = self.api.publish(log, &subject, Some(expected), body.clone()).await;
            let refused = match answer {
                Published::Stored { sequence } => {
                    return Ok(head_at(prepared, Position(sequence)));
                }
                Published::WrongVersion => match self.settle(prepared).await {
                    Ok(Some(settled)) => return settled,
                    Ok(None) => AppendError::Unavailable("the leader is behind".into()),
                    Err(error @ AppendError::Corrupt { .. }) => return Err(error),
                    Err(error) => error,
                },
                Published::Unknown(reason) => {
                    is_open = true;
                    AppendError::Unavailable(reason)
                }
                Published::NotNow(reason) => AppendError::Unavailable(reason),
                // While an earlier message may still be stored, not even "full" is a final answer.
                Published::Full if !is_open => return Err(AppendError::Full),
                Published::Full => AppendError::Full,
                Published::Refused(reason) => return Err(AppendError::Unavailable(reason)),
            };
            if !is_open && Instant::now() >= until {
                return Err(refused);
            }
            tracing::debug!(stream = %prepared.stream, %refused, is_open, "sent again");
            self.pause(waits.next()).await?;
        }
    }

    /// Resolves an open outcome by the record after the expected head; `None` if there is none.
    async fn settle(
        &self,
        prepared: &Prepared,
    ) -> Result<Option<Result<Head, AppendError>>, AppendError> {
        let subject = self.names.records(&prepared.stream);
        let from = prepared.expected.map_or(0, |head| head.position.0) + 1;
        let next = self.patiently(|| self.api.next(&self.names.log, &subject, from)).await?;
        let Some(message) = next else { return Ok(None) };
        let (record, _) = wire::read(&self.names, &message)?;
        // Ours, appended by an earlier try, perhaps of another process.
        if record.body.commit == prepared.commit {
            let same = prepared.is_same(&record.body);
            let same = if same { Ok(record.head()) } else { Err(AppendError::CommitMismatch) };
            return Ok(Some(same));
        }
        let actual = self.head(&prepared.stream).await?;
        Ok(Some(Err(AppendError::Conflict { actual })))
    }
}

fn head_at(prepared: &Prepared, position: Position) -> Head {
    Head { position, seq: prepared.last_seq(), hash: prepared.hash }
}
