//! The debug view of a run: steps through its events on a terminal, or prints them as JSON lines.
//!
//! `timeline` computes what there is to see of each event, as data; `screen` draws it and handles
//! keys. `commands::debug` opens both; nothing here talks to a server.

mod screen;
#[cfg(test)]
mod tests;
mod timeline;

pub(crate) use screen::{DebugView, show_view};
pub(crate) use timeline::DebugTimeline;
