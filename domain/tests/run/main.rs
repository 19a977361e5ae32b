//! Tests of the run noun: its rules one by one, and its laws over random commands.

mod clock;
mod family;
mod history;
mod imported;
mod laws;
mod money;
mod once;
mod rules;
mod steering;
mod turns;
