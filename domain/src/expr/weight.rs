//! Measures a value's memory and width, on which the cost of working with it depends.

use serde_json::Value;

/// Bytes that each value counts besides its text: its slot in a list, with the list's growth.
pub(super) const NODE_BYTES: u64 = 48;
/// Bytes that each map counts besides its fields: its first leaf has room for eleven.
const MAP_BYTES: u64 = 640;

/// Memory and width of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValueWeight {
    /// Upper bound of its bytes in memory.
    pub bytes: u64,
    /// Items of its longest list, or fields of its largest map if that is more.
    pub longest: u64,
}

impl ValueWeight {
    /// Measures a value. Measuring stops above `limit`: the result is then above the limit, and no
    /// more is known.
    pub fn of_value(value: &Value, limit: u64) -> Self {
        let mut weight = Self::default();
        weight.add_value(value, limit);
        weight
    }

    /// Adds a value, unless the weight is above `limit` already.
    pub fn add_value(&mut self, value: &Value, limit: u64) {
        if self.bytes > limit {
            return;
        }
        self.bytes += NODE_BYTES;
        match value {
            Value::String(text) => self.bytes += text.len() as u64,
            Value::Array(list) => {
                self.longest = self.longest.max(list.len() as u64);
                for item in list {
                    if self.bytes > limit {
                        return;
                    }
                    self.add_value(item, limit);
                }
            }
            Value::Object(fields) => {
                self.bytes += MAP_BYTES;
                self.longest = self.longest.max(fields.len() as u64);
                for (key, field) in fields {
                    if self.bytes > limit {
                        return;
                    }
                    self.bytes += key.len() as u64;
                    self.add_value(field, limit);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::ValueWeight;

    #[test]
    fn a_weight_is_never_below_the_text_and_stops_at_its_limit() {
        let value = json!({"a": ["x".repeat(1000), [1, 2, 3]], "b": {}});
        let weight = ValueWeight::of_value(&value, u64::MAX);
        assert!(weight.bytes > 1000 + 8 * 48 && weight.longest == 3, "{weight:?}");
        let long = json!(vec![0; 100_000]);
        assert!(ValueWeight::of_value(&long, 1000).bytes <= 1000 + 48);
        assert!(ValueWeight::of_value(&long, 1000).bytes > 1000);
    }
}
