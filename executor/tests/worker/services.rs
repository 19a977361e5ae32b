//! Vectors, words and speech: calls of a run like any other, from the intent to the charge.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use convergio_domain::billing::Meter;
use convergio_domain::chat::{ChatReply, ChatRequest, ModelService, ServiceReply};
use convergio_domain::run::event::{RunEvent, UsageRecorded};
use convergio_domain::run::{RunPhase, lineage};
use convergio_domain::stream::StreamKey;
use convergio_executor::provider::{ModelInfo, ProviderConfig};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::{Ended, Platform};

const DOOR: &str = r#"
name: service
inputs: {type: object, required: [request], properties: {request: {type: object}}}
output: "{{ nodes.reply.output }}"
nodes:
  - id: reply
    timeout: 60s
    retry: {max: 3, backoff: 1ms}
    agent: {request: "{{ inputs.request }}"}
"#;

/// A call as it came: where to, with which media type and body.
type Seen = (String, String, Bytes);

/// A server of models that do something else than chat.
struct Services {
    /// Whether calls are answered.
    answers: bool,
    /// Numbers of its vectors.
    dimensions: usize,
    seen: Mutex<Vec<Seen>>,
    called: Notify,
}

impl Services {
    async fn serve(answers: bool, dimensions: usize) -> (Arc<Self>, ProviderConfig) {
        let (seen, called) = (Mutex::default(), Notify::new());
        let services = Arc::new(Self { answers, dimensions, seen, called });
        let models = ["embed", "hear", "speak-tts"].map(|id| json!({"id": id}));
        let list = json!({"data": models});
        let app = Router::new()
            .route("/v1/models", get(async move || Json(list)))
            .route("/v1/{*path}", post(answer))
            .with_state(Arc::clone(&services));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        let config =
            ProviderConfig::for_local_model("local", &format!("http://{address}/v1"), "embed");
        let names = ["embed", "hear", "speak-tts"];
        let models = names.map(|name| ModelInfo::new(name, None)).to_vec();
        (services, ProviderConfig { models, ..config })
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(
    State(services): State<Arc<Services>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let media_type = headers["content-type"].to_str().expect("text").to_owned();
    let call = (uri.path().to_owned(), media_type, body.clone());
    services.seen.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    services.called.notify_one();
    if !services.answers {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    match uri.path() {
        "/v1/embeddings" => {
            let asked: Value = serde_json::from_slice(&body).expect("JSON");
            let texts = asked["input"].as_array().map_or(0, Vec::len);
            let vector = json!({"embedding": vec![0.25; services.dimensions]});
            let usage = json!({"prompt_tokens": 7, "total_tokens": 7});
            Json(json!({"model": "embed-1", "data": vec![vector; texts], "usage": usage}))
                .into_response()
        }
        "/v1/audio/transcriptions" => {
            let usage = json!({"type": "duration", "seconds": 2.5});
            Json(json!({"text": "the ship sails", "usage": usage})).into_response()
        }
        "/v1/audio/speech" => ([("content-type", "audio/mpeg")], "ID3").into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn asks(model: &str, service: ModelService) -> Value {
    let (model, service) = (model.to_owned(), Some(service));
    json!({"request": ChatRequest { model, service, ..ChatRequest::default() }})
}

fn texts(texts: &[&str]) -> ModelService {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    ModelService::Embed { texts, dimensions: None }
}

fn recording() -> ModelService {
    ModelService::Transcribe {
        file_name: "a.wav".into(),
        media_type: "audio/wav".into(),
        data: STANDARD.encode(b"RIFF\0\xff"),
        language: None,
        prompt: None,
    }
}

fn speech() -> ModelService {
    ModelService::Speak { text: "Grüße".into(), voice: "alloy".into(), format: "mp3".into() }
}

fn reply(ended: &Ended) -> ChatReply {
    serde_json::from_value(ended.output.clone()).expect("a reply")
}

fn usages(events: &[RunEvent]) -> Vec<&UsageRecorded> {
    let usages = events.iter().filter_map(|event| match event {
        RunEvent::UsageRecorded(usage) => Some(usage),
        _ => None,
    });
    usages.collect()
}

/// The exact requests that stand in the log.
async fn prompts(platform: &Platform, run: &StreamKey) -> Vec<Bytes> {
    let mut prompts = Vec::new();
    for event in platform.events(run).await {
        let RunEvent::ModelCallIntended(call) = event else { continue };
        let (stream, place) = lineage::locate_payload(&[], run, call.prompt);
        let bytes = platform.repository.event_log().read_payload(&stream, place).await;
        prompts.extend(bytes.expect("the log works"));
    }
    prompts
}

#[tokio::test]
async fn each_service_is_a_call_with_its_usage_and_its_reply() {
    let (services, config) = Services::serve(true, 2).await;
    let mut platform = Platform::with_models(vec![config]);
    let ended = platform.execute(DOOR, &asks("local/embed", texts(&["a", "b"]))).await.completed();
    let answer = reply(&ended);
    let Some(ServiceReply::Vectors { vectors }) = &answer.service else { panic!("{answer:?}") };
    let numbers: Vec<_> = vectors.iter().map(|vector| vector.to_numbers().expect("one")).collect();
    assert_eq!((numbers, answer.model.as_str()), (vec![vec![0.25; 2]; 2], "embed-1"));
    let [used] = usages(&ended.events)[..] else { panic!("one usage") };
    assert_eq!((used.usage.0[&Meter::InFresh], used.confirmed), (7, true));
    let charge = used.charge.as_ref().expect("it has a price");
    assert_eq!(charge.amount.to_string(), "0.000007");

    let ended = platform.execute(DOOR, &asks("local/hear", recording())).await.completed();
    assert_eq!(reply(&ended).text, "the ship sails");
    let [used] = usages(&ended.events)[..] else { panic!("one usage") };
    assert_eq!(used.usage.0[&Meter::AudioMs], 2_500);
    assert_eq!(used.charge, None, "the book has no price for it, and it is not free");

    let ended = platform.execute(DOOR, &asks("local/speak-tts", speech())).await.completed();
    let (media_type, data) = ("audio/mpeg".to_owned(), STANDARD.encode("ID3"));
    assert_eq!(reply(&ended).service, Some(ServiceReply::Speech { media_type, data }));
    let [used] = usages(&ended.events)[..] else { panic!("one usage") };
    assert_eq!(used.usage.0[&Meter::Characters], 5);
    assert_eq!(services.seen().len(), 3);
}

#[tokio::test]
async fn what_was_sent_stands_in_the_log_byte_for_byte() {
    let (services, config) = Services::serve(true, 2).await;
    let mut platform = Platform::with_models(vec![config]);
    platform.start();
    for (model, service) in
        [("local/embed", texts(&["a"])), ("local/hear", recording()), ("local/speak-tts", speech())]
    {
        let run = platform.create(DOOR, &asks(model, service)).await;
        platform.ended(&run).await;
        let (_, _, sent) = services.seen().pop().expect("a call");
        assert_eq!(prompts(&platform, &run).await, [sent], "{model}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_budget_refuses_a_service_before_it_is_sent() {
    let (services, config) = Services::serve(true, 2).await;
    let mut platform = Platform::with_models(vec![config]);
    let limited = |budget: &str| DOOR.replace("name: service", &format!("{budget}\nname: service"));
    // A token of the book costs a millionth: with its frame, the text has 20 tokens at most.
    let embed = asks("local/embed", texts(&["four"]));
    for (budget, request, word) in [
        ("budget: {cost: '0.000019'}", &embed, "budget.cost"),
        ("budget: {tokens: 19}", &embed, "budget.tokens"),
        // What has no price could cost anything.
        ("budget: {cost: '100'}", &asks("local/speak-tts", speech()), "no price"),
    ] {
        let ended = platform.execute(&limited(budget), request).await;
        assert_eq!(ended.error().code, "budget.exceeded", "{budget}");
        assert!(ended.error().message.contains(word), "{}", ended.error().message);
    }
    assert!(services.seen().is_empty());
    platform.execute(&limited("budget: {cost: '0.00002'}"), &embed).await.completed();
    assert_eq!(services.seen().len(), 1);
}

#[tokio::test]
async fn a_service_of_a_dead_executor_is_unknown_and_booked_as_unconfirmed() {
    let (services, hanging) = Services::serve(false, 2).await;
    let mut platform = Platform::with_models(vec![hanging]);
    let run = platform.create(DOOR, &asks("local/speak-tts", speech())).await;
    // Like a dead process, it writes no more.
    let dead = platform.executor();
    services.called.notified().await;

    let (_services, answering) = Services::serve(true, 2).await;
    platform.replace_models(vec![answering]);
    platform.start();
    let state = platform.ended(&run).await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    let events = platform.events(&run).await;
    let usages = usages(&events);
    let booked: Vec<_> =
        usages.iter().map(|used| (used.confirmed, used.usage.0[&Meter::Characters])).collect();
    assert_eq!(booked, [(false, 5), (true, 5)]);
    platform.replay(&run, DOOR).await.expect("no divergence");
    platform.stop().await;
    drop(dead);
}

#[tokio::test]
async fn vectors_that_the_log_does_not_take_are_refused_and_paid() {
    // Of a model whose vectors nobody knows before they come.
    let (services, config) = Services::serve(true, 65_536).await;
    let mut platform = Platform::with_models(vec![config]);
    let many = vec!["x"; 48];
    let ended = platform.execute(DOOR, &asks("local/embed", texts(&many))).await;
    assert_eq!(ended.error().code, "request.too_large");
    assert!(ended.detail.contains("at most 47 texts"), "{}", ended.detail);
    let [used] = usages(&ended.events)[..] else { panic!("one usage") };
    assert!(used.confirmed && used.charge.is_some());
    platform.execute(DOOR, &asks("local/embed", texts(&many[1..]))).await.completed();
    assert_eq!(services.seen().len(), 2, "it is not asked again");
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_by_name() {
    let (services, config) = Services::serve(true, 2).await;
    let anthropic = ProviderConfig::for_anthropic(convergio_executor::provider::Secret::new("k"));
    let deaf = ProviderConfig {
        name: "deaf".into(),
        base_url: config.base_url.clone(),
        models: vec![ModelInfo::new("claude", None)],
        ..anthropic
    };
    let mut platform = Platform::with_models(vec![config, deaf]);
    let mut beside = asks("local/embed", texts(&["a"]));
    beside["request"]["temperature"] = json!(0.5);
    for (request, code, word) in [
        (asks("deaf/claude", recording()), "request.unsupported", "has no transcription"),
        (asks("auto", texts(&["a"])), "request.invalid", "`auto` leaves the choice"),
        (asks("local", texts(&["a"])), "request.invalid", "`local` leaves the choice"),
        (asks("local/none", texts(&["a"])), "model.not_found", "local/none"),
        (beside, "request.invalid", ""),
    ] {
        let ended = platform.execute(DOOR, &request).await;
        assert_eq!(ended.error().code, code);
        assert!(ended.detail.contains(word), "{}", ended.detail);
    }
    assert!(services.seen().is_empty());
}
