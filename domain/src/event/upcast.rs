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
pub fn decode_event(mut written: Value) -> Result<Event, EventDecodeError> {
    let data = written.get_mut("data").map(Value::take).unwrap_or_default();
    decode_upcast(written.get("type").and_then(Value::as_str).unwrap_or("(none)"), data)
}

/// Decodes an event from its wire type and the JSON text of its data. Gives the same result as
/// [`decode_event`], but faster: a current form is read without an intermediate [`Value`].
///
/// # Errors
/// The type is unknown, or the data does not have the form of its type.
pub fn decode_event_text(type_name: &str, data: &str) -> Result<Event, EventDecodeError> {
    let decode_error = |error: serde_json::Error| EventDecodeError::new(type_name, &error);
    if UPCASTERS.iter().any(|(from, ..)| *from == type_name) {
        return decode_upcast(type_name, serde_json::from_str(data).map_err(decode_error)?);
    }
    let mut data = serde_json::Deserializer::from_str(data);
    let Some(event) = Event::decode_data(type_name, &mut data) else {
        return Err(EventDecodeError::unknown_type(type_name));
    };
    let event = event.map_err(decode_error)?;
    // The deserialiser stops after one value; trailing text would pass unnoticed.
    data.end().map_err(decode_error)?;
    Ok(event)
}

/// Checks that a wire type exists, current or old.
///
/// # Errors
/// Nothing has that type; the reason lists the current types.
pub fn check_type_name(type_name: &str) -> Result<(), EventDecodeError> {
    let mut old_types = UPCASTERS.iter().map(|(from, ..)| *from);
    if Event::type_names().any(|known| known == type_name) || old_types.any(|old| old == type_name)
    {
        return Ok(());
    }
    Err(EventDecodeError::unknown_type(type_name))
}

impl EventDecodeError {
    fn new(type_name: &str, reason: &impl std::fmt::Display) -> Self {
        Self { type_name: type_name.to_owned(), reason: reason.to_string() }
    }

    fn unknown_type(type_name: &str) -> Self {
        let known: Vec<String> = Event::type_names().map(|name| format!("`{name}`")).collect();
        let known = known.join(", ");
        Self::new(
            type_name,
            &format_args!("unknown variant `{type_name}`, expected one of {known}"),
        )
    }
}

fn decode_upcast(type_name: &str, data: Value) -> Result<Event, EventDecodeError> {
    let (current, data) = apply_upcasters(type_name, data, UPCASTERS);
    match Event::decode_data(current, data) {
        Some(event) => event.map_err(|error| EventDecodeError::new(type_name, &error)),
        None => Err(EventDecodeError::unknown_type(type_name)),
    }
}

/// Applies upcasters one after the other until the wire type is a current one.
fn apply_upcasters<'n>(
    type_name: &'n str,
    mut data: Value,
    upcasters: &[Upcaster],
) -> (&'n str, Value) {
    let mut current = type_name;
    while let Some((_, to, convert_data)) = upcasters.iter().find(|(from, ..)| *from == current) {
        (current, data) = (to, convert_data(data));
    }
    (current, data)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Event, Upcaster, Value, apply_upcasters};
    use crate::run::event::RunEvent;

    /// Two old forms of a cancellation, as they might have been.
    const OLD: &[Upcaster] = &[
        ("run.cancelled.v0", "run.cancelled.v1", |mut data| {
            data["reason"] = data["why"].take();
            data
        }),
        ("run.stopped.v0", "run.cancelled.v0", |_| json!({"why": "stopped"})),
    ];

    fn read(type_name: &str, data: Value) -> Event {
        let (current, data) = apply_upcasters(type_name, data, OLD);
        Event::decode_data(current, data).expect("a current type").expect("a current form")
    }

    #[test]
    fn old_forms_are_brought_up_step_by_step_and_current_ones_left_alone() {
        let current = read("run.cancelled.v1", json!({"reason": "enough"}));
        let old = read("run.cancelled.v0", json!({"why": "enough"}));
        assert_eq!(old, current);
        let Event::Run(RunEvent::RunCancelled(oldest)) = read("run.stopped.v0", json!({})) else {
            panic!("it was a cancellation");
        };
        assert_eq!(oldest.reason.as_deref(), Some("stopped"));
    }
}
