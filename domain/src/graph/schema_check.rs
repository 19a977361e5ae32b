//! Checks values against JSON Schemas, with bounds on the messages and, where asked, on the work.

use std::fmt::{self, Write};

use serde_json::Value;

use super::schema_cost::schema_check_cost;
use super::schema_refs::extent_of;
use crate::expr::Allowance;

/// Most messages that one check returns.
const MESSAGES_LIMIT: usize = 20;
/// Longest message in bytes: the library repeats the wrong value, however long it is.
const MESSAGE_BYTES: usize = 500;

/// Accepts a JSON Schema: 2020-12, without remote references and without references that multiply.
pub(super) fn check_schema(schema: &Value) -> Result<(), String> {
    extent_of(schema)?;
    jsonschema::validator_for(schema).map(drop).map_err(|error| truncate_message(&error))
}

/// Returns the errors of a run's inputs, each with its JSON pointer; empty if the inputs are valid.
///
/// Time and memory are not bounded here: inputs of strangers must be checked [within an
/// allowance](check_inputs_within), or in a worker process that may be killed.
pub fn check_inputs(schema: &Value, inputs: &Value) -> Vec<String> {
    match jsonschema::validator_for(schema) {
        Ok(validator) => {
            let explain = |error: jsonschema::ValidationError<'_>| {
                truncate_message(&format_args!("inputs{}: {error}", error.instance_path()))
            };
            validator.iter_errors(inputs).take(MESSAGES_LIMIT).map(explain).collect()
        }
        Err(error) => {
            vec![truncate_message(&format_args!(
                "the graph's schema of inputs is not usable: {error}"
            ))]
        }
    }
}

/// Checks inputs if the check is certain to cost no more than the allowance; `None` if it may not.
pub fn check_inputs_within(
    schema: &Value,
    inputs: &Value,
    allowance: &mut Allowance,
) -> Option<Vec<String>> {
    let work = schema_check_cost(schema, inputs, allowance.remaining_bytes())?;
    allowance.take_bytes(work).ok()?;
    Some(check_inputs(schema, inputs))
}

/// Text that stops growing at [`MESSAGE_BYTES`].
struct TruncatedText(String);

impl Write for TruncatedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MESSAGE_BYTES.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}

fn truncate_message(message: &dyn fmt::Display) -> String {
    let mut short = TruncatedText(String::new());
    if write!(short, "{message}").is_err() {
        short.0.push_str(" (cut)");
    }
    short.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::check_inputs;

    #[test]
    fn a_message_does_not_repeat_a_long_value() {
        let wrong = check_inputs(&json!({"type": "object"}), &json!("x".repeat(1 << 20)));
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].len() < 600 && wrong[0].ends_with("(cut)"), "{}", wrong[0].len());
    }
}
