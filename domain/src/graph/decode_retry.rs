//! Decodes retry policies.

use super::decoder::ManifestDecoder;
use super::manifest::{BACKOFF_LIMIT, RetryPolicy};
use super::yaml::{YamlKind, YamlTree};
use crate::run::{FAILURE_CODES, find_failure_code, retryable_codes};
use crate::time::Span;

/// Most tries that a manifest may ask for.
const TRIES_LIMIT: u64 = 100;

/// Decodes `retry: {max, backoff, on}`.
pub(super) fn decode_retry(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
) -> RetryPolicy {
    let mut retry = RetryPolicy::default();
    let Some(mut fields) = decoder.map_fields(tree, path) else { return retry };
    if let Some(tree) = fields.take_field("max") {
        let max = decoder.decode_number(tree, &fields.field_path("max"), 1, TRIES_LIMIT);
        retry.max = max.and_then(|max| u32::try_from(max).ok()).unwrap_or(retry.max);
    }
    if let Some(tree) = fields.take_field("backoff") {
        retry.backoff =
            decode_backoff(decoder, tree, &fields.field_path("backoff")).unwrap_or(retry.backoff);
    }
    if let Some(tree) = fields.take_field("on") {
        retry.on = decode_failure_codes(decoder, tree, &fields.field_path("on"));
    }
    decoder.reject_unknown_fields(&fields);
    retry
}

/// Decodes a backoff; one above the limit is reported, since it would be cut to the limit unseen.
fn decode_backoff(decoder: &mut ManifestDecoder<'_>, tree: &YamlTree, path: &str) -> Option<Span> {
    let backoff: Span = decoder.decode_parsed(tree, path)?;
    if backoff > BACKOFF_LIMIT {
        let message = format!("must be at most {BACKOFF_LIMIT}: tries are not further apart");
        decoder.add_error(tree, path, message);
    }
    Some(backoff)
}

fn decode_failure_codes(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
) -> Vec<String> {
    let YamlKind::List(list) = &tree.kind else {
        decoder.add_error(tree, path, "must be a list of codes, as [provider.timeout]");
        return Vec::new();
    };
    let code = |(index, tree)| decode_failure_code(decoder, tree, &format!("{path}[{index}]"));
    list.iter().enumerate().filter_map(code).collect()
}

/// Decodes a failure code that steps can fail with and that a retry can help.
fn decode_failure_code(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
) -> Option<String> {
    let code = decoder.decode_text(tree, path)?;
    let known = retryable_codes().collect::<Vec<_>>().join(", ");
    match find_failure_code(&code) {
        Some(known) if known.is_retryable => return Some(code),
        Some(_) => {
            let reason = "is never repeated: another try would end alike";
            decoder.add_error(tree, path, format!("`{code}` {reason} (repeated are: {known})"));
        }
        None => {
            let codes = FAILURE_CODES.iter().map(|known| known.code);
            let hint = decoder.diagnostics.spelling_hint(&code, codes);
            let message = format!("no step fails with `{code}`{hint} (repeated are: {known})");
            decoder.add_error(tree, path, message);
        }
    }
    None
}
