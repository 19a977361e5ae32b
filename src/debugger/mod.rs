//! The debug view of a run: stepping through its events on a terminal, or as JSON lines.

mod screen;
mod steps;
#[cfg(test)]
mod tests;

pub(crate) use screen::{View, show};
pub(crate) use steps::Steps;
