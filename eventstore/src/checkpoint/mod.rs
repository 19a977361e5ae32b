//! Checkpoints: states of long streams kept beside the log, so that they need not be folded anew.
//!
//! They are a cache. One is used only if the log has the record that it names, and if the state in
//! it has the fingerprint that stands in that record. Without any of them everything is as it was,
//! and takes longer.

mod files;
mod history;

pub use files::CheckpointFolder;
pub(crate) use history::FIRST;

use convergio_domain::stream::{Seq, StreamKey};

use crate::error::LogError;
use crate::record::Hash;

/// A state as it was after a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The first event of the commit.
    pub first: Seq,
    /// The last event of the commit.
    pub seq: Seq,
    /// The hash of its record.
    pub hash: Hash,
    /// The state, as its noun writes it.
    pub state: Vec<u8>,
}

/// Where checkpoints are kept. What is there may vanish, or be wrong, at any moment.
pub trait Checkpoints: Send + Sync + 'static {
    /// Keeps a checkpoint of a stream; it may fail, and nothing is lost.
    fn keep(&self, stream: &StreamKey, checkpoint: Checkpoint);

    /// The last checkpoint of a stream at an event or before it.
    fn last(&self, stream: &StreamKey, at: Seq) -> Option<Checkpoint>;

    /// The last events of a stream's checkpoints, ascending.
    fn list(&self, stream: &StreamKey) -> Vec<Seq>;

    /// Forgets the checkpoints of a stream, or all; gives how many there were.
    ///
    /// # Errors
    /// They cannot be removed.
    fn drop_all(&self, stream: Option<&StreamKey>) -> Result<usize, LogError>;
}
