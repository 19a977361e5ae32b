//! Checking values against JSON Schemas.

use serde_json::Value;

/// Messages listed at most.
const LIMIT: usize = 20;

/// Whether a value is a JSON Schema that this platform accepts: 2020-12, without remote references.
pub(super) fn check_schema(schema: &Value) -> Result<(), String> {
    jsonschema::validator_for(schema).map(drop).map_err(|error| error.to_string())
}

/// What is wrong with a run's inputs, each with the place by JSON pointer. Empty when all is well.
pub fn check_inputs(schema: &Value, inputs: &Value) -> Vec<String> {
    match jsonschema::validator_for(schema) {
        Ok(validator) => {
            let explain = |error: jsonschema::ValidationError<'_>| {
                format!("inputs{}: {error}", error.instance_path())
            };
            validator.iter_errors(inputs).take(LIMIT).map(explain).collect()
        }
        Err(error) => vec![format!("the graph's schema of inputs is not usable: {error}")],
    }
}
