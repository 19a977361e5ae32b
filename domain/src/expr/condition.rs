//! Conditions in CEL, the Common Expression Language.

use cel::{Context, Program, Value};

use super::{ExprError, Scope};

/// Bytes of one condition.
const CONDITION_LIMIT: usize = 4 << 10;
/// Operators, brackets and dots in one condition: evaluation recurses once for each.
const OPERATORS_LIMIT: usize = 256;

pub(super) fn compile(source: &str) -> Result<Program, ExprError> {
    if source.len() > CONDITION_LIMIT {
        return Err(ExprError::new(format!("a condition has at most {CONDITION_LIMIT} bytes")));
    }
    // Texts are not left out: how CEL quotes them is not decided here.
    let is_operator = |byte: &u8| byte.is_ascii_punctuation() && !b"_,'\"".contains(byte);
    if source.bytes().filter(|byte| is_operator(byte)).count() > OPERATORS_LIMIT {
        let message = format!("a condition has at most {OPERATORS_LIMIT} operators and brackets");
        return Err(ExprError::new(message));
    }
    Program::compile(source).map_err(|errors| {
        let first = errors.errors.first();
        let message = first.map_or_else(|| "unreadable".to_owned(), |error| error.msg.clone());
        ExprError::new(format!("CEL: {message}"))
    })
}

/// Whether a condition holds.
///
/// # Errors
/// It cannot be read, names something undefined, or does not yield true or false.
pub fn holds(source: &str, scope: &Scope) -> Result<bool, ExprError> {
    let program = compile(source)?;
    super::walk::refs(&program)?;
    let mut context = Context::default();
    for (name, value) in scope.values_for(source) {
        context
            .add_variable(name, value)
            .map_err(|error| ExprError::new(format!("CEL: {error}")))?;
    }
    match program.execute(&context) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(other) => Err(ExprError::new(format!(
            "the condition `{source}` yields {:?}: it must be true or false",
            other.type_of()
        ))),
        Err(error) => Err(ExprError::new(format!("the condition `{source}`: {error}"))),
    }
}
