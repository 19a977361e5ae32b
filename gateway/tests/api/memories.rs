//! Memories over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, parts};

async fn delete(api: &Api, path: &str, token: &str) -> (u16, Value) {
    let request = api.request(Method::DELETE, path, Some(token));
    parts(request.send().await.expect("an answer")).await
}

#[tokio::test]
async fn memories_are_stored_recalled_and_forgotten() {
    let api = Api::start().await;
    let memory = json!({"subject": "student:42", "text": "Anna likes maps.", "importance": 700});
    let first = api.post("/v1/memories", &memory, Some("m1")).await;
    assert_eq!(first.0, 201, "{}", first.1);
    assert_eq!(api.post("/v1/memories", &memory, Some("m1")).await, first);
    let other = json!({"subject": "student:42", "text": "Another text."});
    let (status, problem) = api.post("/v1/memories", &other, Some("m1")).await;
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency.mismatch")));
    assert_eq!(api.post("/v1/memories", &other, None).await.0, 201);

    let (status, listed) = api.get("/v1/memories?subject=student:42").await;
    assert_eq!((status, listed["items"].as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!(listed["items"][1]["importance"], 700);
    let (_, found) = api.get("/v1/memories?subject=student:42&query=maps&tokens=6").await;
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(found["items"][0]["text"], "Anna likes maps.");
    assert!(found["items"][0]["score"].as_f64().expect("a score") > 0.4, "{found}");

    let path =
        format!("/v1/memories/{}?subject=student:42", first.1["id"].as_str().expect("an id"));
    assert_eq!(delete(&api, &path, "cvg_two").await.0, 404, "another tenant's");
    assert_eq!(delete(&api, &path, "cvg_one").await.1["forgotten"], true);
    assert_eq!(delete(&api, &path, "cvg_one").await.1["forgotten"], false);
    let (_, listed) = api.get("/v1/memories?subject=student:42").await;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    let request = api.request(Method::GET, "/v1/memories?subject=student:42", Some("cvg_two"));
    let (_, listed) = parts(request.send().await.expect("an answer")).await;
    assert_eq!(listed["items"], json!([]), "another tenant sees nothing");
}

#[tokio::test]
async fn bad_memories_are_told_what_is_wrong() {
    let api = Api::start().await;
    let cases = [
        (json!({"subject": "a b", "text": "x"}), "subject"),
        (json!({"subject": "s", "text": ""}), "bytes of text"),
        (json!({"subject": "s", "text": "x", "importance": 1001}), "0 to 1000"),
        (json!({"subject": "s", "text": "x", "extra": 1}), "extra"),
    ];
    for (body, expected) in cases {
        let (status, problem) = api.post("/v1/memories", &body, None).await;
        assert_eq!((status, &problem["code"]), (400, &json!("request.invalid")), "{body}");
        assert!(problem["detail"].as_str().expect("text").contains(expected), "{problem}");
    }
    assert_eq!(api.get("/v1/memories").await.1["code"], "request.invalid");
    assert_eq!(delete(&api, "/v1/memories/x?subject=s", "cvg_one").await.0, 404);
}
