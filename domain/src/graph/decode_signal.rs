//! Decodes signals, and the policy for unknown outcomes.

use super::decoder::ManifestDecoder;
use super::manifest::{OnUnknown, SignalNode};
use super::yaml::{YamlKind, YamlTree};

/// Decodes `signal: NAME` or `signal: {name, timeout}`.
pub(super) fn decode_signal(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
) -> Option<SignalNode> {
    if !matches!(tree.kind, YamlKind::Map(_)) {
        return decoder.decode_parsed(tree, path).map(|name| SignalNode { name, timeout: None });
    }
    let mut fields = decoder.map_fields(tree, path)?;
    let name = match fields.take_field("name") {
        Some(tree) => decoder.decode_parsed(tree, &fields.field_path("name")),
        None => {
            let message = "missing: the event's name, as `signal: {name: paid}`";
            decoder.add_error(tree, &fields.field_path("name"), message);
            None
        }
    };
    let timeout = fields
        .take_field("timeout")
        .and_then(|t| decoder.decode_parsed(t, &fields.field_path("timeout")));
    decoder.reject_unknown_fields(&fields);
    Some(SignalNode { name: name?, timeout })
}

/// Decodes the policy for a try whose outcome is unknown.
pub(super) fn decode_on_unknown(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
) -> Option<OnUnknown> {
    match decoder.decode_text(tree, path)?.as_str() {
        "retry" => Some(OnUnknown::Retry),
        "retry_if_idempotent" => Some(OnUnknown::RetryIfIdempotent),
        "reconcile" => Some(OnUnknown::Reconcile),
        "ask" => Some(OnUnknown::Ask),
        _ => {
            let message = "must be `retry`, `retry_if_idempotent`, `reconcile` or `ask`";
            decoder.add_error(tree, path, message);
            None
        }
    }
}
