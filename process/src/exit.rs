//! Exit codes of the program, and errors that carry one.

use std::process::ExitCode;

use crate::terminal;

/// Exit code: a run failed or was cancelled, or a check did not pass.
pub const FAILED: u8 = 1;
/// Exit code: the user's input is wrong, such as a manifest, an input or an option.
pub const BAD_INPUT: u8 = 2;
/// Exit code: the server cannot be reached or started.
pub const UNAVAILABLE: u8 = 3;
/// Exit code: the run goes on without this process, or waits for a person.
pub const DETACHED: u8 = 4;

/// An error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// Exit code of the program.
    pub code: u8,
    /// Text for the user, without a period.
    pub message: String,
}

/// Error for wrong input of the user.
pub fn bad_input_error(message: impl Into<String>) -> anyhow::Error {
    ExitError { code: BAD_INPUT, message: message.into() }.into()
}

/// Error for a server, log or folder that cannot be used now.
pub fn unavailable_error(message: impl Into<String>) -> anyhow::Error {
    ExitError { code: UNAVAILABLE, message: message.into() }.into()
}

/// Prints an error and returns its exit code: that of an [`ExitError`], else [`UNAVAILABLE`].
pub fn report_error(error: &anyhow::Error) -> ExitCode {
    let code = error.downcast_ref::<ExitError>().map_or(UNAVAILABLE, |exit| exit.code);
    terminal::print_error(&format_args!("{error:#}"));
    ExitCode::from(code)
}
