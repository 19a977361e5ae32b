//! Merges JSON values that arrive in pieces, as providers stream them.

use serde_json::Value;

/// Text fields whose pieces are concatenated; of other fields the latest value counts.
const GROWING_FIELDS: [&str; 8] =
    ["arguments", "content", "data", "input", "signature", "summary", "text", "transcript"];

/// Merges a piece into the value received so far. Lists grow; list entries with an `index` are
/// matched by it.
pub fn merge_piece(whole: &mut Value, piece: Value) {
    match (whole, piece) {
        (Value::Object(whole), Value::Object(piece)) => {
            for (name, value) in piece {
                match whole.get_mut(&name) {
                    Some(Value::String(text)) if GROWING_FIELDS.contains(&name.as_str()) => {
                        match value {
                            Value::String(more) => text.push_str(&more),
                            Value::Null => {}
                            other => _ = whole.insert(name, other),
                        }
                    }
                    Some(known @ (Value::Object(_) | Value::Array(_))) => merge_piece(known, value),
                    Some(_) if value.is_null() => {}
                    _ => _ = whole.insert(name, value),
                }
            }
        }
        (Value::Array(whole), Value::Array(piece)) => {
            for entry in piece {
                let index = entry.get("index").filter(|index| index.is_number()).cloned();
                let is_it = |known: &&mut Value| known.get("index") == index.as_ref();
                match index.is_some().then(|| whole.iter_mut().find(is_it)).flatten() {
                    Some(known) => merge_piece(known, entry),
                    None => whole.push(entry),
                }
            }
        }
        (_, Value::Null) => {}
        (whole, piece) => *whole = piece,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::merge_piece;

    #[test]
    fn pieces_of_a_value_are_put_together() {
        let mut whole = json!({});
        for piece in [
            json!({"details": [{"index": 0, "text": "a", "type": "t"}]}),
            json!({"details": [{"index": 0, "text": "b", "type": "t"}]}),
            json!({"details": [{"index": 1, "text": "c"}], "id": "x"}),
            json!({"id": "y", "none": null}),
        ] {
            merge_piece(&mut whole, piece);
        }
        let expected: Value = json!({"details": [{"index": 0, "text": "ab", "type": "t"},
            {"index": 1, "text": "c"}], "id": "y", "none": null});
        assert_eq!(whole, expected);
    }
}
