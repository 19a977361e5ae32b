//! What a value takes in memory, and how wide it is: the measure of what work on it can cost.

use serde_json::Value;

/// Bytes that each value takes besides its text: a place in a list, with what it grows by.
pub(super) const NODE_BYTES: u64 = 48;
/// Bytes that each map takes besides its fields: its first leaf has room for eleven.
const MAP_BYTES: u64 = 640;

/// How much a value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes in memory, at most so many.
    pub bytes: u64,
    /// Items of its longest list, or fields of its largest map.
    pub longest: u64,
}

impl Weight {
    /// Weighs a value. One that is heavier than `limit` is not looked at further: the weight is
    /// then above the limit, and says no more.
    pub fn of(value: &Value, limit: u64) -> Self {
        let mut weight = Self::default();
        weight.add(value, limit);
        weight
    }

    /// Adds a value.
    pub fn add(&mut self, value: &Value, limit: u64) {
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
                    self.add(item, limit);
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
                    self.add(field, limit);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Weight;

    #[test]
    fn a_weight_is_never_below_the_text_and_stops_at_its_limit() {
        let value = json!({"a": ["x".repeat(1000), [1, 2, 3]], "b": {}});
        let weight = Weight::of(&value, u64::MAX);
        assert!(weight.bytes > 1000 + 8 * 48 && weight.longest == 3, "{weight:?}");
        let long = json!(vec![0; 100_000]);
        assert!(Weight::of(&long, 1000).bytes <= 1000 + 48);
        assert!(Weight::of(&long, 1000).bytes > 1000);
    }
}
