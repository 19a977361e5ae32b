//! Ollama's library, by the answers that it is documented to give.

use std::sync::Mutex;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use convergio_executor::catalog::{OllamaLibrary, PullProgress};
use serde_json::{Value, json};

use crate::server::{Server, json};

fn lines(lines: &[Value]) -> Response {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from(text)).into_response()
}

fn fetch() -> Vec<Value> {
    vec![
        json!({"status": "pulling manifest"}),
        json!({"status": "pulling 6a0746a1ec1a", "digest": "sha256:6a07", "total": 4000}),
        json!({"status": "pulling 6a0746a1ec1a", "digest": "sha256:6a07", "total": 4000,
            "completed": 1000}),
        json!({"status": "pulling 6a0746a1ec1a", "digest": "sha256:6a07", "total": 4000,
            "completed": 4000}),
        json!({"status": "verifying sha256 digest"}),
        json!({"status": "writing manifest"}),
        json!({"status": "success"}),
    ]
}

async fn pulled(answer: Response) -> (Result<(), String>, Vec<PullProgress>) {
    let answer = Mutex::new(Some(answer));
    let answer = std::sync::Arc::new(answer);
    let server =
        Server::chatting(move || answer.lock().expect("not poisoned").take().expect("asked once"));
    let server = server.await;
    let heard = Mutex::new(Vec::new());
    let library = OllamaLibrary::new(&server.url).expect("a URL");
    let result =
        library.pull_model("tiny", |progress| heard.lock().expect("not poisoned").push(progress));
    let result = result.await.map_err(|error| error.to_string());
    assert_eq!(server.seen()[0].path, "/api/pull");
    (result, heard.into_inner().expect("not poisoned"))
}

#[tokio::test]
async fn a_fetch_tells_how_far_it_has_come() {
    let (result, heard) = pulled(lines(&fetch())).await;
    result.expect("fetched");
    assert_eq!((heard.len(), heard[2].completed_bytes, heard[2].total_bytes), (7, 1000, 4000));
    assert_eq!(heard[2].digest.as_deref(), Some("sha256:6a07"));
}

#[tokio::test]
async fn a_fetch_that_does_not_say_that_it_succeeded_did_not() {
    let (result, _) = pulled(lines(&fetch()[..4])).await;
    assert!(result.expect_err("cut").contains("broke off"));
    let failed =
        [json!({"status": "pulling manifest"}), json!({"error": "no space left on device"})];
    let (result, _) = pulled(lines(&failed)).await;
    assert!(result.expect_err("failed").contains("no space left"));
    let (result, _) = pulled(lines(&[json!("nonsense")])).await;
    assert!(result.is_err());
}

#[tokio::test]
async fn models_are_told_of_and_removed() {
    let server = Server::start(|path| match path {
        "/api/show" => json(200, &json!({"capabilities": ["completion"], "details": {}})),
        "/api/delete" => json(200, &json!({})),
        _ => json(404, &json!({"error": "no such path"})),
    });
    let server = server.await;
    let library = OllamaLibrary::new(&server.url).expect("a URL");
    assert_eq!(library.show_model("tiny").await.expect("told")["capabilities"][0], "completion");
    library.remove_model("tiny").await.expect("removed");
    let missing = Server::chatting(|| json(404, &json!({"error": "model 'x' not found"}))).await;
    let library = OllamaLibrary::new(&missing.url).expect("a URL");
    for error in [library.show_model("x").await.err(), library.remove_model("x").await.err()] {
        let error = error.expect("refused");
        assert_eq!(error.code, "model.not_found");
        assert!(error.message.contains("not found"), "{error}");
    }
}
