//! The shape of a rule: a state, what may be asked of it, and what follows.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Event;
use crate::id::ActorId;
use crate::stream::Seq;
use crate::time::Timestamp;

/// What would be ambient elsewhere: everything that a decision may depend on besides its state and
/// command is in here, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The time of the decision, taken once by the caller.
    pub now: Timestamp,
    /// Who asks.
    pub actor: ActorId,
}

/// An event as it stands in its stream.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// Its number in the stream.
    pub seq: Seq,
    /// When it occurred.
    pub time: Timestamp,
    /// What happened.
    pub event: &'a Event,
}

/// A noun's rules. Both functions are synchronous, deterministic and free of IO.
pub trait Decider: 'static {
    /// What the events fold to.
    type State: Default + Clone + Send + Sync + 'static;
    /// What may be asked.
    type Command;
    /// Why it may be refused.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// The events that follow from a command; an empty list means that all is done already. `next`
    /// is the sequence number that the first of them will get.
    ///
    /// # Errors
    /// The command contradicts the state.
    fn decide(
        state: &Self::State,
        command: Self::Command,
        context: &Context,
        next: Seq,
    ) -> Result<Vec<Event>, Self::Rejection>;

    /// Folds one event into the state. Never fails: events are facts.
    fn evolve(state: &mut Self::State, recorded: Recorded<'_>);

    /// When somebody must look at the stream next.
    fn wake(state: &Self::State) -> Wake;

    /// The fingerprint of a state, for nouns whose history can be replayed.
    fn fingerprint(_state: &mut Self::State) -> Option<Fingerprint> {
        None
    }

    /// Which part of another stream's history comes before this first event of a stream.
    fn inherits(_first: &Event) -> Option<Inherited> {
        None
    }

    /// The state as bytes, for nouns with long histories.
    fn snapshot(_state: &Self::State) -> Option<Vec<u8>> {
        None
    }

    /// Reads what [`Decider::snapshot`] wrote; `None` for anything else.
    fn recall(_snapshot: &[u8]) -> Option<Self::State> {
        None
    }
}

/// A part of a stream of the same tenant and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inherited {
    /// The stream's thing.
    pub id: Uuid,
    /// Its last event that counts, the end of a commit.
    pub seq: Seq,
    /// The fingerprint of the state there.
    pub fold: Fingerprint,
}

/// A short hash of a state: equal states have equal ones, on every machine. It tells where a replay
/// diverges; that nobody changed the history is proven by the chain. Written as 16 hexadecimal
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<Fingerprint> for String {
    fn from(print: Fingerprint) -> Self {
        print.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let number = u64::from_str_radix(&text, 16).ok().map(Self);
        let print = number.filter(|print| print.to_string() == text);
        print.ok_or_else(|| format!("`{text}` is no fingerprint: 16 hexadecimal digits"))
    }
}

/// When the work of a stream goes on: kept as an index beside the log, derived from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wake {
    /// Work can be done now.
    Now,
    /// Nothing to do before this time.
    At(Timestamp),
    /// Only an outside event can move it.
    Parked,
    /// Nothing will ever be done.
    #[default]
    Done,
}
