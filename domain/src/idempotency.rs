//! Idempotency of commands: a stream remembers the requests that it has carried out, so that a
//! repeated request changes nothing, whatever has happened in between.

use std::collections::VecDeque;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::decider::{Decider, DecisionContext, InheritedHistory, RecordedEvent, Wake};
use crate::event::Event;
use crate::fingerprint::Fingerprint;
use crate::request::event::{RequestApplied, RequestEvent};
use crate::stream::Seq;

/// Most requests that a stream remembers; the oldest are forgotten first.
pub const REQUESTS_LIMIT: usize = 100;

/// The last requests that a stream carried out, the oldest first, each with the sequence number of
/// its `RequestApplied` event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppliedRequests(VecDeque<(Uuid, Seq)>);

impl AppliedRequests {
    /// Returns the event at which a request was carried out.
    pub fn seq_of(&self, request: Uuid) -> Option<Seq> {
        self.0.iter().find(|(known, _)| *known == request).map(|(_, seq)| *seq)
    }

    /// True if no request is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Remembers a request; the oldest one is forgotten beyond [`REQUESTS_LIMIT`].
    pub fn insert(&mut self, request: Uuid, seq: Seq) {
        if self.0.len() >= REQUESTS_LIMIT {
            self.0.pop_front();
        }
        self.0.push_back((request, seq));
    }
}

/// State that remembers carried out requests.
pub trait HasAppliedRequests {
    /// The requests that were carried out.
    fn applied_requests(&self) -> &AppliedRequests;
}

/// A command and the request that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedCommand<C> {
    /// Id derived from the request's idempotency key, if it has one.
    pub request: Option<Uuid>,
    /// Command of the noun.
    pub command: C,
}

/// Decider that carries out each request once, around the decider of a noun.
#[derive(Debug, Clone, Copy)]
pub struct IdempotentNoun<D>(PhantomData<D>);

impl<D: Decider> Decider for IdempotentNoun<D>
where
    D::State: HasAppliedRequests,
{
    type State = D::State;
    type Command = RequestedCommand<D::Command>;
    type Event = Event;
    type Rejection = D::Rejection;

    fn decide(
        state: &D::State,
        command: Self::Command,
        context: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<Event>, D::Rejection> {
        let RequestedCommand { request, command } = command;
        // No events means done already, and the caller answers as it did the first time.
        if request.is_some_and(|request| state.applied_requests().seq_of(request).is_some()) {
            return Ok(Vec::new());
        }
        let events = D::decide(state, command, context, next)?;
        // First of its commit, since readers rely on the end of a run being the last event of its
        // commit.
        let applied = request.filter(|_| !events.is_empty());
        let applied = applied
            .map(|request| Event::from(RequestEvent::RequestApplied(RequestApplied { request })));
        Ok(applied.into_iter().chain(events.into_iter().map(Into::into)).collect())
    }

    fn evolve(state: &mut D::State, recorded: RecordedEvent<'_>) {
        D::fold_event(state, recorded);
    }

    fn fold_event(state: &mut D::State, recorded: RecordedEvent<'_>) {
        D::fold_event(state, recorded);
    }

    fn next_wake(state: &D::State) -> Wake {
        D::next_wake(state)
    }

    fn refresh_fingerprint(state: &mut D::State) -> Option<Fingerprint> {
        D::refresh_fingerprint(state)
    }

    fn inherited_history(first: &Event) -> Option<InheritedHistory> {
        D::inherited_history(first)
    }

    fn encode_snapshot(state: &D::State) -> Option<Vec<u8>> {
        D::encode_snapshot(state)
    }

    fn decode_snapshot(snapshot: &[u8]) -> Option<D::State> {
        D::decode_snapshot(snapshot)
    }
}
