//! Transient notes that are not in the log: the progress of a model's answer. Lossy and bounded; a
//! reader that misses a note finds the result in the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use convergio_domain::billing::Usage;
use convergio_domain::chat::ChatInterface;
use convergio_domain::stream::StreamKey;
use tokio::sync::{broadcast, mpsc};

/// Notes buffered for slow subscribers to all runs.
const HUB_BACKLOG: usize = 1024;
/// Notes buffered for a slow listener to one run.
const LISTENER_BACKLOG: usize = 4096;

/// Progress of one attempt of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveNote {
    /// Id of the step.
    pub step: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Tokens of the answer so far.
    pub tokens_out: u64,
    /// Kind of content that this piece extends.
    pub kind: LiveKind,
    /// Index of the answer's part that this piece extends, from 0. Parts grow one after the other.
    pub part: u32,
    /// Bytes of this part before this piece. A reader that finds a gap has missed a note.
    pub offset: u64,
    /// Text of this piece.
    pub text: String,
    /// Milliseconds after which a provider that refused the call may be asked again.
    pub retry_after_ms: Option<u64>,
}

/// Content that a piece of an answer extends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LiveKind {
    /// No content: the provider has begun to answer, or has refused the call for now.
    #[default]
    Call,
    /// No content: metadata from the beginning of the provider's answer.
    Begin {
        /// Model name as the provider reports it.
        model: String,
        /// Usage of the prompt, as far as the provider has counted it.
        usage: Usage,
    },
    /// Text of the answer.
    Text,
    /// Text of the model's reasoning.
    Thinking,
    /// The provider's signature over the reasoning before it.
    Signature,
    /// The model's explanation of a refusal.
    Refusal,
    /// JSON arguments of a tool call.
    ToolArguments {
        /// Id of the tool call.
        id: String,
        /// Name of the tool.
        name: String,
    },
    /// A part that arrived at once; the piece is its JSON.
    Whole,
    /// Content that only the provider's own interface can express; the piece is the JSON of its
    /// delta.
    Native(ChatInterface),
}

/// A note together with the run that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamNote {
    /// Stream of the run.
    pub stream: StreamKey,
    /// The progress.
    pub note: LiveNote,
}

/// Notes that a listener to one run receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteFilter {
    /// Every note.
    All,
    /// Only the pauses that providers ask for: any other note would wake the listener for nothing.
    Pauses,
}

impl NoteFilter {
    fn accepts_note(self, note: &LiveNote) -> bool {
        self == Self::All || note.retry_after_ms.is_some()
    }
}

#[derive(Debug)]
struct RunListener {
    filter: NoteFilter,
    notes: mpsc::Sender<LiveNote>,
}

type Listeners = HashMap<StreamKey, Vec<RunListener>>;

/// Broadcast hub: executors publish progress, gateways listen. All clones are one hub.
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
    /// Creates a hub without listeners.
    pub fn new() -> Self {
        Self { notes: broadcast::channel(HUB_BACKLOG).0, listeners: Arc::default() }
    }

    fn lock_listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a note to the run's listeners and to the subscribers to all runs.
    pub fn publish_note(&self, stream: &StreamKey, note: LiveNote) {
        if let Some(listeners) = self.lock_listeners().get_mut(stream) {
            // A listener whose buffer is full is dropped: what it has received stays a prefix
            // without a gap.
            listeners.retain(|listener| {
                let is_wanted = listener.filter.accepts_note(&note);
                !is_wanted || listener.notes.try_send(note.clone()).is_ok()
            });
        }
        // Saves a copy of the note when nobody watches all runs, the usual case.
        if self.notes.receiver_count() > 0 {
            let note = StreamNote { stream: stream.clone(), note };
            let _listeners = self.notes.send(Arc::new(note));
        }
    }

    /// Subscribes to the notes of all runs from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<StreamNote>> {
        self.notes.subscribe()
    }

    /// Listens to one run from now on. A listener that falls behind receives nothing after the
    /// first note that it missed.
    pub fn listen_to_run(&self, stream: &StreamKey, filter: NoteFilter) -> LiveListener {
        let (sender, notes) = mpsc::channel(LISTENER_BACKLOG);
        let listener = RunListener { filter, notes: sender };
        self.lock_listeners().entry(stream.clone()).or_default().push(listener);
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
    /// Receives the next note; pends for ever once the listener was dropped by the hub, so that it
    /// can be used in `select!`.
    pub async fn next_note(&mut self) -> LiveNote {
        match self.notes.recv().await {
            Some(note) => note,
            None => std::future::pending().await,
        }
    }
}

impl Drop for LiveListener {
    fn drop(&mut self) {
        self.notes.close();
        let mut listeners = self.hub.lock_listeners();
        if let Some(others) = listeners.get_mut(&self.stream) {
            others.retain(|other| !other.notes.is_closed());
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

    use super::{LISTENER_BACKLOG, LiveHub, LiveNote, NoteFilter};

    fn note(offset: usize) -> LiveNote {
        LiveNote { offset: offset as u64, ..LiveNote::default() }
    }

    #[tokio::test]
    async fn who_misses_a_note_hears_none_after_it() {
        let hub = LiveHub::new();
        let stream = StreamKey::for_run("acme".parse().expect("a name"), RunId(Uuid::nil()));
        let mut listener = hub.listen_to_run(&stream, NoteFilter::All);
        for offset in 0..=LISTENER_BACKLOG {
            hub.publish_note(&stream, note(offset));
        }
        for offset in 0..LISTENER_BACKLOG {
            assert_eq!(listener.next_note().await, note(offset));
        }
        hub.publish_note(&stream, note(LISTENER_BACKLOG + 1));
        assert_eq!(listener.next_note().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_listener_for_pauses_is_not_woken_for_text() {
        let hub = LiveHub::new();
        let stream = StreamKey::for_run("acme".parse().expect("a name"), RunId(Uuid::nil()));
        let mut listener = hub.listen_to_run(&stream, NoteFilter::Pauses);
        hub.publish_note(&stream, note(0));
        assert_eq!(listener.next_note().now_or_never(), None);
        let pause = LiveNote { retry_after_ms: Some(7), ..note(1) };
        hub.publish_note(&stream, pause.clone());
        assert_eq!(listener.next_note().now_or_never(), Some(pause));
    }
}
