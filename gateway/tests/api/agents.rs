//! Agents over HTTP: defined, listed, run, terminated, followed; each tenant its own.

use convergio_domain::event::Event;
use convergio_domain::stream::{Seq, StreamKey};
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::{Api, parts};

fn tutor() -> Value {
    json!({"name": "tutor", "model": "local", "system": "Be brief.", "tools": ["text.trim"],
        "limits": {"max_turns": 3, "max_total_tokens": 5000, "timeout": "30s"}})
}

async fn delete(api: &Api, path: &str) -> (u16, Value) {
    let request = api.request(Method::DELETE, path, Some("cvg_one"));
    parts(request.send().await.expect("an answer")).await
}

#[tokio::test]
async fn an_agent_is_defined_changed_run_and_terminated() {
    let api = Api::start().await;
    let (status, made) = api.post("/v1/agents", &tutor(), Some("k")).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!((&made["status"], &made["runs"]), (&json!("active"), &json!(0)));
    assert_eq!(made["definition"], tutor());
    assert_eq!(api.post("/v1/agents", &tutor(), Some("k")).await, (201, made.clone()));
    let mut changed = tutor();
    changed["system"] = json!("Be kind.");
    let (_, problem) = api.post("/v1/agents", &changed, Some("k")).await;
    assert_eq!(problem["code"], "idempotency.mismatch");
    let (_, second) = api.post("/v1/agents", &changed, None).await;
    assert_eq!(second["id"], made["id"], "the same name, the same agent");
    assert_ne!(second["version"], made["version"]);

    let path = "/v1/agents/tutor/run";
    let (status, run) = api.post(path, &json!({"message": "hi"}), Some("r")).await;
    assert_eq!(status, 202, "{run}");
    assert_eq!(run["version"], second["version"]);
    assert_eq!(api.post(path, &json!({"message": "hi"}), Some("r")).await, (202, run.clone()));
    let (status, _) = api.post(path, &json!({"message": "ho"}), Some("r")).await;
    assert_eq!(status, 422);
    let id = made["id"].as_str().expect("an id");
    let (_, shown) = api.get(&format!("/v1/runs/{}", run["run_id"].as_str().expect("id"))).await;
    assert_eq!(shown["graph_name"], "agent-tutor");
    let (_, shown) = api.get(&format!("/v1/agents/{id}")).await;
    assert_eq!((&shown["runs"], &shown["last_run"]), (&json!(1), &run["run_id"]));

    let (status, gone) = delete(&api, "/v1/agents/tutor").await;
    assert_eq!((status, &gone["status"]), (200, &json!("terminated")));
    assert_eq!(delete(&api, "/v1/agents/tutor").await.0, 200);
    let (status, problem) = api.post(path, &json!({"message": "hi"}), None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("request.conflict")));
    assert_eq!(api.get("/v1/agents").await.1["items"], json!([]));
    assert_eq!(api.get("/v1/agents?status=all").await.1["items"][0]["name"], "tutor");
    assert_eq!(delete(&api, "/v1/agents/nobody").await.0, 404);

    let stream = StreamKey::parse_name("one".parse().expect("a name"), &format!("agent/{id}"));
    let records =
        api.repository.event_log().read_stream(&stream.expect("a stream"), Seq(0), 10).await;
    let records = records.expect("the log works");
    let types: Vec<_> =
        records.iter().flat_map(|r| r.body.events.iter().map(Event::type_name)).collect();
    let expected =
        ["request.applied.v1", "agent.created.v1", "agent.updated.v1", "agent.terminated.v1"];
    assert_eq!(types, expected);
}

#[tokio::test]
async fn what_is_wrong_with_a_definition_is_told() {
    let api = Api::start().await;
    for (wrong, word) in [
        (json!({"name": "Tutor"}), "name"),
        (json!({"name": "t", "tools": ["text.trimm"]}), "text.trimm"),
        (json!({"name": "t", "system": "{{ inputs.mesage"}), "system"),
        (json!({"name": "t", "limits": {"max_turns": 3}}), "max_turns"),
        (json!({"name": "t", "privacy": "none"}), "privacy"),
        (json!({"name": "t", "tool": []}), "tool"),
    ] {
        let (status, problem) = api.post("/v1/agents", &wrong, None).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(problem.to_string().contains(word), "{wrong}: {problem}");
    }
    assert_eq!(api.get("/v1/agents?status=all").await.1["items"], json!([]), "nothing was done");
}

#[tokio::test]
async fn an_agent_is_its_tenants_own() {
    let api = Api::start().await;
    let (_, made) = api.post("/v1/agents", &tutor(), None).await;
    let id = made["id"].as_str().expect("an id");
    for (method, path) in [
        (Method::GET, format!("/v1/agents/{id}")),
        (Method::GET, "/v1/agents/tutor".to_owned()),
        (Method::DELETE, format!("/v1/agents/{id}")),
        (Method::POST, format!("/v1/agents/{id}/run")),
        (Method::GET, format!("/v1/agents/{id}/stream")),
    ] {
        let request = api.request(method.clone(), &path, Some("cvg_two"));
        let request = match method == Method::POST {
            true => request.json(&json!({"message": "hi"})),
            false => request,
        };
        let (status, answer) = parts(request.send().await.expect("an answer")).await;
        assert_eq!(status, 404, "{method} {path}: {answer}");
    }
    let request = api.request(Method::GET, "/v1/agents", Some("cvg_two"));
    let (_, listed) = parts(request.send().await.expect("an answer")).await;
    assert_eq!(listed["items"], json!([]));
    assert_eq!(api.get("/v1/agents/tutor").await.1["status"], "active", "nobody touched it");
}

#[tokio::test]
async fn a_run_of_an_agent_streams_its_events() {
    let api = Api::start().await;
    api.post("/v1/agents", &tutor(), None).await;
    let request = api.request(Method::POST, "/v1/agents/tutor/run", Some("cvg_one"));
    let request = request.header("accept", "text/event-stream").json(&json!({"message": "hi"}));
    let mut answer = request.send().await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut heard = String::new();
    while !heard.contains("agent.spawned.v1") {
        let chunk = answer.chunk().await.expect("it goes on").expect("there is more");
        heard.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(heard.contains("run.created.v1"), "{heard}");
}

#[tokio::test]
async fn a_web_socket_carries_definitions_and_runs() {
    let api = Api::start().await;
    api.post("/v1/agents", &tutor(), None).await;
    let url = format!("{}/v1/agents/tutor/stream", api.url.replace("http", "ws"));
    let mut request = url.into_client_request().expect("a request");
    request.headers_mut().insert("authorization", "Bearer cvg_one".parse().expect("a header"));
    let (socket, _) = connect_async(request).await.expect("opens");
    let mut frames = Box::pin(socket.filter_map(async |message| {
        serde_json::from_str::<Value>(message.ok()?.to_text().ok()?).ok()
    }));
    let mut heard = async || frames.next().await.expect("it goes on")["value"]["type"].clone();
    assert_eq!(heard().await, "agent.created.v1");
    api.post("/v1/agents/tutor/run", &json!({"message": "hi"}), None).await;
    assert_eq!(heard().await, "agent.spawned.v1");
    delete(&api, "/v1/agents/tutor").await;
    assert_eq!(heard().await, "agent.terminated.v1");
}
