//! The debug view of a run: steps through its events on a terminal, or prints them as JSON lines.
//!
//! `timeline` computes what there is to see of each event, as data; `screen` draws it and handles
//! keys. `commands::debug` opens both; nothing here talks to a server.

mod screen;
mod steps;
#[cfg(test)]
mod tests;

pub(crate) use screen::{View, show};
pub(crate) use steps::Steps;
