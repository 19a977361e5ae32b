//! Privacy `local`: what may not leave the premises is not even announced elsewhere.

use std::sync::Arc;

use convergio_domain::billing::PriceBook;
use convergio_domain::chat::Privacy;
use convergio_executor::catalog::{ModelCatalog, ModelRequirements, PrivacyPolicy};
use convergio_executor::provider::{ModelInfo, ProviderConfig, Secret};
use convergio_kernel_c::{KernelPlatform, ProviderClass};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::server::{PATIENCE, Server, body_of, call, delta, json, request, sse, stop};

const NEED: ModelRequirements = ModelRequirements {
    input_tokens: 10,
    output_tokens: 10,
    privacy: Privacy::Local,
    fetches_urls: false,
};

fn catalog(configs: Vec<ProviderConfig>) -> ModelCatalog {
    let prices = Arc::new(PriceBook::parse_book("[]").expect("an empty book"));
    ModelCatalog::new(configs, prices).expect("valid URLs")
}

async fn serving() -> Server {
    let server = Server::start(|path| match path {
        "/v1/models" => json(200, &json!({"data": [{"id": "tiny"}]})),
        "/v1/chat/completions" => sse(&[delta("ok"), stop()]),
        "/api/tags" => json(
            200,
            &json!({"models": [{"name": "tiny"},
                {"name": "gpt-oss:120b-cloud", "remote_host": "https://ollama.com:443"}]}),
        ),
        _ => json(404, &json!({"error": "no such path"})),
    });
    server.await
}

fn local(server: &Server, platform: KernelPlatform) -> ProviderConfig {
    ProviderConfig::without_key("local", &server.url, ProviderClass::Local, platform)
}

/// A cloud; that its server stands here lets us count who knocks.
fn cloud(server: &Server) -> ProviderConfig {
    let key = Secret::new("canary-key-0123456789");
    ProviderConfig { base_url: server.url.clone(), ..ProviderConfig::for_openai(key) }
}

#[tokio::test]
async fn nothing_is_sent_to_a_cloud_whatever_is_asked_for() {
    let far = serving().await;
    let alone = catalog(vec![cloud(&far)]);
    for wanted in ["auto", "local", "openai", "openai/tiny"] {
        let denied = alone.choose_model(wanted, &NEED).await.err().expect("denied");
        assert_eq!((denied.code.as_str(), denied.retryable), ("privacy.cloud_denied", false));
        assert!(denied.full_text().contains("nothing was sent"), "{denied}");
    }
    let near = serving().await;
    let both = catalog(vec![cloud(&far), local(&near, KernelPlatform::LlamaCpp)]);
    let choice = both.choose_model("auto", &NEED).await.expect("the local one");
    assert_eq!(choice.provider.name(), "local");
    let (body, token) = (body_of(&*choice.provider, &request()), CancellationToken::new());
    choice.provider.complete_chat(call(&body, PATIENCE), &|_| {}, &token).await.expect("an answer");
    let denied = both.choose_model("openai/tiny", &NEED).await.err().expect("denied");
    assert_eq!(denied.code, "privacy.cloud_denied");
    assert_eq!(far.connections(), 0);
}

#[tokio::test]
async fn a_catalogue_held_to_privacy_cannot_be_loosened_by_a_request() {
    let far = serving().await;
    let policy = PrivacyPolicy { server_level: Privacy::Local, ..PrivacyPolicy::default() };
    let held = catalog(vec![cloud(&far)]).with_privacy_policy(policy);
    let open = ModelRequirements { privacy: Privacy::Any, ..NEED };
    let denied = held.choose_model("openai/tiny", &open).await.err().expect("denied");
    assert_eq!(denied.code, "privacy.cloud_denied");
    assert!(held.list_offers(&"anyone".parse().expect("a name")).await.is_empty());
    assert_eq!(far.connections(), 0);
}

#[tokio::test]
async fn a_name_that_would_be_looked_up_is_refused() {
    for url in ["http://models.lan:8080/v1", "http://ollama:11434/v1", "http://x.localhost/v1"] {
        let (class, platform) = (ProviderClass::Local, KernelPlatform::OpenAiCompatible);
        let named = catalog(vec![ProviderConfig::without_key("local", url, class, platform)]);
        let denied = named.choose_model("local/tiny", &NEED).await.err().expect("denied");
        assert_eq!(denied.code, "privacy.cloud_denied", "{url}");
    }
}

#[tokio::test]
async fn a_model_of_ollamas_cloud_is_refused_though_its_address_is_local() {
    let near = serving().await;
    let catalog = catalog(vec![local(&near, KernelPlatform::Ollama)]);
    let denied =
        catalog.choose_model("local/gpt-oss:120b-cloud", &NEED).await.err().expect("denied");
    assert_eq!(denied.code, "privacy.cloud_denied");
    assert_eq!(near.count("/api/chat"), 0);
    // By its name alone it may look harmless; what Ollama tells of it counts.
    let choice = catalog.choose_model("local", &NEED).await.expect("the local one");
    assert_eq!(choice.model, "tiny");
}

#[tokio::test]
async fn ollamas_cloud_is_seen_behind_openais_interface_too() {
    let near = Server::start(|path| match path {
        "/v1/models" => json(200, &json!({"data": [{"id": "tiny"}, {"id": "innocent"}]})),
        "/api/tags" => json(
            200,
            &json!({"models": [{"name": "tiny"},
                {"name": "innocent", "remote_host": "https://ollama.com:443"}]}),
        ),
        _ => json(500, &json!({})),
    });
    let near = near.await;
    let catalog = catalog(vec![local(&near, KernelPlatform::OpenAiCompatible)]);
    assert_eq!(catalog.choose_model("local", &NEED).await.expect("the local one").model, "tiny");
    assert!(catalog.choose_model("local/innocent", &NEED).await.is_err());
}

#[tokio::test]
async fn a_busy_ollama_is_not_taken_at_its_operators_word() {
    let near = Server::start(|_| json(503, &json!({"error": "busy"}))).await;
    let models = vec![ModelInfo::new("innocent", None)];
    let config = ProviderConfig { models, ..local(&near, KernelPlatform::Ollama) };
    let catalog = catalog(vec![config]);
    // Where the model computes is not known: that may be enough for others, not for a secret.
    assert!(catalog.choose_model("local/innocent", &NEED).await.is_err());
    let open = ModelRequirements { privacy: Privacy::Any, ..NEED };
    assert_eq!(
        catalog.choose_model("local/innocent", &open).await.expect("it may").model,
        "innocent"
    );
}

#[tokio::test]
async fn a_picture_that_would_be_fetched_is_refused() {
    let near = serving().await;
    let catalog = catalog(vec![local(&near, KernelPlatform::LlamaCpp)]);
    let fetching = ModelRequirements { fetches_urls: true, ..NEED };
    let denied = catalog.choose_model("local", &fetching).await.err().expect("denied");
    assert_eq!(denied.code, "privacy.cloud_denied");
    assert_eq!(near.connections(), 0);
}

#[tokio::test]
async fn a_local_cloud_class_is_no_local_provider() {
    let near = serving().await;
    let remote =
        ProviderConfig { class: ProviderClass::Cloud, ..local(&near, KernelPlatform::LlamaCpp) };
    let denied = catalog(vec![remote]).choose_model("auto", &NEED).await.err().expect("denied");
    assert_eq!(denied.code, "privacy.cloud_denied");
    assert_eq!(near.connections(), 0);
}
