//! Decodes retry policies.

use super::decode::Decoder;
use super::manifest::{BACKOFF_LIMIT, Retry};
use super::source::{Kind, Tree};
use crate::run::{FAILURE_CODES, failure_code, retryable_codes};
use crate::time::Span;

/// Most tries that a manifest may ask for.
const TRIES_LIMIT: u64 = 100;

/// Decodes `retry: {max, backoff, on}`.
pub(super) fn retry(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Retry {
    let mut retry = Retry::default();
    let Some(mut fields) = decoder.fields(tree, path) else { return retry };
    if let Some(tree) = fields.take("max") {
        let max = decoder.number(tree, &fields.at("max"), 1, TRIES_LIMIT);
        retry.max = max.and_then(|max| u32::try_from(max).ok()).unwrap_or(retry.max);
    }
    if let Some(tree) = fields.take("backoff") {
        retry.backoff = backoff(decoder, tree, &fields.at("backoff")).unwrap_or(retry.backoff);
    }
    if let Some(tree) = fields.take("on") {
        retry.on = codes(decoder, tree, &fields.at("on"));
    }
    decoder.finish(&fields);
    retry
}

/// Decodes a backoff; one above the limit is reported, since it would be cut to the limit unseen.
fn backoff(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Option<Span> {
    let backoff: Span = decoder.parsed(tree, path)?;
    if backoff > BACKOFF_LIMIT {
        let message = format!("must be at most {BACKOFF_LIMIT}: tries are not further apart");
        decoder.add(tree, path, message);
    }
    Some(backoff)
}

fn codes(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Vec<String> {
    let Kind::List(list) = &tree.kind else {
        decoder.add(tree, path, "must be a list of codes, as [provider.timeout]");
        return Vec::new();
    };
    let code = |(index, tree)| code(decoder, tree, &format!("{path}[{index}]"));
    list.iter().enumerate().filter_map(code).collect()
}

/// Decodes a failure code that steps can fail with and that a retry can help.
fn code(decoder: &mut Decoder<'_>, tree: &Tree, path: &str) -> Option<String> {
    let code = decoder.text(tree, path)?;
    let known = retryable_codes().collect::<Vec<_>>().join(", ");
    match failure_code(&code) {
        Some(known) if known.is_retryable => return Some(code),
        Some(_) => {
            let reason = "is never repeated: another try would end alike";
            decoder.add(tree, path, format!("`{code}` {reason} (repeated are: {known})"));
        }
        None => {
            let codes = FAILURE_CODES.iter().map(|known| known.code);
            let hint = decoder.mistakes.hint(&code, codes);
            let message = format!("no step fails with `{code}`{hint} (repeated are: {known})");
            decoder.add(tree, path, message);
        }
    }
    None
}
