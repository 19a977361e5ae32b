//! Size limits of a tool's arguments and answer.

use serde_json::Value;

use super::args::ToolError;

/// Maximum bytes of all arguments of a call.
pub(super) const INPUT_LIMIT: usize = 8 << 20;
/// Maximum bytes of an answer.
pub(super) const OUTPUT_LIMIT: usize = 4 << 20;
/// Maximum items of any list.
pub(super) const LIST_LIMIT: usize = 10_000;
/// Maximum nesting of lists and objects; the kernel's JSON reader has the same limit.
const DEPTH_LIMIT: usize = 64;

/// Rejects a value that is too large. `subject` names it in the message.
pub(super) fn check(what: &str, value: &Value, limit: usize) -> Result<(), ToolError> {
    let mut left = limit;
    measure(value, &mut left, DEPTH_LIMIT).map_err(|excess| {
        ToolError(match excess {
            Excess::Bytes => format!("{what} must have at most {limit} bytes"),
            Excess::Items => format!("a list in {what} must have at most {LIST_LIMIT} items"),
            Excess::Depth => format!("{what} must be nested at most {DEPTH_LIMIT} levels deep"),
        })
    })
}

enum Excess {
    Bytes,
    Items,
    Depth,
}

/// Deducts the approximate JSON size of a value from `bytes_left`. Stops at the first excess, so
/// that the work is bounded too.
fn measure(value: &Value, left: &mut usize, depth: usize) -> Result<(), Excess> {
    // An estimate is enough: exact text would have to be serialised first.
    let mut take = |bytes: usize| {
        *left = left.checked_sub(bytes).ok_or(Excess::Bytes)?;
        Ok(())
    };
    let inner = || depth.checked_sub(1).ok_or(Excess::Depth);
    match value {
        Value::Null | Value::Bool(_) => take(4),
        Value::Number(_) => take(8),
        Value::String(text) => take(text.len() + 2),
        Value::Array(list) if list.len() > LIST_LIMIT => Err(Excess::Items),
        Value::Array(list) => {
            take(list.len() + 2)?;
            let depth = inner()?;
            list.iter().try_for_each(|item| measure(item, left, depth))
        }
        Value::Object(fields) => {
            take(2)?;
            let depth = inner()?;
            fields.iter().try_for_each(|(name, field)| {
                *left = left.checked_sub(name.len() + 4).ok_or(Excess::Bytes)?;
                measure(field, left, depth)
            })
        }
    }
}
