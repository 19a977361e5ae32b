//! Usage blocks of providers, read into disjoint meters; and an estimate where a provider reports
//! none.

use convergio_domain::billing::{Meter, Usage};
use convergio_domain::money::Money;
use serde_json::{Value, json};

/// Maximum plausible count of tokens; a larger one is taken as no count.
const COUNT_LIMIT: u64 = 1 << 32;
/// Tokens that a chat template adds to each message.
const MESSAGE_TOKENS: u64 = 4;

/// Reads the usage block of OpenAI's chat completions; `None` if it has no plausible counts.
///
/// `prompt_tokens` includes cached, cache-written, audio and image tokens. `completion_tokens`
/// includes reasoning and audio, except at providers that count reasoning beside it (xAI), which
/// `total_tokens` shows. The meters returned are disjoint and sum to the provider's total; a part
/// larger than its whole is cut to it.
pub(super) fn from_openai(block: &Value) -> Option<Usage> {
    let prompt = token_count(block, "/prompt_tokens")?;
    // Absent for embeddings, which have no output.
    let completion = match block.get("completion_tokens") {
        Some(_) => token_count(block, "/completion_tokens")?,
        None => 0,
    };
    let reasoning = "/completion_tokens_details/reasoning_tokens";
    let completion = with_reasoning_beside(block, prompt, completion, reasoning);
    let mut usage = Usage::default();
    let parts = [
        (Meter::InCacheRead, "/prompt_tokens_details/cached_tokens"),
        (Meter::InCacheWrite5m, "/prompt_tokens_details/cache_write_tokens"),
        (Meter::InAudio, "/prompt_tokens_details/audio_tokens"),
        (Meter::InImage, "/prompt_tokens_details/image_tokens"),
    ];
    split_total(&mut usage, block, prompt, &parts, Meter::InFresh);
    let parts = [
        (Meter::OutReasoning, "/completion_tokens_details/reasoning_tokens"),
        (Meter::OutAudio, "/completion_tokens_details/audio_tokens"),
    ];
    split_total(&mut usage, block, completion, &parts, Meter::OutText);
    Some(usage)
}

/// Returns the output tokens, with the reasoning tokens added if the provider's total shows that
/// they are not included.
fn with_reasoning_beside(block: &Value, input: u64, output: u64, reasoning: &str) -> u64 {
    let reasoning = token_count(block, reasoning).unwrap_or(0);
    // The total decides: with reasoning included it is input plus output.
    let is_beside = token_count(block, "/total_tokens") == Some(input + output + reasoning);
    if is_beside { output + reasoning } else { output }
}

/// Returns the cost in US dollars that a provider reports with its counts (OpenRouter's `cost`), if
/// it is a valid amount.
pub(crate) fn provider_cost(block: &Value) -> Option<Money> {
    let cost = block.get("cost")?.as_number()?.to_string();
    let cost = match cost.split_once(['e', 'E']) {
        None => cost,
        // An exponent is written out: amounts are parsed as decimals.
        Some(_) => format!("{:.15}", block["cost"].as_f64()?),
    };
    // A bound on the text of the number; an amount has fewer digits.
    let cost: Money = cost.get(..cost.len().min(40))?.parse().ok()?;
    (cost >= Money::ZERO).then_some(cost)
}

/// Reads the usage block of OpenAI's responses: as chat completions', with other names.
pub(super) fn from_responses(block: &Value) -> Option<Usage> {
    let input = token_count(block, "/input_tokens")?;
    let output = token_count(block, "/output_tokens").unwrap_or(0);
    let reasoning = "/output_tokens_details/reasoning_tokens";
    let output = with_reasoning_beside(block, input, output, reasoning);
    let mut usage = Usage::default();
    let parts = [
        (Meter::InCacheRead, "/input_tokens_details/cached_tokens"),
        (Meter::InCacheWrite5m, "/input_tokens_details/cache_write_tokens"),
    ];
    split_total(&mut usage, block, input, &parts, Meter::InFresh);
    let parts = [(Meter::OutReasoning, "/output_tokens_details/reasoning_tokens")];
    split_total(&mut usage, block, output, &parts, Meter::OutText);
    Some(usage)
}

/// Reads the usage block of Anthropic's messages. `input_tokens` excludes tokens read from and
/// written to the cache; `output_tokens` includes reasoning.
pub(super) fn from_anthropic(block: &Value) -> Option<Usage> {
    let fresh = token_count(block, "/input_tokens")?;
    let output = token_count(block, "/output_tokens").unwrap_or(0);
    let mut usage = Usage::default();
    set_quantity(&mut usage, Meter::InFresh, fresh);
    set_quantity(
        &mut usage,
        Meter::InCacheRead,
        token_count(block, "/cache_read_input_tokens").unwrap_or(0),
    );
    let cache_written = token_count(block, "/cache_creation_input_tokens").unwrap_or(0);
    // The five-minute cache is the default: what is not reported as one-hour was written to it.
    let parts = [(Meter::InCacheWrite1h, "/cache_creation/ephemeral_1h_input_tokens")];
    split_total(&mut usage, block, cache_written, &parts, Meter::InCacheWrite5m);
    let parts = [(Meter::OutReasoning, "/output_tokens_details/thinking_tokens")];
    split_total(&mut usage, block, output, &parts, Meter::OutText);
    Some(usage)
}

/// Reads Gemini's `usageMetadata`. `promptTokenCount` includes cached tokens,
/// `candidatesTokenCount` excludes reasoning, and tokens that tools add to the prompt are counted
/// apart.
pub(super) fn from_gemini(block: &Value) -> Option<Usage> {
    let prompt = token_count(block, "/promptTokenCount")?;
    // Cut to the prompt, so that no meter underflows.
    let cached = token_count(block, "/cachedContentTokenCount").unwrap_or(0).min(prompt);
    let mut usage = Usage::default();
    set_quantity(&mut usage, Meter::InCacheRead, cached);
    let mut remaining = prompt - cached;
    for (meter, modality) in [(Meter::InAudio, "AUDIO"), (Meter::InImage, "IMAGE")] {
        let modality_total = modality_tokens(block, "promptTokensDetails", modality);
        // A modality's count includes its cached tokens, which are already counted.
        let fresh = modality_total
            .saturating_sub(modality_tokens(block, "cacheTokensDetails", modality))
            .min(remaining);
        remaining -= fresh;
        set_quantity(&mut usage, meter, fresh);
    }
    let tool_tokens = token_count(block, "/toolUsePromptTokenCount").unwrap_or(0);
    set_quantity(&mut usage, Meter::InFresh, remaining + tool_tokens);
    let answer = token_count(block, "/candidatesTokenCount").unwrap_or(0);
    let audio = modality_tokens(block, "candidatesTokensDetails", "AUDIO").min(answer);
    set_quantity(&mut usage, Meter::OutAudio, audio);
    set_quantity(&mut usage, Meter::OutText, answer - audio);
    set_quantity(
        &mut usage,
        Meter::OutReasoning,
        token_count(block, "/thoughtsTokenCount").unwrap_or(0),
    );
    Some(usage)
}

/// Reads the usage block of Google's interactions: as `generateContent`'s, with other names.
pub(super) fn from_interactions(block: &Value) -> Option<Usage> {
    let renamed = |list: &str| -> Vec<Value> {
        let entries = block[list].as_array().into_iter().flatten();
        let entry = |entry: &Value| {
            let modality = entry["modality"].as_str().unwrap_or_default().to_uppercase();
            json!({"modality": modality, "tokenCount": entry["tokens"]})
        };
        entries.map(entry).collect()
    };
    from_gemini(&json!({
        "promptTokenCount": block["total_input_tokens"],
        "cachedContentTokenCount": block["total_cached_tokens"],
        "candidatesTokenCount": block["total_output_tokens"],
        "thoughtsTokenCount": block["total_thought_tokens"],
        "toolUsePromptTokenCount": block["total_tool_use_tokens"],
        "promptTokensDetails": renamed("input_tokens_by_modality"),
        "cacheTokensDetails": renamed("cached_tokens_by_modality"),
        "candidatesTokensDetails": renamed("output_tokens_by_modality"),
    }))
}

/// Reads the usage of a transcription: tokens, or seconds of audio.
pub(super) fn from_transcription(block: &Value) -> Option<Usage> {
    let mut usage = Usage::default();
    if block["type"] == "duration" {
        let millis = block["seconds"].as_f64()? * 1000.0;
        // No recording is longer than a month.
        if !(0.0..=2.7e9).contains(&millis) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in bounds")]
        set_quantity(&mut usage, Meter::AudioMs, millis.round() as u64);
        return Some(usage);
    }
    let (input, output) =
        (token_count(block, "/input_tokens")?, token_count(block, "/output_tokens")?);
    let parts = [(Meter::InAudio, "/input_token_details/audio_tokens")];
    split_total(&mut usage, block, input, &parts, Meter::InFresh);
    set_quantity(&mut usage, Meter::OutText, output);
    Some(usage)
}

/// Returns the tokens of one modality in one of Gemini's lists.
fn modality_tokens(block: &Value, list: &str, modality: &str) -> u64 {
    let mut entries = block[list].as_array().into_iter().flatten();
    let entry = entries.find(|entry| entry["modality"] == modality);
    entry.and_then(|entry| token_count(entry, "/tokenCount")).unwrap_or(0)
}

/// Reads the counts of Ollama's last line, which omits a count of 0.
pub(super) fn from_ollama(block: &Value) -> Option<Usage> {
    let mut usage = Usage::default();
    set_quantity(&mut usage, Meter::InFresh, tokens_or_zero(block, "/prompt_eval_count")?);
    set_quantity(&mut usage, Meter::OutText, tokens_or_zero(block, "/eval_count")?);
    Some(usage)
}

/// Returns a count, 0 if it is absent, or `None` if it is implausible.
fn tokens_or_zero(block: &Value, path: &str) -> Option<u64> {
    if value_at(block, path).is_none() { Some(0) } else { token_count(block, path) }
}

/// Returns the value at a path of field names, each behind a `/`. As a JSON pointer, without the
/// copies that escapes need.
fn value_at<'a>(block: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').skip(1).try_fold(block, |value, name| value.get(name))
}

/// Returns a count, if it is there and plausible.
fn token_count(block: &Value, path: &str) -> Option<u64> {
    value_at(block, path)?.as_u64().filter(|tokens| *tokens <= COUNT_LIMIT)
}

/// Splits a total into meters: each part is taken out of it, the remainder goes to `rest`.
fn split_total(usage: &mut Usage, block: &Value, total: u64, parts: &[(Meter, &str)], rest: Meter) {
    let mut remaining = total;
    for (meter, path) in parts {
        let tokens = value_at(block, path).and_then(Value::as_u64).unwrap_or(0).min(remaining);
        remaining -= tokens;
        set_quantity(usage, *meter, tokens);
    }
    set_quantity(usage, rest, remaining);
}

/// Estimates the usage of a call: a token for every four bytes of text, plus some for each message.
/// A streamed piece has at least one token, so `pieces` is a lower bound of the output.
pub(super) fn estimate_usage(messages: &[&str], answer: &str, pieces: u64) -> Usage {
    let tokens = |text: &str| text.len().div_ceil(4) as u64;
    let mut usage = Usage::default();
    let sent = messages.iter().map(|text| tokens(text) + MESSAGE_TOKENS).sum();
    set_quantity(&mut usage, Meter::InFresh, sent);
    set_quantity(&mut usage, Meter::OutText, tokens(answer).max(pieces));
    usage
}

fn set_quantity(usage: &mut Usage, meter: Meter, tokens: u64) {
    if tokens > 0 {
        usage.0.insert(meter, tokens);
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::billing::Meter;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::{estimate_usage, from_openai, provider_cost};

    #[test]
    fn included_classes_are_taken_out() {
        let block = json!({"prompt_tokens": 19, "completion_tokens": 32, "total_tokens": 51,
            "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2,
                "audio_tokens": 0, "image_tokens": 1, "text_tokens": 18},
            "completion_tokens_details": {"reasoning_tokens": 10, "audio_tokens": 3}});
        let usage = from_openai(&block).unwrap();
        let expected = [
            (Meter::InFresh, 8),
            (Meter::InCacheRead, 8),
            (Meter::InCacheWrite5m, 2),
            (Meter::InImage, 1),
            (Meter::OutText, 19),
            (Meter::OutReasoning, 10),
            (Meter::OutAudio, 3),
        ];
        assert_eq!(usage.0, expected.into());
    }

    #[test]
    fn reasoning_beside_the_completion_is_added_to_it() {
        let block = json!({"prompt_tokens": 9000, "completion_tokens": 700, "total_tokens": 11800,
            "prompt_tokens_details": {"cached_tokens": 256},
            "completion_tokens_details": {"reasoning_tokens": 2100}});
        let usage = from_openai(&block).unwrap();
        assert_eq!(usage.total_tokens(), 11800);
        assert_eq!((usage.0[&Meter::OutText], usage.0[&Meter::OutReasoning]), (700, 2100));
    }

    #[test]
    fn a_cost_is_exact_or_none() {
        for (cost, expected) in [
            (json!(0.00014), Some("0.00014")),
            (json!(1), Some("1")),
            (json!(1e-7), Some("0.0000001")),
            (json!(-1), None),
            (json!("1"), None),
            (Value::Null, None),
        ] {
            let told = provider_cost(&json!({"cost": cost})).map(|cost| cost.to_string());
            assert_eq!(told.as_deref(), expected, "{cost}");
        }
    }

    #[test]
    fn what_is_no_count_is_none() {
        let blocks = [
            json!({}),
            json!({"total_tokens": 5}),
            json!({"prompt_tokens": -1}),
            json!({"prompt_tokens": "7"}),
            json!({"prompt_tokens": u64::MAX, "completion_tokens": u64::MAX}),
            Value::Null,
        ];
        for block in blocks {
            assert_eq!(from_openai(&block), None, "{block}");
        }
        let zero = json!({"prompt_tokens": 0, "completion_tokens": 0});
        assert_eq!(from_openai(&zero).unwrap().total_tokens(), 0);
    }

    #[test]
    fn an_estimate_counts_bytes_and_pieces() {
        let usage = estimate_usage(&["twelve bytes", "x"], "eight by", 1);
        assert_eq!((usage.tokens_in(), usage.tokens_out()), (3 + 4 + 1 + 4, 2));
        assert_eq!(estimate_usage(&[], "a b c", 5).tokens_out(), 5);
    }

    proptest! {
        #[test]
        fn classes_sum_to_the_total(prompt in 0..1_000_000_u64, completion in 0..1_000_000_u64,
                                    parts in any::<[u64; 6]>(), are_small in any::<bool>()) {
            let parts = parts.map(|part| if are_small { part % 1_000_000 } else { part });
            let block = json!({"prompt_tokens": prompt, "completion_tokens": completion,
                "prompt_tokens_details": {"cached_tokens": parts[0], "cache_write_tokens": parts[1],
                    "audio_tokens": parts[2], "image_tokens": parts[3]},
                "completion_tokens_details": {"reasoning_tokens": parts[4],
                    "audio_tokens": parts[5]}});
            let usage = from_openai(&block).unwrap();
            prop_assert_eq!(usage.tokens_in(), prompt);
            prop_assert_eq!(usage.tokens_out(), completion);
        }
    }
}
