//! A witness of how far the log has come, kept in another stream than the log.
//!
//! A chain shows every hole but not a missing end: a server that finds its last file damaged drops
//! it and goes on. So each process that appends or follows writes down, every second and when it
//! closes, the highest position it knows; a log that ends before it is corrupt.

use std::sync::atomic::{AtomicU64, Ordering};

use super::api::{NoAnswer, Published};
use super::inner::Inner;
use crate::error::LogError;
use crate::record::Position;

const NAME: &str = "witness";

/// The highest position that this process knows of, and the highest written down.
#[derive(Default)]
pub(super) struct Witness {
    seen: AtomicU64,
    written: AtomicU64,
}

impl Witness {
    /// Takes note of a record that is in the log.
    pub(super) fn saw(&self, position: Position) {
        self.seen.fetch_max(position.0, Ordering::Relaxed);
    }

    /// The highest position that this process knows of.
    pub(super) fn seen(&self) -> Position {
        Position(self.seen.load(Ordering::Relaxed))
    }
}

impl Inner {
    /// Writes the witness down if it has come further.
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

    /// What was written down last, and where.
    async fn written_witness(&self) -> Result<Option<(Position, u64)>, NoAnswer> {
        let subject = self.names.derived(NAME);
        let last = self.api.last(&self.names.derived, &subject).await?;
        Ok(last.and_then(|message| {
            let text = std::str::from_utf8(&message.payload).ok()?;
            Some((Position(text.parse().ok()?), message.sequence))
        }))
    }

    /// Compares the log's end with what was written down about it.
    pub(super) async fn check_witness(&self) -> Result<(), LogError> {
        let written = self.patiently(|| self.written_witness()).await?;
        self.witness.saw(written.map_or(Position::START, |(position, _)| position));
        // Asked with the witness in mind: a leader that is behind is given time.
        self.tail_position().await.map(drop)
    }
}
