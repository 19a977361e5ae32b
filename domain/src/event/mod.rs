//! Events: the closed enum of everything that a stream can record, with the wire type of each.
//!
//! - Each noun declares its own events beside its rules, with `noun_events`: `run/event`,
//!   `graph/event.rs`, and so on. There it folds them and sums them up for auditors.
//! - This file joins the nouns to [`Event`], which records hold.
//! - `upcast`: reads events, and turns old versions of an event into the current one.
//!
//! The payload structs are wire forms: their fields are never renamed or removed. A change of form
//! is a new version and an upcaster. Deciders create events, the event store writes them, and
//! `evolve` and the projections read them; no rule belongs here.

pub(crate) mod noun_events;
mod upcast;

pub use upcast::{EventDecodeError, check_type_name, decode_event, decode_event_text};

use serde::{Deserializer, Serialize};
use serde_json::Value;

use crate::agent::event::AgentEvent;
use crate::graph::event::GraphEvent;
use crate::memory::event::MemoryEvent;
use crate::request::event::RequestEvent;
use crate::run::event::RunEvent;
use crate::token::event::TokenEvent;

/// Events of one noun, as a part of [`Event`].
pub trait NounEvent: Into<Event> {
    /// Returns the noun's own event; `None` if the event belongs to another noun.
    fn from_event(event: &Event) -> Option<&Self>;
}

macro_rules! join_nouns {
    ($($noun:ident($events:ident),)*) => {
        /// An event, by the noun whose rules it follows. Its wire type ends in the version of its
        /// form. An old form is never edited; it is read through an upcaster.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        #[expect(missing_docs, reason = "each noun is documented at its events")]
        #[expect(clippy::large_enum_variant, reason = "nearly all events are the largest, a run's")]
        pub enum Event {
            $($noun($events),)*
        }

        impl Event {
            /// Returns the wire type, as `run.step.completed.v1`.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$noun(event) => event.type_name(),)*
                }
            }

            /// Returns the content of the event that an auditor sees at a glance; `None` for
            /// bookkeeping, which is no act of a person or a program.
            pub fn audit_summary(&self) -> Option<Value> {
                match self {
                    $(Self::$noun(event) => event.audit_summary(),)*
                }
            }

            /// Iterates over the wire types of all events.
            fn type_names() -> impl Iterator<Item = &'static str> {
                [$($events::TYPE_NAMES),*].into_iter().flatten().copied()
            }

            /// Reads the data of an event of a current wire type; `None` if nothing has that type.
            fn decode_data<'de, D: Deserializer<'de>>(
                type_name: &str,
                data: D,
            ) -> Option<Result<Self, D::Error>> {
                $(if let Some(decode) = $events::find_decoder(type_name) {
                    return Some(decode(data).map(Self::$noun));
                })*
                None
            }
        }

        $(impl From<$events> for Event {
            fn from(event: $events) -> Self {
                Self::$noun(event)
            }
        }

        impl NounEvent for $events {
            fn from_event(event: &Event) -> Option<&Self> {
                match event {
                    Event::$noun(event) => Some(event),
                    _ => None,
                }
            }
        })*
    };
}

join_nouns! {
    Graph(GraphEvent),
    Memory(MemoryEvent),
    Request(RequestEvent),
    Token(TokenEvent),
    Run(RunEvent),
    Agent(AgentEvent),
}

impl NounEvent for Event {
    fn from_event(event: &Event) -> Option<&Self> {
        Some(event)
    }
}

impl Event {
    /// Returns the event if it is a run's.
    pub fn as_run(&self) -> Option<&RunEvent> {
        RunEvent::from_event(self)
    }

    /// True for events that a parent or child run may write into a run's stream. Followers of the
    /// log wake the run on such an event, even if its own executor has written it.
    pub fn is_from_another_run(&self) -> bool {
        matches!(
            self,
            Self::Run(
                RunEvent::RunCreated(_)
                    | RunEvent::RunCancelled(_)
                    | RunEvent::RunPaused(_)
                    | RunEvent::RunResumed(_)
                    | RunEvent::RunReopened(_)
                    | RunEvent::ChildEnded(_)
            )
        )
    }
}
