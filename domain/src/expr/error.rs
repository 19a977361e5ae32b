//! The error of an expression, with a message of bounded length.

/// Error of an expression that cannot be parsed or has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// The error, with the expression that has it.
    pub message: String,
    /// Line within the text, from 1, if known.
    pub line: Option<usize>,
}

impl ExprError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: truncate_message(message.into()), line: None }
    }
}

/// Longest message in bytes: a library may repeat a whole value in its message.
const MESSAGE_BYTES: usize = 2 << 10;

fn truncate_message(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        let end = (0..=MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        message.push_str(" (cut)");
    }
    message
}
