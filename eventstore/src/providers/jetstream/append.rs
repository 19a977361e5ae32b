//! Appending: one message, sent until it is known what became of it.
//!
//! The broker's own words are not enough: which check comes first differs with the number of
//! copies, and an acknowledgement can be lost. So every answer that is not a plain "stored" is
//! settled by reading, from the leader, the record that follows the expected one. That record is
//! ours (appended), another (a conflict, for ever: versions only grow) or not there (send again).

use std::time::Duration;

use tokio::time::Instant;

use super::api::Published;
use super::inner::{Inner, PATIENCE, Waits};
use super::wire;
use crate::error::{AppendError, LogError};
use crate::log::Durability;
use crate::prepare::Prepared;
use crate::record::{Head, Position, Record};

/// Wait for a place among the commits under way.
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
        let pieces = self.put_payloads(&prepared).await?;
        let stored = self.store(&prepared).await;
        match &stored {
            Ok(head) => {
                self.heads.saw(&prepared.stream, *head);
                self.witness.saw(head.position);
            }
            Err(AppendError::Conflict { .. } | AppendError::CommitMismatch) => {
                self.drop_pieces(pieces).await;
            }
            // What became of the commit is open or the log is ill: a payload more does no harm.
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

    /// The broker compares a position only. That the expected head is the record at that position
    /// is checked here. Something else than `None` is the answer.
    async fn check_expected(
        &self,
        prepared: &Prepared,
    ) -> Result<Option<Result<Head, AppendError>>, AppendError> {
        let known = self.heads.newest(&prepared.stream);
        let Some(expected) = prepared.expected else {
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
            // Known to be behind: the record after it tells.
            let is_behind = known.is_some_and(|known| known.position > position);
            return if is_behind { self.settle(prepared).await } else { Ok(None) };
        }
        let actual = self.head(&prepared.stream).await?;
        Ok(Some(Err(AppendError::Conflict { actual })))
    }

    /// Sends the message until it is known what became of it. While a message is out whose fate is
    /// open, this does not end: "not available" would be a guess.
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

    /// What the record after the expected one says; `None` if there is none.
    async fn settle(
        &self,
        prepared: &Prepared,
    ) -> Result<Option<Result<Head, AppendError>>, AppendError> {
        let subject = self.names.records(&prepared.stream);
        let from = prepared.expected.map_or(0, |head| head.position.0) + 1;
        let next = self.patiently(|| self.api.next(&self.names.log, &subject, from)).await?;
        let Some(message) = next else { return Ok(None) };
        let (record, _) = wire::read(&self.names, &message)?;
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
