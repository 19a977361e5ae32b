//! Finding servers, by the answers that the documented ones give.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use convergio_executor::catalog::detect_servers;
use convergio_executor::catalog::{Consent, DetectedServer, ServerKind};
use convergio_executor::provider::HttpProvider;
use convergio_executor::provider::{ModelInfo, Provider};
use convergio_kernel_c::{KernelPlatform, ProviderClass};
use futures_util::stream;
use serde_json::json;

use crate::server::{Server, json, nowhere};

fn not_found() -> Response {
    json(404, &json!({"error": {"code": 404, "message": "File Not Found"}}))
}

fn llama_cpp(path: &str) -> Response {
    match path {
        "/v1/models" => json(
            200,
            &json!({"object": "list", "data": [{"id": "smollm2-135m", "object": "model",
                "created": 1, "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192}}]}),
        ),
        "/props" => json(200, &json!({"default_generation_settings": {"n_ctx": 2048}})),
        // Newer builds answer some of Ollama's routes.
        "/api/tags" => json(200, &json!({"models": [{"name": "smollm2-135m", "digest": ""}]})),
        _ => not_found(),
    }
}

fn ollama(path: &str) -> Response {
    let models = json!({"models": [
        {"name": "llama3.2:latest", "digest": "d", "details": {"context_length": 131_072},
            "capabilities": ["completion", "tools"]},
        {"name": "gpt-oss:120b-cloud", "digest": "d", "remote_host": "https://ollama.com:443",
            "remote_model": "gpt-oss:120b", "capabilities": ["completion"]},
        {"name": "nomic-embed-text:latest", "digest": "d", "capabilities": ["embedding"]},
        {"name": "old:latest", "digest": "d"},
    ]});
    match path {
        "/api/tags" => json(200, &models),
        "/api/ps" => {
            json(200, &json!({"models": [{"name": "llama3.2:latest", "context_length": 4096}]}))
        }
        // This list names models of the cloud without saying so.
        "/v1/models" => json(
            200,
            &json!({"data": [{"id": "gpt-oss:120b-cloud", "created": 1, "owned_by": "library"}]}),
        ),
        _ => not_found(),
    }
}

fn mlx(path: &str) -> Response {
    match path {
        "/v1/models" => json(
            200,
            &json!({"object": "list", "data": [
                {"id": "mlx-community/Qwen3-8B-4bit", "object": "model", "created": 1}]}),
        ),
        _ => (axum::http::StatusCode::NOT_FOUND, "Not Found").into_response(),
    }
}

fn vllm(path: &str) -> Response {
    match path {
        "/v1/models" => json(
            200,
            &json!({"data": [{"id": "m", "created": 1, "owned_by": "vllm",
                "max_model_len": 32_768}]}),
        ),
        _ => not_found(),
    }
}

fn model(id: &str, context_tokens: Option<u64>) -> ModelInfo {
    ModelInfo::new(id, context_tokens)
}

async fn found(answer: fn(&str) -> Response) -> (Server, DetectedServer) {
    let server = Server::start(answer).await;
    // Without `/v1`, as people copy it.
    let url = server.url.trim_end_matches("/v1").to_owned();
    let mut found = detect_servers(&[url]).await;
    assert_eq!(found.len(), 1);
    let found = found.remove(0);
    assert_eq!(found.base_url, server.url);
    (server, found)
}

#[tokio::test]
async fn llama_cpp_is_found_with_the_context_of_one_slot() {
    let (_server, found) = found(llama_cpp).await;
    assert_eq!(found.kind, ServerKind::LlamaCpp);
    assert_eq!(found.models, [model("smollm2-135m", Some(2048))]);
}

#[tokio::test]
async fn ollama_is_found_without_the_models_that_are_not_local_or_do_not_chat() {
    let (_server, found) = found(ollama).await;
    assert_eq!(found.kind, ServerKind::Ollama);
    assert_eq!(found.models, [model("llama3.2:latest", Some(4096)), model("old:latest", None)]);
    // Asked again as a provider, it is asked the same way; what does not chat may be named.
    let provider = HttpProvider::new(found.to_provider_config()).expect("a valid URL");
    let (others, chats): (Vec<_>, Vec<_>) = provider
        .list_models()
        .await
        .expect("a list")
        .into_iter()
        .partition(|model| model.is_non_chat);
    assert_eq!(chats, found.models);
    assert_eq!(others, [model("nomic-embed-text:latest", None)]);
}

#[tokio::test]
async fn mlx_and_others_are_told_apart() {
    let (_server, found_mlx) = found(mlx).await;
    assert_eq!(found_mlx.kind, ServerKind::Mlx);
    assert_eq!(found_mlx.models, [model("mlx-community/Qwen3-8B-4bit", None)]);
    let (_server, found_vllm) = found(vllm).await;
    assert_eq!(found_vllm.kind, ServerKind::OpenAiCompatible);
    assert_eq!(found_vllm.models, [model("m", Some(32_768))]);
}

#[tokio::test]
async fn only_what_answers_with_a_model_is_found_in_the_order_asked() {
    let (first, second) = (Server::start(vllm).await, Server::start(mlx).await);
    let empty = Server::start(|_| json(200, &json!({"data": []}))).await;
    let loading = Server::start(|_| json(503, &json!({"error": {"message": "Loading"}}))).await;
    let page = Server::start(|_| "<html>".into_response()).await;
    let urls = [
        "nonsense".to_owned(),
        nowhere().await,
        first.url.clone(),
        empty.url.clone(),
        loading.url.clone(),
        page.url.clone(),
        second.url.clone(),
    ];
    let found = detect_servers(&urls).await;
    let kinds: Vec<_> = found.iter().map(|server| server.kind).collect();
    assert_eq!(kinds, [ServerKind::OpenAiCompatible, ServerKind::Mlx]);
}

#[tokio::test]
async fn a_list_that_never_ends_is_no_list() {
    let endless = Server::start(|_| {
        let bytes = stream::repeat_with(|| Ok::<_, std::io::Error>("[".repeat(65_536)));
        Body::from_stream(bytes).into_response()
    });
    assert_eq!(detect_servers(&[endless.await.url]).await, []);
}

#[test]
fn a_server_is_local_only_where_it_stands() {
    let found = |base_url: &str, consent| {
        let (kind, base_url) = (ServerKind::Ollama, base_url.to_owned());
        DetectedServer { kind, base_url, models: Vec::new(), consent, key: None }
            .to_provider_config()
    };
    let provider = |base_url: &str| found(base_url, Consent::Given);
    for near in ["http://127.0.0.1:11434/v1", "http://10.0.0.7:11434/v1", "http://box:1/v1"] {
        let near = provider(near);
        assert_eq!((near.name.as_str(), near.class), ("local", ProviderClass::Local));
        assert_eq!(near.platform, KernelPlatform::Ollama);
    }
    for consent in [Consent::Missing(Some(998)), Consent::Missing(None), Consent::SameUser] {
        let is_unconfirmed = found("http://127.0.0.1:1/v1", consent).is_unconfirmed;
        assert_eq!(is_unconfirmed, consent != Consent::SameUser, "{consent:?}");
    }
    let far = provider("https://models.example.com/v1");
    assert_eq!((far.name.as_str(), far.class), ("remote", ProviderClass::Cloud));
}

#[tokio::test]
async fn a_provider_lists_its_models_or_says_why_not() {
    let server = Server::start(vllm).await;
    let provider = HttpProvider::new(server.config()).expect("a valid URL");
    assert_eq!(provider.list_models().await.expect("a list"), [model("m", Some(32_768))]);
    type Answer = fn(&str) -> Response;
    let cases: [(Answer, &str); 3] = [
        (|_| json(401, &json!({"error": {"message": "no"}})), "byok.missing_key"),
        (|_| json(503, &json!({})), "provider.unavailable"),
        (|_| "nonsense".into_response(), "provider.unavailable"),
    ];
    for (answer, code) in cases {
        let server = Server::start(answer).await;
        let provider = HttpProvider::new(server.config()).expect("a valid URL");
        assert_eq!(provider.list_models().await.expect_err("no list").code, code);
    }
}
