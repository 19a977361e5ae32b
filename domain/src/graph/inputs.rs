//! Checking values against JSON Schemas.

use std::fmt::{self, Write};

use serde_json::Value;

use super::schema_refs::extent_of;
use super::schema_work::work_of;
use crate::expr::Allowance;

/// Messages listed at most.
const LIMIT: usize = 20;
/// Bytes of one message: the library repeats the value that is wrong, however long it is.
const MESSAGE_BYTES: usize = 500;

/// Whether a value is a JSON Schema that this platform accepts: 2020-12, without remote references
/// and without those that multiply.
pub(super) fn check_schema(schema: &Value) -> Result<(), String> {
    extent_of(schema)?;
    jsonschema::validator_for(schema).map(drop).map_err(|error| shortened(&error))
}

/// What is wrong with a run's inputs, each with the place by JSON pointer. Empty when all is well.
///
/// It may take for ever, or more memory than there is: what strangers send is checked
/// [within an allowance](check_inputs_within), or where that does no harm.
pub fn check_inputs(schema: &Value, inputs: &Value) -> Vec<String> {
    match jsonschema::validator_for(schema) {
        Ok(validator) => {
            let explain = |error: jsonschema::ValidationError<'_>| {
                shortened(&format_args!("inputs{}: {error}", error.instance_path()))
            };
            validator.iter_errors(inputs).take(LIMIT).map(explain).collect()
        }
        Err(error) => {
            vec![shortened(&format_args!("the graph's schema of inputs is not usable: {error}"))]
        }
    }
}

/// The same, if it costs no more than the allowance in any case; nothing if it may.
pub fn check_inputs_within(
    schema: &Value,
    inputs: &Value,
    allowance: &mut Allowance,
) -> Option<Vec<String>> {
    let work = work_of(schema, inputs, allowance.left())?;
    allowance.take(work).ok()?;
    Some(check_inputs(schema, inputs))
}

/// A text that is cut before it is long.
struct Short(String);

impl Write for Short {
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

fn shortened(message: &dyn fmt::Display) -> String {
    let mut short = Short(String::new());
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
