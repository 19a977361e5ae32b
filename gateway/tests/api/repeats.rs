//! What is sent again under its key is done once and answered alike, for every operation of the
//! document.

use convergio_domain::event::Event;
use convergio_domain::id::TenantId;
use convergio_domain::request::{RequestNoun, request_id};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::Position;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Api;
use crate::scenes::{self, READS, Scene};

const KEY: &str = "the-same-key";
const NOBODY: &str = "01920000-0000-7000-8000-000000000000";

/// Every operation of the document that may change something, as `POST /v1/graphs`.
fn operations() -> Vec<String> {
    let document = serde_json::to_value(convergio_gateway::openapi_document()).expect("JSON");
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("operations").keys() {
            if !["get", "head", "options", "trace"].contains(&method.as_str()) {
                found.push(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found
}

fn request_stream() -> StreamKey {
    let tenant: TenantId = "one".parse().expect("a name");
    StreamKey::for_request(tenant.clone(), request_id(&tenant, KEY))
}

/// Status, media type and body, byte for byte.
async fn send(api: &Api, method: &Method, path: &str, body: &str) -> (u16, String, String) {
    let mut request = api.request(method.clone(), path, Some("cvg_one"));
    request = request.header("idempotency-key", KEY);
    if !body.is_empty() {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    let answer = request.send().await.expect("an answer");
    let media_type = answer.headers()["content-type"].to_str().expect("text").to_owned();
    (answer.status().as_u16(), media_type, answer.text().await.expect("a body"))
}

/// Events of a type in the whole log, and of all types but those of requests themselves.
async fn count(api: &Api, kind: &str) -> (usize, usize) {
    let page = api.repository.event_log().read_all(Position(0), 10_000).await.expect("readable");
    let events = page.records.iter().flat_map(|record| &record.body.events);
    let names: Vec<&str> = events.map(Event::type_name).collect();
    let effects = names.iter().filter(|name| **name == kind).count();
    (effects, names.iter().filter(|name| !name.starts_with("request.")).count())
}

/// What is recorded as answered is gone, as if the process had died before it was written.
async fn lose_answer(api: &Api) {
    let stream = request_stream();
    let state = api.repository.load::<RequestNoun>(&stream).await.expect("readable").state;
    let body = state.answer.expect("it was answered").body;
    assert!(api.repository.erase_payload(&stream, body).await.expect("erased"));
}

/// Plays each scene of each operation on a server of its own.
async fn play(act: impl AsyncFn(&Api, &str, Scene<'_>)) {
    for operation in operations() {
        if READS.contains(&operation.as_str()) {
            continue;
        }
        let count = scenes::of(&Api::start().await, &operation).await.len();
        assert!(count > 0, "{operation}: say in scenes.rs what must not happen twice");
        for index in 0..count {
            let api = Api::start().await;
            let scene = scenes::of(&api, &operation).await.swap_remove(index);
            act(&api, &operation, scene).await;
        }
    }
}

#[tokio::test]
async fn what_is_sent_again_gets_its_answer_whatever_has_changed() {
    play(async |api, operation, scene| {
        let Scene { method, path, body, change, effect } = scene;
        let (before, _) = count(api, effect).await;
        let first = send(api, &method, &path, &body).await;
        assert!((200..300).contains(&first.0), "{operation}: {first:?}");
        let done = count(api, effect).await.0 - before;
        assert!(done == 1, "{operation}: {effect} stands {done} times in the log");
        change.await;
        let after = count(api, effect).await;
        for _ in 0..2 {
            assert_eq!(send(api, &method, &path, &body).await, first, "{operation}");
        }
        assert_eq!(count(api, effect).await, after, "{operation}: nothing was done again");
    })
    .await;
}

#[tokio::test]
async fn what_was_done_and_not_answered_is_not_done_again() {
    play(async |api, operation, scene| {
        let Scene { method, path, body, change, effect } = scene;
        let first = send(api, &method, &path, &body).await;
        change.await;
        let after = count(api, effect).await;
        lose_answer(api).await;
        let second = send(api, &method, &path, &body).await;
        assert_eq!(second.0, first.0, "{operation}: {second:?}");
        assert_eq!(count(api, effect).await, after, "{operation}: {second:?}");
    })
    .await;
}

#[tokio::test]
async fn another_request_under_a_used_key_is_refused() {
    play(async |api, operation, scene| {
        let Scene { method, path, body, change: _, effect } = scene;
        send(api, &method, &path, &body).await;
        let after = count(api, effect).await;
        let names_thing = path.split('/').nth(3).is_some();
        let (path, body) = match names_thing {
            true => (path.replacen(path.split('/').nth(3).expect("an id"), NOBODY, 1), body),
            false => (path, json!({"name": "another"}).to_string()),
        };
        let (status, media_type, answer) = send(api, &method, &path, &body).await;
        let problem: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(
            (status, &problem["code"]),
            (422, &json!("idempotency.mismatch")),
            "{operation}"
        );
        assert_eq!(media_type, "application/problem+json");
        assert_eq!(count(api, effect).await, after, "{operation}");
    })
    .await;
}

#[tokio::test]
async fn the_same_request_many_times_at_once_is_done_once() {
    let api = Api::start().await;
    let run = api.run().await;
    let path = format!("/v1/runs/{run}/pause");
    let sent = (0..8).map(|_| send(&api, &Method::POST, &path, "{}"));
    let answers = futures_util::future::join_all(sent).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].0, 200);
    assert_eq!(count(&api, "run.paused.v1").await.0, 1);
}

#[tokio::test]
async fn a_refusal_by_the_state_is_an_answer_and_one_of_the_moment_is_none() {
    let api = Api::start().await;
    let run = api.run().await;
    let retry = format!("/v1/runs/{run}/retry");
    let refused = send(&api, &Method::POST, &retry, "{}").await;
    assert_eq!(refused.0, 409, "{refused:?}");
    api.advance(&run, &["a"], false).await;
    api.fail(&run, "a").await;
    assert_eq!(send(&api, &Method::POST, &retry, "{}").await, refused, "with its request_id");

    let nobody = "/v1/agents/tutor/run";
    let say = json!({"message": "hi"});
    assert_eq!(api.post(nobody, &say, Some("early")).await.0, 404);
    api.post("/v1/agents", &json!({"name": "tutor", "model": "local"}), None).await;
    assert_eq!(api.post(nobody, &say, Some("early")).await.0, 202, "now there is one");
}

#[tokio::test]
async fn white_space_and_the_order_of_fields_make_no_other_request() {
    let api = Api::start().await;
    let path = format!("/v1/graphs/{}/execute", api.graph().await);
    let first =
        send(&api, &Method::POST, &path, r#"{"inputs":{"text":"x"},"privacy":"any"}"#).await;
    let spaced = "{ \"privacy\": \"any\",\n \"inputs\": {\"text\": \"x\"} }";
    assert_eq!(send(&api, &Method::POST, &path, spaced).await, first);
}

#[tokio::test]
async fn a_key_belongs_to_who_used_it() {
    let api = Api::start().await;
    let run = api.run().await;
    let id = api.ask(&run, "a", "teacher").await;
    api.get(&format!("/v1/runs/{run}")).await;
    let path = format!("/v1/approvals/{id}");
    let answer = json!({"decision": "grant", "content_hash": "abc"}).to_string();
    assert_eq!(send(&api, &Method::POST, &path, &answer).await.0, 200);
    let request = api.request(Method::POST, &path, Some("cvg_student"));
    let request = request.header("idempotency-key", KEY).header("content-type", "application/json");
    let other = request.body(answer).send().await.expect("an answer");
    assert_eq!(other.status(), 422, "an answer is shown to nobody else");
}
