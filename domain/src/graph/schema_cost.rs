//! Bounds the cost of checking a value against a schema.

use serde_json::Value;

use super::schema_refs::extent_of;
use crate::expr::{ValueWeight, pattern_states};

/// Bytes that each rule costs besides its value: it is compiled before it is used.
const RULE_BYTES: u64 = 1 << 10;
/// Most bytes of patterns that are bounded here.
const PATTERN_BYTES: u64 = 256;
/// Times that a rule reads its value: once to judge it, once to list its errors.
const PASSES: u64 = 2;

/// Returns the most bytes that a check touches: each rule reads the whole value once for each
/// alternative that it is nested in. `None` if there is no bound.
pub(super) fn schema_check_cost(schema: &Value, value: &Value, limit: u64) -> Option<u64> {
    let extent = extent_of(schema).ok().filter(|extent| !extent.is_open)?;
    let mut traits = SchemaFeatures::default();
    traits.scan_schema(schema, 1)?;
    let weight = ValueWeight::of_value(value, limit);
    let bytes = weight.bytes.saturating_add(ValueWeight::of_value(schema, limit).bytes);
    let rule_bytes = bytes.saturating_mul(PASSES).saturating_mul(traits.depth);
    // `uniqueItems` compares each item with all others.
    let each = if traits.has_unique_items {
        rule_bytes.saturating_mul(weight.longest.max(1))
    } else {
        rule_bytes
    };
    let patterns = traits.pattern_states.saturating_mul(bytes);
    let rules = extent.rules.saturating_mul(each.saturating_add(RULE_BYTES));
    Some(rules.saturating_add(patterns.saturating_mul(extent.rules)))
}

/// Properties of a schema that make its check expensive.
#[derive(Default)]
struct SchemaFeatures {
    depth: u64,
    pattern_bytes: u64,
    pattern_states: u64,
    has_unique_items: bool,
}

impl SchemaFeatures {
    /// Adds a schema; `None` if it uses a keyword whose cost has no known bound.
    fn scan_schema(&mut self, schema: &Value, depth: u64) -> Option<()> {
        self.depth = self.depth.max(depth);
        match schema {
            Value::Object(fields) => fields.iter().try_for_each(|(key, field)| {
                match (key.as_str(), field) {
                    // These keywords depend on the result of sibling rules, and an anchor is a
                    // reference that `extent_of` does not follow.
                    ("unevaluatedProperties" | "unevaluatedItems", _) => return None,
                    ("$id" | "$anchor" | "$dynamicAnchor", Value::String(_)) => return None,
                    ("pattern", Value::String(pattern)) => self.scan_pattern(pattern)?,
                    ("patternProperties", Value::Object(patterns)) => {
                        patterns.keys().try_for_each(|pattern| self.scan_pattern(pattern))?;
                    }
                    ("uniqueItems", _) => self.has_unique_items = true,
                    _ => {}
                }
                self.scan_schema(field, depth + 1)
            }),
            Value::Array(list) => {
                list.iter().try_for_each(|item| self.scan_schema(item, depth + 1))
            }
            _ => Some(()),
        }
    }

    /// Adds a pattern. Only those are bounded that match in one pass over the text: without
    /// lookaround, back references and counted repetitions.
    fn scan_pattern(&mut self, pattern: &str) -> Option<()> {
        self.pattern_bytes += pattern.len() as u64 + 1;
        self.pattern_states += pattern_states(pattern);
        let is_plain = !pattern.contains("(?") && !pattern.contains('{');
        let has_reference = pattern.as_bytes().windows(2).any(|pair| {
            pair[0] == b'\\' && (pair[1].is_ascii_digit() || matches!(pair[1], b'k' | b'K' | b'G'))
        });
        (is_plain && !has_reference && self.pattern_bytes <= PATTERN_BYTES).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::schema_check_cost;

    #[test]
    fn small_checks_are_cheap_and_what_can_explode_has_no_bound() {
        let schema = json!({"type": "object", "properties": {"text": {"type": "string"}},
            "required": ["text"]});
        let cheap =
            schema_check_cost(&schema, &json!({"text": "hello"}), u64::MAX).expect("a bound");
        assert!(cheap < 256 << 10, "{cheap}");
        for schema in [
            json!({"properties": {"x": {"$ref": "#"}}}),
            json!({"unevaluatedProperties": false}),
            json!({"pattern": "(?=a)b"}),
            json!({"pattern": "a{1,1000}"}),
            json!({"pattern": "(a)\\1"}),
            json!({"pattern": "a".repeat(300)}),
        ] {
            assert_eq!(schema_check_cost(&schema, &json!("x"), u64::MAX), None, "{schema}");
        }
    }
}
