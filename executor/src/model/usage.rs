//! What providers tell of tokens, in disjoint classes.

use convergio_domain::metering::{Meter, Usage};
use serde_json::Value;

/// The usage block of OpenAI's chat completions. `prompt_tokens` includes cached, cache-written,
/// audio and image tokens; `completion_tokens` includes reasoning and audio. The classes are made
/// disjoint here and sum to the provider's total.
pub(super) fn from_openai(block: &Value) -> Option<Usage> {
    let prompt = block.get("prompt_tokens")?.as_u64()?;
    let completion = block.get("completion_tokens").and_then(Value::as_u64).unwrap_or(0);
    let part = |pointer: &str, left: u64| {
        block.pointer(pointer).and_then(Value::as_u64).unwrap_or(0).min(left)
    };
    let mut usage = Usage::default();
    let mut fresh = prompt;
    for (meter, pointer) in [
        (Meter::InCacheRead, "/prompt_tokens_details/cached_tokens"),
        (Meter::InCacheWrite5m, "/prompt_tokens_details/cache_write_tokens"),
        (Meter::InAudio, "/prompt_tokens_details/audio_tokens"),
        (Meter::InImage, "/prompt_tokens_details/image_tokens"),
    ] {
        let tokens = part(pointer, fresh);
        fresh -= tokens;
        set(&mut usage, meter, tokens);
    }
    set(&mut usage, Meter::InFresh, fresh);
    let mut text = completion;
    for (meter, pointer) in [
        (Meter::OutReasoning, "/completion_tokens_details/reasoning_tokens"),
        (Meter::OutAudio, "/completion_tokens_details/audio_tokens"),
    ] {
        let tokens = part(pointer, text);
        text -= tokens;
        set(&mut usage, meter, tokens);
    }
    set(&mut usage, Meter::OutText, text);
    Some(usage)
}

/// What a call used, when the provider does not tell: a token for every four bytes.
pub(super) fn estimate(request_bytes: usize, answer_bytes: usize) -> Usage {
    let tokens = |bytes: usize| bytes.div_ceil(4) as u64;
    let mut usage = Usage::default();
    set(&mut usage, Meter::InFresh, tokens(request_bytes));
    set(&mut usage, Meter::OutText, tokens(answer_bytes));
    usage
}

fn set(usage: &mut Usage, meter: Meter, tokens: u64) {
    if tokens > 0 {
        usage.0.insert(meter, tokens);
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::metering::Meter;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use serde_json::json;

    use super::from_openai;

    #[test]
    fn included_classes_are_taken_out() {
        let block = json!({"prompt_tokens": 19, "completion_tokens": 32, "total_tokens": 51,
            "prompt_tokens_details": {"cached_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 10}});
        let usage = from_openai(&block).unwrap();
        assert_eq!(usage.0[&Meter::InFresh], 11);
        assert_eq!(usage.0[&Meter::InCacheRead], 8);
        assert_eq!((usage.0[&Meter::OutText], usage.0[&Meter::OutReasoning]), (22, 10));
    }

    proptest! {
        #[test]
        fn classes_sum_to_the_total(p in 0..1_000_000_u64, c in 0..1_000_000_u64,
                                    parts in any::<[u32; 6]>()) {
            let block = json!({"prompt_tokens": p, "completion_tokens": c,
                "prompt_tokens_details": {"cached_tokens": parts[0], "cache_write_tokens": parts[1],
                    "audio_tokens": parts[2], "image_tokens": parts[3]},
                "completion_tokens_details": {"reasoning_tokens": parts[4],
                    "audio_tokens": parts[5]}});
            prop_assert_eq!(from_openai(&block).unwrap().tokens(), p + c);
        }
    }
}
