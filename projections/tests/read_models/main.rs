//! Read models are disposable folds of the log, the same on every database.

mod full;
mod memory;
mod postgres;
mod rebuild;
mod support;
