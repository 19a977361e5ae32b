//! Decodes events: current versions through serde, old versions through pure upcasters.

use serde_json::Value;

use super::Event;

/// An event that this program cannot read, for example because a newer one wrote it.
#[derive(Debug, thiserror::Error)]
#[error("event `{type_name}` cannot be read: {reason}")]
pub struct EventDecodeError {
    /// Wire type of the event, or `(none)`.
    pub type_name: String,
    /// Description of the mistake, by serde.
    pub reason: String,
}

/// Old wire type, the wire type that replaces it, and a pure conversion of the data.
type Upcaster = (&'static str, &'static str, fn(Value) -> Value);

/// All old forms that a log may contain. Empty: all forms are at their first version.
const UPCASTERS: &[Upcaster] = &[];

/// Decodes an event from its wire form, `{"type": ..., "data": ...}`.
///
/// # Errors
/// The type is unknown, or the data does not have the form of its type.
pub fn decode_event(written: Value) -> Result<Event, EventDecodeError> {
    let type_name = written.get("type").and_then(Value::as_str).unwrap_or("(none)").to_owned();
    let current = apply_upcasters(written, &type_name, UPCASTERS);
    serde_json::from_value(current)
        .map_err(|error| EventDecodeError { type_name, reason: error.to_string() })
}

/// Decodes an event from its wire type and the JSON text of its data. Gives the same result as
/// [`decode_event`], but faster: a current form is read without an intermediate [`Value`].
///
/// # Errors
/// The type is unknown, or the data does not have the form of its type.
pub fn decode_event_text(type_name: &str, data: &str) -> Result<Event, EventDecodeError> {
    let decode_error = |error: serde_json::Error| EventDecodeError {
        type_name: type_name.to_owned(),
        reason: error.to_string(),
    };
    if UPCASTERS.iter().any(|(from, ..)| *from == type_name) {
        let data: Value = serde_json::from_str(data).map_err(decode_error)?;
        return decode_event(serde_json::json!({"type": type_name, "data": data}));
    }
    super::event_text::deserialize_event(type_name, data).map_err(decode_error)
}

/// Applies upcasters one after the other until the wire type is a current one.
fn apply_upcasters(mut written: Value, type_name: &str, upcasters: &[Upcaster]) -> Value {
    let mut current = type_name.to_owned();
    while let Some((_, to, convert_data)) = upcasters.iter().find(|(from, ..)| *from == current) {
        written["data"] = convert_data(written["data"].take());
        written["type"] = Value::from(*to);
        current = (*to).to_owned();
    }
    written
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Event, Upcaster, Value, apply_upcasters};

    /// Two old forms of a cancellation, as they might have been.
    const OLD: &[Upcaster] = &[
        ("run.cancelled.v0", "run.cancelled.v1", |mut data| {
            data["reason"] = data["why"].take();
            data
        }),
        ("run.stopped.v0", "run.cancelled.v0", |_| json!({"why": "stopped"})),
    ];

    fn read(written: Value) -> Event {
        let name = written["type"].as_str().expect("a type").to_owned();
        serde_json::from_value(apply_upcasters(written, &name, OLD)).expect("a current form")
    }

    #[test]
    fn old_forms_are_brought_up_step_by_step_and_current_ones_left_alone() {
        let current = read(json!({"type": "run.cancelled.v1", "data": {"reason": "enough"}}));
        let old = read(json!({"type": "run.cancelled.v0", "data": {"why": "enough"}}));
        assert_eq!(old, current);
        let Event::RunCancelled(oldest) = read(json!({"type": "run.stopped.v0", "data": {}}))
        else {
            panic!("it was a cancellation");
        };
        assert_eq!(oldest.reason.as_deref(), Some("stopped"));
    }
}
