//! The shape of a rule: a state, what may be asked of it, and what follows.

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
pub trait Decider {
    /// What the events fold to.
    type State: Default + Clone + Send + Sync;
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
