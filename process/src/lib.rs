//! What the program is to its machine and its user, whichever role or command it runs.
//!
//! - `terminal`: the only way to print; `exit`: exit codes, and errors that carry one.
//! - `hardening`, `open_files`: permissions and limits of the process.
//! - `user_folders`: the user's own folders.
//!
//! Nothing of the platform may be here: this crate uses no other one of the workspace.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod exit;
pub mod hardening;
pub mod open_files;
pub mod terminal;
pub mod user_folders;
