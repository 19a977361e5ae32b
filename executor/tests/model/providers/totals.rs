//! The law of counting: the disjoint classes sum to what the provider itself calls the total.

use convergio_executor::provider::{ChatAnswer, ProviderApi, ProviderConfig, Secret};
use proptest::prelude::{any, prop_assert_eq, proptest};
use serde_json::{Value, json};

use super::{KEY, answer_of};
use crate::server::{Server, json, raw_sse};

/// The answer of a provider that tells of this usage.
async fn counted(config: ProviderConfig, block: &Value) -> ChatAnswer {
    let text = match &config.api {
        ProviderApi::OpenAiResponses => json!({"type": "response.completed",
            "response": {"status": "completed", "usage": block}}),
        ProviderApi::Anthropic { .. } => json!({"type": "message_delta",
            "delta": {"stop_reason": "end_turn"}, "usage": block}),
        ProviderApi::Gemini => {
            json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata": block})
        }
        _ => json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "usage": block}),
    };
    let server = if config.api == ProviderApi::Ollama {
        let mut last = block.clone();
        last["done"] = json!(true);
        Server::chatting(move || json(200, &last)).await
    } else {
        Server::chatting(move || raw_sse(format!("data: {text}\n\n"))).await
    };
    answer_of(&server, &config).await.expect("an answer")
}

fn openai() -> ProviderConfig {
    ProviderConfig::for_openai(Secret::new(KEY))
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// Parts of a total that may, or may not, fit into it.
fn parts(seed: u64, total: u64, wild: bool) -> [u64; 3] {
    let part = |shift: u32| (seed >> shift) % if wild { 2_000_000 } else { total / 4 + 1 };
    [part(0), part(20), part(40)]
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn openais_classes_sum_to_its_total(i in 0..1_000_000_u64, o in 0..1_000_000_u64,
                                        seed in any::<u64>(), wild in any::<bool>()) {
        let ([a, b, c], [d, e, _]) = (parts(seed, i, wild), parts(!seed, o, wild));
        let chat = json!({"prompt_tokens": i, "completion_tokens": o, "total_tokens": i + o,
            "prompt_tokens_details": {"cached_tokens": a, "audio_tokens": b, "image_tokens": c},
            "completion_tokens_details": {"reasoning_tokens": d, "audio_tokens": e}});
        prop_assert_eq!(block_on(counted(openai(), &chat)).usage.total_tokens(), i + o);
        let responses = json!({"input_tokens": i, "output_tokens": o, "total_tokens": i + o,
            "input_tokens_details": {"cached_tokens": a, "cache_write_tokens": b},
            "output_tokens_details": {"reasoning_tokens": d}});
        let config = ProviderConfig { api: ProviderApi::OpenAiResponses, ..openai() };
        prop_assert_eq!(block_on(counted(config, &responses)).usage.total_tokens(), i + o);
    }

    #[test]
    fn anthropics_classes_sum_to_its_total(i in 0..1_000_000_u64, o in 0..1_000_000_u64,
                                           read in 0..1_000_000_u64, written in 0..1_000_000_u64,
                                           seed in any::<u64>(), wild in any::<bool>()) {
        let ([hour, ..], [thought, ..]) = (parts(seed, written, wild), parts(!seed, o, wild));
        let block = json!({"input_tokens": i, "output_tokens": o,
            "cache_read_input_tokens": read, "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_5m_input_tokens": written.saturating_sub(hour),
                "ephemeral_1h_input_tokens": hour},
            "output_tokens_details": {"thinking_tokens": thought}});
        let config = ProviderConfig::for_anthropic(Secret::new(KEY));
        let answer = block_on(counted(config, &block));
        prop_assert_eq!(answer.usage.tokens_in(), i + read + written);
        prop_assert_eq!(answer.usage.tokens_out(), o);
    }

    #[test]
    fn geminis_classes_sum_to_its_total(prompt in 0..1_000_000_u64, said in 0..1_000_000_u64,
                                        thought in 0..1_000_000_u64, by_tools in 0..1_000_u64,
                                        seed in any::<u64>(), wild in any::<bool>()) {
        let [cached, image, audio] = parts(seed, prompt, wild);
        let total = prompt + said + thought + by_tools;
        let block = json!({"promptTokenCount": prompt, "cachedContentTokenCount": cached,
            "candidatesTokenCount": said, "thoughtsTokenCount": thought,
            "toolUsePromptTokenCount": by_tools, "totalTokenCount": total,
            "promptTokensDetails": [{"modality": "IMAGE", "tokenCount": image},
                {"modality": "AUDIO", "tokenCount": audio}]});
        let answer = block_on(counted(ProviderConfig::for_gemini(Secret::new(KEY)), &block));
        prop_assert_eq!(answer.usage.total_tokens(), total);
    }

    #[test]
    fn ollamas_classes_sum_to_its_total(i in 0..1_000_000_u64, o in 0..1_000_000_u64) {
        let block = json!({"prompt_eval_count": i, "eval_count": o});
        let config = ProviderConfig { api: ProviderApi::Ollama, ..openai() };
        prop_assert_eq!(block_on(counted(config, &block)).usage.total_tokens(), i + o);
    }
}
