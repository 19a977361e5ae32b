//! Checkpoints: states of long streams, stored beside the log, so that streams need not be folded
//! from their first event.
//!
//! They are a cache. A checkpoint is used only if the log holds the record that it names, and if
//! its state has the fingerprint of that record. Losing all of them costs time only.
//!
//! Map: `files` stores checkpoints in a folder; `history` is the part of
//! [`Repository`](crate::Repository) that loads streams at any event and decides when a checkpoint
//! is due. Not here: how a noun encodes its state (crate `domain`).

mod files;
mod history;

pub use files::CheckpointFolder;
pub(crate) use history::FIRST_CHECKPOINT_SEQ;

use convergio_domain::stream::{Seq, StreamKey};

use crate::error::LogError;
use crate::record::Hash;

/// State of a stream after a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Sequence number of the commit's first event.
    pub first_seq: Seq,
    /// Sequence number of the commit's last event.
    pub seq: Seq,
    /// Hash of the commit's record.
    pub hash: Hash,
    /// State in its noun's own encoding.
    pub state: Vec<u8>,
}

/// Storage of checkpoints. Its contents may vanish or be damaged at any time.
pub trait CheckpointStore: Send + Sync + 'static {
    /// Stores a checkpoint of a stream. A failure is not reported, since nothing is lost.
    fn store_checkpoint(&self, stream: &StreamKey, checkpoint: Checkpoint);

    /// Loads the last checkpoint of a stream at or before an event.
    fn last_checkpoint(&self, stream: &StreamKey, at: Seq) -> Option<Checkpoint>;

    /// Lists the sequence numbers of a stream's checkpoints, ascending.
    fn list_seqs(&self, stream: &StreamKey) -> Vec<Seq>;

    /// Removes the checkpoints of a stream, or all; returns their number.
    ///
    /// # Errors
    /// They cannot be removed.
    fn drop_all(&self, stream: Option<&StreamKey>) -> Result<usize, LogError>;
}
