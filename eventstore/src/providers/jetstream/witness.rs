//! The acknowledgement marker: how far the log has come, kept in another stream than the log.
//!
//! A hash chain reveals every hole but not a missing end: a server that finds its last file damaged
//! drops it and continues. So each process that appends or follows saves, every second and on
//! closing, the highest position that it knows; a log that ends before it is corrupt.

use std::sync::atomic::{AtomicU64, Ordering};

use super::api::{NoAnswer, Published};
use super::inner::Inner;
use crate::error::LogError;
use crate::record::Position;

const NAME: &str = "witness";

/// Highest position that this process knows of, and the highest that is saved.
#[derive(Default)]
pub(super) struct Witness {
    seen: AtomicU64,
    written: AtomicU64,
}

impl Witness {
    /// Observes a record that is in the log.
    pub(super) fn saw(&self, position: Position) {
        self.seen.fetch_max(position.0, Ordering::Relaxed);
    }

    /// Returns the highest position that this process knows of.
    pub(super) fn seen(&self) -> Position {
        Position(self.seen.load(Ordering::Relaxed))
    }
}

impl Inner {
    /// Saves the marker if it has advanced.
    pub(super) async fn save_witness(&self) -> Result<(), NoAnswer> {
        let seen = self.witness.seen();
        if seen.0 <= self.witness.written.load(Ordering::Relaxed) {
            return Ok(());
        }
        let known = self.written_witness().await?;
        if known.is_none_or(|(position, _)| position < seen) {
            let (stream, subject) = (&self.names.derived, self.names.derived(NAME));
            let expected = known.map_or(0, |(_, sequence)| sequence);
            let text = seen.0.to_string();
            match self.api.publish(stream, &subject, Some(expected), text.into()).await {
                Published::Stored { .. } => {}
                other => return Err(NoAnswer(format!("{other:?}"))),
            }
        }
        self.witness.written.fetch_max(seen.0, Ordering::Relaxed);
        Ok(())
    }

    /// Reads the saved marker and its message's sequence number.
    async fn written_witness(&self) -> Result<Option<(Position, u64)>, NoAnswer> {
        let subject = self.names.derived(NAME);
        let last = self.api.last(&self.names.derived, &subject).await?;
        Ok(last.and_then(|message| {
            let text = std::str::from_utf8(&message.payload).ok()?;
            Some((Position(text.parse().ok()?), message.sequence))
        }))
    }

    /// Checks that the log reaches the saved marker.
    pub(super) async fn check_witness(&self) -> Result<(), LogError> {
        let written = self.patiently(|| self.written_witness()).await?;
        self.witness.saw(written.map_or(Position::START, |(position, _)| position));
        // The marker is observed first, so that a lagging leader is given time instead of being
        // believed.
        self.tail_position().await.map(drop)
    }
}
