//! Notes that are not in the log: how far a model has come with its answer. Lossy and bounded; who
//! misses one misses nothing that counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use convergio_domain::chat::Interface;
use convergio_domain::metering::Usage;
use convergio_domain::stream::StreamKey;
use tokio::sync::{broadcast, mpsc};

/// Notes kept for slow listeners to all runs.
const BACKLOG: usize = 1024;
/// Notes kept for a slow listener to one run.
const LISTENER_BACKLOG: usize = 4096;

/// Progress of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveNote {
    /// The step.
    pub step: String,
    /// The try.
    pub attempt: u32,
    /// Tokens of the answer so far.
    pub tokens_out: u64,
    /// What the piece is of.
    pub kind: LiveKind,
    /// Which part of the answer the piece is of, from 0. Parts grow one after the other.
    pub part: u32,
    /// Bytes of this part before this piece: who finds a gap has missed a note.
    pub offset: u64,
    /// The new piece.
    pub text: String,
    /// How long the provider, which refused, asks to be left alone, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// What a piece of an answer is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LiveKind {
    /// No part: the provider has begun to answer, or has refused to be asked now.
    #[default]
    Call,
    /// No part: what the provider told at the beginning of its answer.
    Begin {
        /// The model, by its own word.
        model: String,
        /// What was sent, as far as the provider has counted it.
        usage: Usage,
    },
    /// The text.
    Text,
    /// What the model thinks aloud.
    Thinking,
    /// The provider's mark of the thought before it.
    Signature,
    /// The model's words for why it does not answer.
    Refusal,
    /// The arguments of a tool.
    ToolArguments {
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// A part that came at once: the piece is its JSON.
    Whole,
    /// Something that only the provider's interface can say of the part: the piece is the JSON of
    /// its delta.
    Native(Interface),
}

/// A note and the run it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamNote {
    /// The run.
    pub stream: StreamKey,
    /// What happened.
    pub note: LiveNote,
}

type Listeners = HashMap<StreamKey, Vec<mpsc::Sender<LiveNote>>>;

/// Where executors say how far they are, and gateways listen.
#[derive(Debug, Clone)]
pub struct LiveHub {
    notes: broadcast::Sender<Arc<StreamNote>>,
    listeners: Arc<Mutex<Listeners>>,
}

impl Default for LiveHub {
    fn default() -> Self {
        Self::new()
    }
}

impl LiveHub {
    /// A hub without listeners.
    pub fn new() -> Self {
        Self { notes: broadcast::channel(BACKLOG).0, listeners: Arc::default() }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something to whoever listens.
    pub fn publish(&self, stream: &StreamKey, note: LiveNote) {
        if let Some(listeners) = self.listeners().get_mut(stream) {
            // One that is too slow hears no more: what it has heard is a beginning without a gap.
            listeners.retain(|listener| listener.try_send(note.clone()).is_ok());
        }
        if self.notes.receiver_count() > 0 {
            let note = StreamNote { stream: stream.clone(), note };
            let _listeners = self.notes.send(Arc::new(note));
        }
    }

    /// Listens to all runs from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<StreamNote>> {
        self.notes.subscribe()
    }

    /// Listens to one run from now on. Who does not keep up hears nothing after the first note that
    /// was missed.
    pub fn listen(&self, stream: &StreamKey) -> LiveListener {
        let (sender, notes) = mpsc::channel(LISTENER_BACKLOG);
        self.listeners().entry(stream.clone()).or_default().push(sender);
        LiveListener { notes, stream: stream.clone(), hub: self.clone() }
    }
}

/// A listener to one run.
#[derive(Debug)]
pub struct LiveListener {
    notes: mpsc::Receiver<LiveNote>,
    stream: StreamKey,
    hub: LiveHub,
}

impl LiveListener {
    /// The next note. It waits for ever when there is none.
    pub async fn next(&mut self) -> LiveNote {
        match self.notes.recv().await {
            Some(note) => note,
            None => std::future::pending().await,
        }
    }
}

impl Drop for LiveListener {
    fn drop(&mut self) {
        self.notes.close();
        let mut listeners = self.hub.listeners();
        if let Some(others) = listeners.get_mut(&self.stream) {
            others.retain(|other| !other.is_closed());
            if others.is_empty() {
                listeners.remove(&self.stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::id::RunId;
    use convergio_domain::stream::StreamKey;
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::{LISTENER_BACKLOG, LiveHub, LiveNote};

    fn note(offset: usize) -> LiveNote {
        LiveNote { offset: offset as u64, ..LiveNote::default() }
    }

    #[tokio::test]
    async fn who_misses_a_note_hears_none_after_it() {
        let hub = LiveHub::new();
        let stream = StreamKey::run("acme".parse().expect("a name"), RunId(Uuid::nil()));
        let mut listener = hub.listen(&stream);
        for offset in 0..=LISTENER_BACKLOG {
            hub.publish(&stream, note(offset));
        }
        for offset in 0..LISTENER_BACKLOG {
            assert_eq!(listener.next().await, note(offset));
        }
        hub.publish(&stream, note(LISTENER_BACKLOG + 1));
        assert_eq!(listener.next().now_or_never(), None);
    }
}
