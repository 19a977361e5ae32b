//! The acknowledgement marker: how far the log has come, kept in another stream than the log.
//!
//! A hash chain reveals every hole but not a missing end: a server that finds its last file damaged
//! drops it and continues. So each process that appends or follows saves, every second and on
//! closing, the highest position that it knows; a log that ends before it is corrupt.

use std::sync::atomic::{AtomicU64, Ordering};

use super::api::{NoAnswerError, PublishOutcome};
use super::log_core::LogCore;
use crate::error::LogError;
use crate::record::Position;

const MARKER_NAME: &str = "witness";

/// Highest position that this process knows of, and the highest that is saved.
#[derive(Default)]
pub(super) struct AckMarker {
    highest_seen: AtomicU64,
    highest_written: AtomicU64,
}

impl AckMarker {
    /// Observes a record that is in the log.
    pub(super) fn observe_position(&self, position: Position) {
        self.highest_seen.fetch_max(position.0, Ordering::Relaxed);
    }

    /// Returns the highest position that this process knows of.
    pub(super) fn highest_seen(&self) -> Position {
        Position(self.highest_seen.load(Ordering::Relaxed))
    }
}

impl LogCore {
    /// Saves the marker if it has advanced.
    pub(super) async fn save_ack_marker(&self) -> Result<(), NoAnswerError> {
        let seen = self.ack_marker.highest_seen();
        if seen.0 <= self.ack_marker.highest_written.load(Ordering::Relaxed) {
            return Ok(());
        }
        let known = self.read_ack_marker().await?;
        if known.is_none_or(|(position, _)| position < seen) {
            let (stream, subject) = (&self.names.derived, self.names.derived_subject(MARKER_NAME));
            let expected = known.map_or(0, |(_, sequence)| sequence);
            let text = seen.0.to_string();
            match self.api.publish_message(stream, &subject, Some(expected), text.into()).await {
                PublishOutcome::Stored { .. } => {}
                other => return Err(NoAnswerError(format!("{other:?}"))),
            }
        }
        self.ack_marker.highest_written.fetch_max(seen.0, Ordering::Relaxed);
        Ok(())
    }

    /// Reads the saved marker and its message's sequence number.
    async fn read_ack_marker(&self) -> Result<Option<(Position, u64)>, NoAnswerError> {
        let subject = self.names.derived_subject(MARKER_NAME);
        let last = self.api.last_message(&self.names.derived, &subject).await?;
        Ok(last.and_then(|message| {
            let text = std::str::from_utf8(&message.payload).ok()?;
            Some((Position(text.parse().ok()?), message.sequence))
        }))
    }

    /// Checks that the log reaches the saved marker.
    pub(super) async fn check_ack_marker(&self) -> Result<(), LogError> {
        let written = self.retry_until_answered(|| self.read_ack_marker()).await?;
        self.ack_marker.observe_position(written.map_or(Position::START, |(position, _)| position));
        // The marker is observed first, so that a lagging leader is given time instead of being
        // believed.
        self.tail_position().await.map(drop)
    }
}
