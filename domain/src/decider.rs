//! [`Decider`], the interface that every noun's rules implement, and the values that it exchanges
//! with the event store.

use uuid::Uuid;

use crate::event::{Event, NounEvent};
pub use crate::fingerprint::Fingerprint;
use crate::id::ActorId;
use crate::request::event::{RequestApplied, RequestEvent};
use crate::stream::Seq;
use crate::time::Timestamp;

/// Ambient input of a decision. A decision depends on nothing but its state, its command and these
/// values, so that replaying it gives the same events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionContext {
    /// Time of the decision, read once by the caller.
    pub now: Timestamp,
    /// Actor that issues the command.
    pub actor: ActorId,
}

/// An event with its position and time in the stream; for [`Decider::evolve`] one of its noun's.
#[derive(Debug)]
pub struct RecordedEvent<'a, E = Event> {
    /// Sequence number of the event in its stream.
    pub seq: Seq,
    /// Time at which the event was committed, in milliseconds since the epoch.
    pub time: Timestamp,
    /// The event itself, upcast to its current version.
    pub event: &'a E,
}

// Derived, it would ask for events that can be copied.
impl<E> Copy for RecordedEvent<'_, E> {}

impl<E> Clone for RecordedEvent<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl RecordedEvent<'_> {
    fn with_event<E>(self, event: &E) -> RecordedEvent<'_, E> {
        RecordedEvent { seq: self.seq, time: self.time, event }
    }
}

/// Rules of one noun. All functions are synchronous, deterministic and free of IO.
pub trait Decider: 'static {
    /// State that the noun's events fold to.
    type State: Default + Clone + Send + Sync + 'static;
    /// Commands that the noun accepts.
    type Command;
    /// Events that the noun's commands cause.
    type Event: NounEvent;
    /// Reasons for which a command can be rejected.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// Returns the events that a command causes; an empty list means that the command has already
    /// taken effect. `next` is the sequence number that the first of the events will get.
    ///
    /// # Errors
    /// The command contradicts the state.
    fn decide(
        state: &Self::State,
        command: Self::Command,
        context: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Folds one event of the noun into the state. Infallible: recorded events are facts.
    fn evolve(state: &mut Self::State, recorded: RecordedEvent<'_, Self::Event>);

    /// Folds `request.applied.v1`, which may stand in the stream of any noun.
    fn evolve_request(_state: &mut Self::State, _applied: RecordedEvent<'_, RequestApplied>) {}

    /// Folds one event of the stream into the state.
    fn fold_event(state: &mut Self::State, recorded: RecordedEvent<'_>) {
        if let Event::Request(RequestEvent::RequestApplied(applied)) = recorded.event {
            Self::evolve_request(state, recorded.with_event(applied));
        } else if let Some(event) = Self::Event::from_event(recorded.event) {
            Self::evolve(state, recorded.with_event(event));
        }
    }

    /// Returns when an executor must look at the stream next.
    fn next_wake(state: &Self::State) -> Wake;

    /// Returns the fingerprint of the state, for nouns whose history can be replayed. Mutable
    /// because states cache the hashes of their parts.
    fn refresh_fingerprint(_state: &mut Self::State) -> Option<Fingerprint> {
        None
    }

    /// Returns the part of another stream's history that precedes `first`, the first event of a
    /// stream; `None` unless the stream is a fork.
    fn inherited_history(_first: &Event) -> Option<InheritedHistory> {
        None
    }

    /// Encodes the state as bytes, for nouns with long histories; `None` if the noun has no
    /// snapshots.
    fn encode_snapshot(_state: &Self::State) -> Option<Vec<u8>> {
        None
    }

    /// Decodes bytes of [`Decider::encode_snapshot`]. Returns `None` for bytes of another format,
    /// whereupon the caller folds the events instead.
    fn decode_snapshot(_snapshot: &[u8]) -> Option<Self::State> {
        None
    }
}

/// History that a fork inherits: a prefix of a stream of the same tenant and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InheritedHistory {
    /// Id of the inherited stream, as in [`crate::stream::StreamKey::id`].
    pub id: Uuid,
    /// Last inherited event; always the end of a commit.
    pub seq: Seq,
    /// Fingerprint of the state after that event, against which the fold is checked.
    pub fingerprint: Fingerprint,
}

/// Time at which work on a stream continues. The event store keeps it in an index beside the log,
/// from which executors find the streams that are due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wake {
    /// Work is due now.
    Now,
    /// No work is due before this time.
    At(Timestamp),
    /// Only an external event (an approval, a signal, a resumption) can continue the stream.
    Parked,
    /// The stream will never need work again.
    #[default]
    Done,
}
