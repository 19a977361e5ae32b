//! Notes that are not in the log: how far a model has come with its answer. Lossy and bounded; who
//! misses one misses nothing that counts.

use std::sync::Arc;

use convergio_domain::stream::StreamKey;
use tokio::sync::broadcast;

/// Notes kept for slow listeners.
const BACKLOG: usize = 1024;

/// Progress of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveNote {
    /// The step.
    pub step: String,
    /// The try.
    pub attempt: u32,
    /// Tokens of the answer so far.
    pub tokens_out: u64,
    /// Bytes of the answer's text before this piece: who finds a gap has missed a note.
    pub offset: u64,
    /// The new piece of text.
    pub text: String,
}

/// A note and the run it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamNote {
    /// The run.
    pub stream: StreamKey,
    /// What happened.
    pub note: LiveNote,
}

/// Where executors say how far they are, and gateways listen.
#[derive(Debug, Clone)]
pub struct LiveHub {
    notes: broadcast::Sender<Arc<StreamNote>>,
}

impl Default for LiveHub {
    fn default() -> Self {
        Self::new()
    }
}

impl LiveHub {
    /// A hub without listeners.
    pub fn new() -> Self {
        Self { notes: broadcast::channel(BACKLOG).0 }
    }

    /// Says something to whoever listens.
    pub fn publish(&self, stream: &StreamKey, note: LiveNote) {
        let note = StreamNote { stream: stream.clone(), note };
        // Nobody listening is the usual case.
        let _listeners = self.notes.send(Arc::new(note));
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<StreamNote>> {
        self.notes.subscribe()
    }
}
