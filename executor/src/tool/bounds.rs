//! Size limits of a tool's arguments and answer.

use serde_json::Value;

use super::arguments::ToolCallError;

/// Maximum bytes of all arguments of a call.
pub(super) const ARGUMENTS_BYTES_LIMIT: usize = 8 << 20;
/// Maximum bytes of an answer.
pub(super) const ANSWER_BYTES_LIMIT: usize = 4 << 20;
/// Maximum items of any list.
pub(super) const LIST_ITEMS_LIMIT: usize = 10_000;
/// Maximum nesting of lists and objects; the kernel's JSON reader has the same limit.
const DEPTH_LIMIT: usize = 64;

/// Rejects a value that is too large. `subject` names it in the message.
pub(super) fn check_value_size(
    subject: &str,
    value: &Value,
    limit: usize,
) -> Result<(), ToolCallError> {
    let mut bytes_left = limit;
    deduct_size(value, &mut bytes_left, DEPTH_LIMIT).map_err(|excess| {
        ToolCallError(match excess {
            SizeExcess::Bytes => format!("{subject} must have at most {limit} bytes"),
            SizeExcess::Items => {
                format!("a list in {subject} must have at most {LIST_ITEMS_LIMIT} items")
            }
            SizeExcess::Depth => {
                format!("{subject} must be nested at most {DEPTH_LIMIT} levels deep")
            }
        })
    })
}

enum SizeExcess {
    Bytes,
    Items,
    Depth,
}

/// Deducts the approximate JSON size of a value from `bytes_left`. Stops at the first excess, so
/// that the work is bounded too.
fn deduct_size(
    value: &Value,
    bytes_left: &mut usize,
    levels_left: usize,
) -> Result<(), SizeExcess> {
    // An estimate is enough: exact text would have to be serialised first.
    let mut take = |bytes: usize| {
        *bytes_left = bytes_left.checked_sub(bytes).ok_or(SizeExcess::Bytes)?;
        Ok(())
    };
    let one_level_less = || levels_left.checked_sub(1).ok_or(SizeExcess::Depth);
    match value {
        Value::Null | Value::Bool(_) => take(4),
        Value::Number(_) => take(8),
        Value::String(text) => take(text.len() + 2),
        Value::Array(list) if list.len() > LIST_ITEMS_LIMIT => Err(SizeExcess::Items),
        Value::Array(list) => {
            take(list.len() + 2)?;
            let levels_left = one_level_less()?;
            list.iter().try_for_each(|item| deduct_size(item, bytes_left, levels_left))
        }
        Value::Object(fields) => {
            take(2)?;
            let levels_left = one_level_less()?;
            fields.iter().try_for_each(|(name, field)| {
                *bytes_left = bytes_left.checked_sub(name.len() + 4).ok_or(SizeExcess::Bytes)?;
                deduct_size(field, bytes_left, levels_left)
            })
        }
    }
}
