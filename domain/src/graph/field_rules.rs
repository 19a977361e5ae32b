//! Refuses node fields that a kind of node would ignore, and says what would be right: no limit is
//! accepted that nothing enforces.

use super::decoder::{ManifestDecoder, MapFields};
use super::manifest::{ApprovalNode, NodeWork, OnError, SignalNode};
use super::yaml::YamlTree;
use crate::time::Span;

/// The node fields that not every kind of node honours, as written in the manifest.
pub(super) struct GivenFields<'t> {
    pub(super) retry: Option<&'t YamlTree>,
    pub(super) timeout: Option<&'t YamlTree>,
    pub(super) on_unknown: Option<&'t YamlTree>,
    pub(super) on_error: Option<&'t YamlTree>,
}

impl<'t> GivenFields<'t> {
    /// Takes these fields from a node's fields.
    pub(super) fn take_from(fields: &mut MapFields<'t>) -> Self {
        Self {
            retry: fields.take_field("retry"),
            timeout: fields.take_field("timeout"),
            on_error: fields.take_field("on_error"),
            on_unknown: fields.take_field("on_unknown"),
        }
    }
}

/// Refuses `retry`, `timeout` and `on_unknown` where the node's kind ignores them.
pub(super) fn check_fields(
    decoder: &mut ManifestDecoder<'_>,
    fields: &MapFields<'_>,
    given: &GivenFields<'_>,
    work: &NodeWork,
) {
    let named =
        [("retry", given.retry), ("timeout", given.timeout), ("on_unknown", given.on_unknown)];
    for (field, tree) in named {
        if let (Some(tree), Some(reason)) = (tree, reason_to_refuse(field, work)) {
            decoder.add_error(tree, &fields.field_path(field), reason);
        }
    }
}

/// Returns the reason why a kind of node does not take a field; `None` if it does.
fn reason_to_refuse(field: &str, work: &NodeWork) -> Option<&'static str> {
    match (field, work) {
        ("retry", NodeWork::Branch(_)) => {
            Some("a branch calls nothing that another try could help: leave `retry` out")
        }
        ("retry", NodeWork::Approval(_) | NodeWork::Sleep(_) | NodeWork::Signal(_)) => {
            Some("a node that waits is not tried again: say with `on_error` what follows")
        }
        ("timeout", NodeWork::Branch(_)) => {
            Some("a branch is decided at once: leave `timeout` out")
        }
        (
            "on_unknown",
            NodeWork::Branch(_) | NodeWork::Approval(_) | NodeWork::Sleep(_) | NodeWork::Signal(_),
        ) => Some("nothing is called here whose outcome could be unknown: leave `on_unknown` out"),
        ("on_unknown", NodeWork::Graph(_)) => {
            Some("the run within goes on by itself: say it at its nodes")
        }
        _ => None,
    }
}

/// Refuses `on_error: ask` on a map: its items are not decided about one by one.
pub(super) fn refuse_asking_map(
    decoder: &mut ManifestDecoder<'_>,
    fields: &MapFields<'_>,
    given: &GivenFields<'_>,
    (on_error, work): (Option<&OnError>, &NodeWork),
) {
    if let (Some(tree), Some(OnError::Ask), NodeWork::Map(_)) = (given.on_error, on_error, work) {
        let message = "a map cannot ask: use fail, skip or fallback";
        decoder.add_error(tree, &fields.field_path("on_error"), message);
    }
}

/// Warns of two limits on one wait, of which only the shorter one counts.
pub(super) fn warn_of_double_limit(
    decoder: &mut ManifestDecoder<'_>,
    fields: &MapFields<'_>,
    given: &GivenFields<'_>,
    timeout: Span,
    work: &NodeWork,
) {
    let Some(tree) = given.timeout else { return };
    let message = match work {
        NodeWork::Sleep(sleep) if sleep.span > timeout => {
            format!("ends the sleep of {} after {timeout} as a failure", sleep.span)
        }
        NodeWork::Approval(ApprovalNode { ttl: Some(ttl), .. }) => {
            describe_nearer_limit("`ttl`", *ttl, timeout)
        }
        NodeWork::Signal(SignalNode { timeout: Some(own), .. }) => {
            describe_nearer_limit("the signal's own timeout", *own, timeout)
        }
        _ => return,
    };
    decoder.add_warning(tree, &fields.field_path("timeout"), message);
}

fn describe_nearer_limit(name: &str, own: Span, timeout: Span) -> String {
    format!("stands beside {name}: the nearer of them counts, {}", own.min(timeout))
}
