//! Refuses node fields that a kind of node would ignore, and says what would be right: no limit is
//! accepted that nothing enforces.

use super::decode::{Decoder, Fields};
use super::manifest::{Approval, OnError, Signal, Work};
use super::source::Tree;
use crate::time::Span;

/// The node fields that not every kind of node honours, as written in the manifest.
pub(super) struct GivenFields<'t> {
    pub(super) retry: Option<&'t Tree>,
    pub(super) timeout: Option<&'t Tree>,
    pub(super) on_unknown: Option<&'t Tree>,
    pub(super) on_error: Option<&'t Tree>,
}

impl<'t> GivenFields<'t> {
    /// Takes these fields from a node's fields.
    pub(super) fn take(fields: &mut Fields<'t>) -> Self {
        Self {
            retry: fields.take("retry"),
            timeout: fields.take("timeout"),
            on_error: fields.take("on_error"),
            on_unknown: fields.take("on_unknown"),
        }
    }
}

/// Refuses `retry`, `timeout` and `on_unknown` where the node's kind ignores them.
pub(super) fn check_fields(
    decoder: &mut Decoder<'_>,
    fields: &Fields<'_>,
    given: &GivenFields<'_>,
    work: &Work,
) {
    let named =
        [("retry", given.retry), ("timeout", given.timeout), ("on_unknown", given.on_unknown)];
    for (field, tree) in named {
        if let (Some(tree), Some(reason)) = (tree, reason_to_refuse(field, work)) {
            decoder.add(tree, &fields.at(field), reason);
        }
    }
}

/// Returns the reason why a kind of node does not take a field; `None` if it does.
fn reason_to_refuse(field: &str, work: &Work) -> Option<&'static str> {
    match (field, work) {
        ("retry", Work::Branch(_)) => {
            Some("a branch calls nothing that another try could help: leave `retry` out")
        }
        ("retry", Work::Approval(_) | Work::Sleep(_) | Work::Signal(_)) => {
            Some("a node that waits is not tried again: say with `on_error` what follows")
        }
        ("timeout", Work::Branch(_)) => Some("a branch is decided at once: leave `timeout` out"),
        ("on_unknown", Work::Branch(_) | Work::Approval(_) | Work::Sleep(_) | Work::Signal(_)) => {
            Some("nothing is called here whose outcome could be unknown: leave `on_unknown` out")
        }
        ("on_unknown", Work::Graph(_)) => {
            Some("the run within goes on by itself: say it at its nodes")
        }
        _ => None,
    }
}

/// Refuses `on_error: ask` on a map: its items are not decided about one by one.
pub(super) fn check_map(
    decoder: &mut Decoder<'_>,
    fields: &Fields<'_>,
    given: &GivenFields<'_>,
    (on_error, work): (Option<&OnError>, &Work),
) {
    if let (Some(tree), Some(OnError::Ask), Work::Map(_)) = (given.on_error, on_error, work) {
        let message = "a map cannot ask: use fail, skip or fallback";
        decoder.add(tree, &fields.at("on_error"), message);
    }
}

/// Warns of two limits on one wait, of which only the shorter one counts.
pub(super) fn check_waits(
    decoder: &mut Decoder<'_>,
    fields: &Fields<'_>,
    given: &GivenFields<'_>,
    timeout: Span,
    work: &Work,
) {
    let Some(tree) = given.timeout else { return };
    let message = match work {
        Work::Sleep(sleep) if sleep.span > timeout => {
            format!("ends the sleep of {} after {timeout} as a failure", sleep.span)
        }
        Work::Approval(Approval { ttl: Some(ttl), .. }) => nearer("`ttl`", *ttl, timeout),
        Work::Signal(Signal { timeout: Some(own), .. }) => {
            nearer("the signal's own timeout", *own, timeout)
        }
        _ => return,
    };
    decoder.warn(tree, &fields.at("timeout"), message);
}

fn nearer(name: &str, own: Span, timeout: Span) -> String {
    format!("stands beside {name}: the nearer of them counts, {}", own.min(timeout))
}
