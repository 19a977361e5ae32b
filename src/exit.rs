//! How the program ends: its exit codes, and errors as one clear line.

use std::process::ExitCode;

use crate::terminal;

/// A run failed or was cancelled, or a check did not pass.
pub(crate) const FAILED: u8 = 1;
/// What was given is wrong: a manifest, an input, an option.
pub(crate) const BAD_INPUT: u8 = 2;
/// The server cannot be reached or started.
pub(crate) const UNAVAILABLE: u8 = 3;
/// The run goes on without us, or waits for a person.
pub(crate) const DETACHED: u8 = 4;

/// An error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) message: String,
}

/// What was given is wrong.
pub(crate) fn bad_input(message: impl Into<String>) -> anyhow::Error {
    Exit { code: BAD_INPUT, message: message.into() }.into()
}

/// The server cannot be reached or started.
pub(crate) fn unavailable(message: impl Into<String>) -> anyhow::Error {
    Exit { code: UNAVAILABLE, message: message.into() }.into()
}

/// Prints an error as one line and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let code = error.downcast_ref::<Exit>().map_or(UNAVAILABLE, |exit| exit.code);
    terminal::print_error(&format_args!("{error:#}"));
    ExitCode::from(code)
}
