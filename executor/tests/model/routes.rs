//! Which model is chosen, among real servers, and what is said when there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::response::Response;
use convergio_domain::billing::PriceBook;
use convergio_domain::chat::Privacy;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Fallback, ModelTarget};
use convergio_executor::catalog::{ModelAliases, ModelCatalog, ModelRequirements};
use convergio_executor::provider::{ModelInfo, ProviderApi, ProviderConfig, Secret};
use convergio_kernel_c::{KernelPlatform, ProviderClass};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::{PATIENCE, Server, body_of, call, delta, json, nowhere, request, sse, stop};

const NEED: ModelRequirements = ModelRequirements {
    input_tokens: 100,
    output_tokens: 20,
    privacy: Privacy::Any,
    fetches_urls: false,
};

fn book() -> Arc<PriceBook> {
    let price = |provider: &str, model: &str, each: &str| {
        json!({"provider": provider, "model": model, "from_ms": 0, "currency": "USD",
            "per_token": {"in_fresh": each, "out_text": each}})
    };
    let prices = [
        price("local", "*", "0"),
        price("far", "dear", "0.00002"),
        price("far", "cheap", "0.00001"),
    ];
    Arc::new(PriceBook::parse_book(&json!(prices).to_string()).expect("a valid book"))
}

fn catalog(configs: Vec<ProviderConfig>) -> ModelCatalog {
    ModelCatalog::new(configs, book()).expect("valid URLs")
}

/// A server that lists these models and answers every chat.
async fn serving(models: &[&str]) -> Server {
    let data: Vec<Value> = models.iter().map(|id| json!({"id": id, "object": "model"})).collect();
    let list = json!({"object": "list", "data": data});
    Server::start(move |path| answer(path, &list)).await
}

fn answer(path: &str, list: &Value) -> Response {
    match path {
        "/v1/models" => json(200, list),
        "/v1/chat/completions" => sse(&[delta("ok"), stop()]),
        _ => json(404, &json!({"error": {"message": "no such path"}})),
    }
}

fn local(server: &Server) -> ProviderConfig {
    let (class, platform) = (ProviderClass::Local, KernelPlatform::OpenAiCompatible);
    ProviderConfig::without_key("local", &server.url, class, platform)
}

fn far(url: &str) -> ProviderConfig {
    ProviderConfig::without_key("far", url, ProviderClass::Cloud, KernelPlatform::CloudApi)
}

/// What was chosen: provider, model and reason.
async fn chosen(catalog: &ModelCatalog, wanted: &str) -> Result<[String; 3], UnsealedFailure> {
    let choice = catalog.choose_model(wanted, &NEED).await?;
    Ok([choice.provider.name().to_owned(), choice.model, choice.route_reason])
}

#[tokio::test]
async fn each_way_to_name_a_model_finds_it() {
    let (near, cloud) = (serving(&["a", "org/b"]).await, serving(&["dear", "cheap", "odd"]).await);
    let unpriced = serving(&["open"]).await;
    let unpriced = ProviderConfig { name: "free".to_owned(), ..far(&unpriced.url) };
    let catalog = catalog(vec![far(&cloud.url), local(&near), unpriced]);
    let cases = [
        ("auto", ["local", "a", "cheapest"]),
        ("local", ["local", "a", "cheapest"]),
        ("far", ["far", "cheap", "cheapest"]),
        ("far/dear", ["far", "dear", "pinned"]),
        ("local/org/b", ["local", "org/b", "pinned"]),
        // Unpriced: never taken unless it is named, or nothing else is there.
        ("far/odd", ["far", "odd", "pinned"]),
        ("free", ["free", "open", "unpriced"]),
    ];
    for (wanted, expected) in cases {
        assert_eq!(chosen(&catalog, wanted).await.expect("a model"), expected, "{wanted}");
    }
}

#[tokio::test]
async fn a_server_that_nobody_confirmed_gets_nothing_private() {
    let near = serving(&["a"]).await;
    let catalog = catalog(vec![ProviderConfig { is_unconfirmed: true, ..local(&near) }]);
    let private = ModelRequirements { privacy: Privacy::Local, ..NEED };
    for wanted in ["auto", "local", "local/a"] {
        let refused =
            catalog.choose_model(wanted, &private).await.err().expect("it is another user's");
        assert_eq!(refused.code.as_str(), "privacy.cloud_denied");
        assert!(refused.full_text().contains("convergio models trust"), "{refused}");
    }
    assert_eq!(near.count("/v1/models"), 0, "not even asked what it has");
    assert_eq!(chosen(&catalog, "local").await.expect("not private")[1], "a");
}

#[tokio::test]
async fn an_alias_goes_to_its_deployments_by_weight_and_to_the_next_after_a_failure() {
    let (near, cloud) = (serving(&["a"]).await, serving(&["dear", "cheap"]).await);
    let targets = json!({"fast": [{"model": "far/dear", "weight": 3}, {"model": "far/cheap"}]});
    let targets = serde_json::from_value(targets).expect("aliases");
    let aliases = ModelAliases::new(targets, &["far", "local"]).expect("they are right");
    let catalog = catalog(vec![far(&cloud.url), local(&near)]).with_aliases(aliases);
    let fallbacks = ["local/a".to_owned(), "far/cheap".to_owned()];
    let by_chance = |chance| catalog.expand_models("fast", &fallbacks, chance);
    assert_eq!(by_chance(2), ["far/dear", "far/cheap", "local/a"]);
    let models = by_chance(3);
    assert_eq!(models, ["far/cheap", "far/dear", "local/a"]);
    let candidate =
        |model: &str| ModelTarget { provider: "far".into(), model: model.into(), key: None };
    let failed = |model| Fallback { from: candidate(model), reason: "provider.timeout".into() };
    for (avoid, expected) in [
        (vec![], "cheap"),
        (vec![failed("cheap")], "dear"),
        (vec![failed("cheap"), failed("dear")], "a"),
    ] {
        let choice = catalog.choose_model_after(&models, &NEED, &avoid).await.expect("a model");
        assert_eq!(choice.model, expected, "after {}", avoid.len());
        let has_other = catalog.has_alternative(&models, &NEED, &avoid).await;
        assert!(has_other, "after {}", avoid.len());
    }
    let nobody =
        catalog.choose_model_after(&["far/none".into(), "far/nope".into()], &NEED, &[]).await;
    assert!(nobody.err().expect("no such model").full_text().contains("`far/none`"));
}

#[tokio::test]
async fn an_ollama_name_without_a_tag_means_the_latest() {
    let near = serving(&["llama3:latest"]).await;
    let catalog = catalog(vec![local(&near)]);
    assert_eq!(chosen(&catalog, "local/llama3").await.expect("a model")[1], "llama3:latest");
}

#[tokio::test]
async fn the_most_able_of_free_models_is_taken() {
    let near = serving(&["tiny-135m", "large-8b", "nomic-embed-text", "middle-1b"]).await;
    let catalog = catalog(vec![local(&near)]);
    assert_eq!(chosen(&catalog, "auto").await.expect("a model")[1], "large-8b");
}

#[tokio::test]
async fn what_does_not_chat_is_asked_when_it_is_named_and_never_chosen() {
    let near = serving(&["nomic-embed-text", "tiny-135m", "whisper-large-8b"]).await;
    let catalog = catalog(vec![local(&near)]);
    for choice in ["auto", "local"] {
        assert_eq!(chosen(&catalog, choice).await.expect("a model")[1], "tiny-135m");
    }
    for name in ["nomic-embed-text", "local/nomic-embed-text", "local/whisper-large-8b"] {
        let model = &chosen(&catalog, name).await.expect("a model")[1];
        assert!(name.ends_with(model), "{name}: {model}");
    }
}

#[cfg(not(target_os = "macos"))]
#[tokio::test]
async fn ollama_comes_first_among_what_is_here() {
    let (near, ollama) = (serving(&["large-8b"]).await, serving(&["small-1b"]).await);
    let (class, platform) = (ProviderClass::Local, KernelPlatform::Ollama);
    let preferred = ProviderConfig {
        api: ProviderApi::OpenAiChat,
        ..ProviderConfig::without_key("ollama", &ollama.url, class, platform)
    };
    let catalog = catalog(vec![local(&near), preferred]);
    let expected = ["ollama", "small-1b", "preferred platform"];
    assert_eq!(chosen(&catalog, "auto").await.expect("a model"), expected);
    assert_eq!(chosen(&catalog, "local/large-8b").await.expect("a model")[2], "pinned");
}

#[tokio::test]
async fn what_is_not_there_is_said_with_what_is() {
    let near = serving(&["a", "b"]).await;
    let catalog = catalog(vec![local(&near)]);
    let error = chosen(&catalog, "local/c").await.expect_err("no such model");
    assert_eq!((error.code.as_str(), error.retryable), ("model.not_found", false));
    assert!(
        error.full_text().contains("`local/c`") && error.full_text().contains("a, b"),
        "{error}"
    );
    let error = chosen(&catalog, "remote").await.expect_err("no such provider");
    assert!(error.full_text().contains("the providers are local"), "{error}");
    let error = chosen(&self::catalog(Vec::new()), "auto").await.expect_err("no provider");
    assert!(error.full_text().contains("convergio models install"), "{error}");
}

#[tokio::test]
async fn a_configured_model_that_the_server_does_not_have_is_not_asked() {
    // llama.cpp answers for any name with the model that it has.
    let near = serving(&["other"]).await;
    let catalog = catalog(vec![ProviderConfig::for_local_model("local", &near.url, "tiny")]);
    let error = chosen(&catalog, "local/tiny").await.expect_err("not there");
    assert_eq!(error.code, "model.not_found");
    assert_eq!(near.count("/v1/chat/completions"), 0);
}

#[tokio::test]
async fn a_prompt_that_fits_no_model_is_refused_before_it_is_sent() {
    let list = json!({"data": [{"id": "small", "meta": {"n_ctx_train": 64}}]});
    let near = Server::start(move |path| answer(path, &list)).await;
    let catalog = catalog(vec![local(&near)]);
    let error = chosen(&catalog, "auto").await.expect_err("too long");
    assert_eq!((error.code.as_str(), error.retryable), ("provider.context_exceeded", false));
    assert!(error.full_text().contains("100") && error.full_text().contains("64"), "{error}");
}

#[tokio::test]
async fn a_provider_that_does_not_answer_does_not_stand_in_the_way() {
    let near = serving(&["a"]).await;
    let dead = far(&nowhere().await);
    let catalog = catalog(vec![dead, local(&near)]);
    assert_eq!(chosen(&catalog, "auto").await.expect("a model")[0], "local");
    let error = chosen(&catalog, "far").await.expect_err("dead");
    assert_eq!((error.code.as_str(), error.retryable), ("provider.unavailable", true));
}

#[tokio::test]
async fn a_provider_without_its_key_is_asked_only_by_name() {
    let near = serving(&["a"]).await;
    let catalog = catalog(vec![ProviderConfig::for_openai(Secret::new("")), local(&near)]);
    assert_eq!(chosen(&catalog, "auto").await.expect("a model")[0], "local");
    let error = chosen(&catalog, "openai").await.expect_err("no key");
    assert_eq!((error.code.as_str(), error.retryable), ("byok.missing_key", false));
}

async fn fail(catalog: &ModelCatalog, wanted: &str) {
    let choice = catalog.choose_model(wanted, &NEED).await.expect("a model");
    let body = body_of(&*choice.provider, &request());
    let token = CancellationToken::new();
    choice
        .provider
        .complete_chat(call(&body, PATIENCE), &|_| {}, &token)
        .await
        .expect_err("broken");
}

#[tokio::test]
async fn a_provider_that_failed_is_left_alone_while_there_is_another() {
    let list = json!({"data": [{"id": "a"}]});
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = Arc::clone(&is_broken);
    let near = Server::start(move |path| match path {
        "/v1/chat/completions" if broken.load(Ordering::SeqCst) => json(503, &json!({})),
        _ => answer(path, &list),
    });
    let (near, cloud) = (near.await, serving(&["cheap"]).await);
    let catalog = catalog(vec![local(&near), far(&cloud.url)]);
    fail(&catalog, "auto").await;
    assert_eq!(chosen(&catalog, "auto").await.expect("it may be an accident")[0], "local");
    fail(&catalog, "auto").await;
    assert_eq!(chosen(&catalog, "auto").await.expect("the other")[0], "far");
    // Nobody else will do: it is tried nevertheless, and is well again once it answers.
    let choice = catalog.choose_model("local", &NEED).await.expect("the same");
    is_broken.store(false, Ordering::SeqCst);
    let (body, token) = (body_of(&*choice.provider, &request()), CancellationToken::new());
    choice.provider.complete_chat(call(&body, PATIENCE), &|_| {}, &token).await.expect("an answer");
    assert_eq!(chosen(&catalog, "auto").await.expect("a model")[0], "local");
}

#[tokio::test]
async fn errors_of_the_request_say_nothing_about_the_provider() {
    let list = json!({"data": [{"id": "a"}]});
    let near = Server::start(move |path| match path {
        "/v1/chat/completions" => json(400, &json!({"error": {"message": "bad"}})),
        _ => answer(path, &list),
    });
    let (near, cloud) = (near.await, serving(&["cheap"]).await);
    let catalog = catalog(vec![local(&near), far(&cloud.url)]);
    fail(&catalog, "auto").await;
    assert_eq!(chosen(&catalog, "auto").await.expect("a model")[0], "local");
}

#[tokio::test]
async fn models_are_listed_once_for_many_choices() {
    let near = serving(&["a"]).await;
    let catalog = Arc::new(catalog(vec![local(&near)]));
    let choices = (0..20).map(|_| {
        let catalog = Arc::clone(&catalog);
        tokio::spawn(async move { chosen(&catalog, "auto").await.expect("a model") })
    });
    for choice in choices.collect::<Vec<_>>() {
        choice.await.expect("no panic");
    }
    assert_eq!(near.count("/v1/models"), 1);
}

#[tokio::test]
async fn configured_models_of_a_cloud_are_taken_by_the_operators_word() {
    let models = vec![ModelInfo::new("own", Some(1000))];
    let config = ProviderConfig { models, ..far("https://models.example.com/v1") };
    let catalog = catalog(vec![config]);
    assert_eq!(chosen(&catalog, "auto").await.expect("a model"), ["far", "own", "unpriced"]);
    let offers = catalog.list_offers(&"anyone".parse().expect("a name")).await;
    assert_eq!((offers.len(), offers[0].price_in_e15, offers[0].healthy), (1, None, true));
}

#[tokio::test]
async fn an_endless_list_of_models_ends() {
    let many: Vec<Value> = (0..50_000).map(|n| json!({"id": format!("m{n}")})).collect();
    let list = json!({"data": many});
    let near = Server::start(move |path| answer(path, &list)).await;
    let catalog = catalog(vec![local(&near)]);
    assert_eq!(catalog.list_offers(&"anyone".parse().expect("a name")).await.len(), 5_000);
}
