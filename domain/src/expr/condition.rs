//! Conditions in CEL, the Common Expression Language.

use cel::{Context, Program, Value};

use super::allowance::{Allowance, BoundedEvalError};
use super::condition_cost::condition_cost;
use super::error::ExprError;
use super::scope::ExprScope;

/// Longest condition in bytes.
const CONDITION_LIMIT: usize = 4 << 10;
/// Most operators, brackets and dots of a condition: evaluation recurses once for each.
const OPERATORS_LIMIT: usize = 256;

pub(super) fn compile_condition(source: &str) -> Result<Program, ExprError> {
    if source.len() > CONDITION_LIMIT {
        return Err(ExprError::new(format!("a condition has at most {CONDITION_LIMIT} bytes")));
    }
    // Text literals are counted too: skipping them would need CEL's rules of quoting here.
    let is_operator = |byte: &u8| byte.is_ascii_punctuation() && !b"_,'\"".contains(byte);
    if source.bytes().filter(|byte| is_operator(byte)).count() > OPERATORS_LIMIT {
        let message = format!("a condition has at most {OPERATORS_LIMIT} operators and brackets");
        return Err(ExprError::new(message));
    }
    Program::compile(source).map_err(|errors| {
        explain_parse_error(source, errors.errors.first().map_or((1, 0), |error| error.pos))
    })
}

/// Words that CEL reserves: none may follow a dot as a name.
const CEL_RESERVED_WORDS: [&str; 4] = ["false", "in", "null", "true"];
/// Characters of a condition that an error message shows.
const EXCERPT_CHARS: usize = 30;

/// Explains a syntax error at `line` and `column`; the parser's own message is about its grammar.
fn explain_parse_error(source: &str, (line, column): (isize, isize)) -> ExprError {
    let (line, column) = (usize::try_from(line).unwrap_or(1), usize::try_from(column).unwrap_or(0));
    let rest = source.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let rest: String = rest.chars().skip(column).take(EXCERPT_CHARS).collect();
    let message = match reserved_word(source) {
        Some((before, word)) => {
            format!("`{word}` is a word of CEL: write {before}[\"{word}\"]")
        }
        None if rest.trim().is_empty() => "not a condition in CEL: it ends too early".to_owned(),
        None => format!("not a condition in CEL: it cannot be read from `{rest}` on"),
    };
    ExprError { message, line: Some(line.max(1)) }
}

/// Finds a reserved word that is used as a name after a dot, and the text before the dot.
fn reserved_word(source: &str) -> Option<(&str, &str)> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    source.match_indices('.').find_map(|(dot, _)| {
        let (before, after) = (&source[..dot], &source[dot + 1..]);
        let end = after.find(|c| !is_of_name(c)).unwrap_or(after.len());
        let start = before.rfind(|c| !is_of_name(c) && c != '.').map_or(0, |at| at + 1);
        CEL_RESERVED_WORDS.contains(&&after[..end]).then(|| (&before[start..], &after[..end]))
    })
}

/// Returns the index of the first condition that is true, or their number if none is.
///
/// # Errors
/// A condition up to that one cannot be parsed, uses an undefined name, or is not a boolean.
pub fn first_true_condition(
    conditions: &[impl AsRef<str>],
    scope: &ExprScope,
) -> Result<usize, ExprError> {
    for (index, condition) in conditions.iter().enumerate() {
        if condition_holds(condition.as_ref(), scope)? {
            return Ok(index);
        }
    }
    Ok(conditions.len())
}

/// As [`first_true_condition`], if it is certain to cost no more than the allowance.
///
/// # Errors
/// As [`first_true_condition`], or [`BoundedEvalError::OverAllowance`].
pub fn first_true_condition_within(
    conditions: &[impl AsRef<str>],
    scope: &ExprScope,
    allowance: &mut Allowance,
) -> Result<usize, BoundedEvalError> {
    for (index, condition) in conditions.iter().enumerate() {
        let condition = condition.as_ref();
        let program = compile_condition(condition)?;
        let weight = scope.weight_for(condition, allowance.remaining_bytes());
        // Each condition is charged before it is evaluated: the ones after the first true one cost
        // nothing.
        allowance.take_bytes(condition_cost(&program, weight))?;
        if evaluate_program(condition, &program, scope)? {
            return Ok(index);
        }
    }
    Ok(conditions.len())
}

/// Evaluates a condition.
///
/// # Errors
/// It cannot be parsed, uses an undefined name, or is not a boolean.
pub fn condition_holds(source: &str, scope: &ExprScope) -> Result<bool, ExprError> {
    evaluate_program(source, &compile_condition(source)?, scope)
}

fn evaluate_program(source: &str, program: &Program, scope: &ExprScope) -> Result<bool, ExprError> {
    // Bounds the loops of every condition, also of one that no manifest check has seen.
    super::condition_refs::collect_program_refs(program)?;
    let mut context = Context::default();
    for (name, value) in scope.values_for(source) {
        context
            .add_variable(name, value)
            .map_err(|error| ExprError::new(format!("CEL: {error}")))?;
    }
    match program.execute(&context) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(other) => Err(ExprError::new(format!(
            "the condition `{source}` yields {}: it must be true or false",
            type_name(&other)
        ))),
        Err(error) => Err(ExprError::new(format!("the condition `{source}`: {error}"))),
    }
}

/// The type of a value in words for error messages.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => "a number",
        Value::String(_) => "text",
        Value::Null => "nothing",
        _ => "something else",
    }
}
