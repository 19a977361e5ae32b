//! A real model: any OpenAI-compatible server on this machine, named by `CONVERGIO_TEST_MODEL_URL`.

use convergio_domain::billing::{Meter, PriceBook};
use convergio_domain::chat::ChatRequest;
use convergio_executor::catalog::{ModelCatalog, ModelRequirements, detect_servers};
use convergio_executor::provider::AnswerPiece;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::server::{PATIENCE, body_of, call};

/// The server's models as a catalogue, and the name of one.
async fn real() -> (ModelCatalog, String) {
    let url = std::env::var("CONVERGIO_TEST_MODEL_URL").expect("CONVERGIO_TEST_MODEL_URL is set");
    let found = detect_servers(&[url]).await;
    let server = found.first().expect("a server answers");
    let prices = Arc::new(PriceBook::parse_book("[]").expect("an empty book"));
    let catalog =
        ModelCatalog::new(vec![server.to_provider_config()], prices).expect("a valid URL");
    (catalog, server.models[0].id.clone())
}

fn request(model: &str, prompt: &str) -> ChatRequest {
    ChatRequest {
        system: Some("You answer in one short sentence.".into()),
        max_tokens: Some(24),
        temperature: Some(0.0),
        ..ChatRequest::from_prompt(model, prompt)
    }
}

#[tokio::test]
#[ignore = "needs a model server: set CONVERGIO_TEST_MODEL_URL"]
async fn a_real_model_answers_streams_and_counts() {
    let (catalog, model) = real().await;
    let need =
        ModelRequirements { input_tokens: 60, output_tokens: 24, ..ModelRequirements::default() };
    let choice = catalog.choose_model(&format!("local/{model}"), &need).await.expect("it is there");
    let body = body_of(&*choice.provider, &request(&model, "What is the capital of France?"));
    let token = CancellationToken::new();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let answer = choice.provider.complete_chat(call(&body, PATIENCE), &|_| {}, &token).await;
        answers.push(answer.expect("an answer"));
    }
    for answer in &answers {
        assert!(answer.joined_text().contains("Paris"), "{}", answer.joined_text());
        assert!(answer.confirmed && answer.usage.tokens_in() > 10, "{:?}", answer.raw_usage);
        assert!(answer.usage.tokens_out() > 0 && answer.first_token_ms.is_some());
    }
    // llama.cpp keeps the prompt of the call before: its cache shows in the classes.
    let cached = answers[1].usage.0.get(&Meter::InCacheRead);
    assert!(cached.is_some_and(|tokens| *tokens > 0), "{:?}", answers[1].raw_usage);
}

#[tokio::test]
#[ignore = "needs a model server: set CONVERGIO_TEST_MODEL_URL"]
async fn a_real_model_keeps_to_a_schema_and_to_its_context() {
    let (catalog, model) = real().await;
    let need =
        ModelRequirements { input_tokens: 60, output_tokens: 24, ..ModelRequirements::default() };
    let provider = catalog.choose_model("auto", &need).await.expect("it is there").provider;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}},
        "required": ["city"], "additionalProperties": false});
    let asked = request(&model, "Which city is the capital of France?");
    let body = body_of(&*provider, &ChatRequest { schema: Some(schema), ..asked });
    let token = CancellationToken::new();
    let answer =
        provider.complete_chat(call(&body, PATIENCE), &|_| {}, &token).await.expect("an answer");
    let value: Value = serde_json::from_str(&answer.joined_text()).expect("JSON, as was asked");
    assert!(value["city"].is_string(), "{value}");
    let body = body_of(&*provider, &request(&model, &"long ".repeat(20_000)));
    let error =
        provider.complete_chat(call(&body, PATIENCE), &|_| {}, &token).await.expect_err("too long");
    assert_eq!((error.code, error.retryable), ("provider.context_exceeded", false));
    let need = ModelRequirements {
        input_tokens: 1 << 30,
        output_tokens: 24,
        ..ModelRequirements::default()
    };
    let refused =
        catalog.choose_model("auto", &need).await.err().expect("too long for every model");
    assert_eq!(refused.code, "provider.context_exceeded");
}

#[tokio::test]
#[ignore = "needs a model server: set CONVERGIO_TEST_MODEL_URL"]
async fn a_real_call_ends_when_it_is_cancelled() {
    let (catalog, model) = real().await;
    let need =
        ModelRequirements { input_tokens: 60, output_tokens: 500, ..ModelRequirements::default() };
    let provider = catalog.choose_model("auto", &need).await.expect("it is there").provider;
    let asked = request(&model, "Count from one to two hundred in words.");
    let body = body_of(&*provider, &ChatRequest { max_tokens: Some(500), ..asked });
    let token = CancellationToken::new();
    let sink = |piece: AnswerPiece| {
        if piece.tokens_out == 3 {
            token.cancel();
        }
    };
    let error =
        provider.complete_chat(call(&body, PATIENCE), &sink, &token).await.expect_err("cancelled");
    let partial = error.partial_usage.expect("something was used");
    assert!(partial.tokens_out() >= 3 && partial.tokens_out() < 500);
}
