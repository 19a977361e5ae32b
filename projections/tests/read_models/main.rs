//! Read models are disposable folds of the log, the same on every database.

mod earlier;
mod ended;
mod full;
mod imported;
mod memory;
mod postgres;
mod rebuild;
mod support;
