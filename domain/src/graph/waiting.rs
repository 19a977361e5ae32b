//! Decodes signals, and the policy for unknown outcomes.

use super::decode::Decoder;
use super::manifest::{OnUnknown, Signal};
use super::source::{Kind, Tree};

/// Decodes `signal: NAME` or `signal: {name, timeout}`.
pub(super) fn signal(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Option<Signal> {
    if !matches!(tree.kind, Kind::Map(_)) {
        return decoder.parsed(tree, path).map(|name| Signal { name, timeout: None });
    }
    let mut fields = decoder.fields(tree, path)?;
    let name = match fields.take("name") {
        Some(tree) => decoder.parsed(tree, &fields.at("name")),
        None => {
            let message = "missing: the event's name, as `signal: {name: paid}`";
            decoder.add(tree, &fields.at("name"), message);
            None
        }
    };
    let timeout = fields.take("timeout").and_then(|t| decoder.parsed(t, &fields.at("timeout")));
    decoder.finish(&fields);
    Some(Signal { name: name?, timeout })
}

/// Decodes the policy for a try whose outcome is unknown.
pub(super) fn on_unknown(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Option<OnUnknown> {
    match decoder.text(tree, path)?.as_str() {
        "retry" => Some(OnUnknown::Retry),
        "retry_if_idempotent" => Some(OnUnknown::RetryIfIdempotent),
        "reconcile" => Some(OnUnknown::Reconcile),
        "ask" => Some(OnUnknown::Ask),
        _ => {
            let message = "must be `retry`, `retry_if_idempotent`, `reconcile` or `ask`";
            decoder.add(tree, path, message);
            None
        }
    }
}
