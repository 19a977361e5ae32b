//! Who gets in, what they see, and what they are told.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, parts};

/// Every path of the document under `/v1`, with ids filled in.
fn paths(run: &str, graph: &str) -> Vec<(Method, String)> {
    let document = serde_json::to_value(convergio_gateway::openapi_document()).expect("JSON");
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        if !path.starts_with("/v1") {
            continue;
        }
        let id = if path.contains("/graphs/") { graph } else { run };
        for method in operations.as_object().expect("operations").keys() {
            let method = method.to_uppercase().parse().expect("a method");
            found.push((method, path.replace("{id}", id)));
        }
    }
    assert!(found.len() >= 14, "{found:?}");
    found
}

#[tokio::test]
async fn every_endpoint_asks_for_a_token() {
    let api = Api::start().await;
    let (run, graph) = (api.run().await, api.graph().await);
    for (method, path) in paths(&run, &graph) {
        for token in [None, Some("cvg_wrong"), Some("")] {
            let request = api.request(method.clone(), &path, token);
            let (status, problem) = parts(request.send().await.expect("an answer")).await;
            assert_eq!((status, &problem["code"]), (401, &json!("auth.invalid")), "{path}");
            assert!(problem["request_id"].is_string());
        }
    }
}

#[tokio::test]
async fn no_endpoint_shows_another_tenants_things() {
    let api = Api::start().await;
    let (run, graph) = (api.run().await, api.graph().await);
    api.get(&format!("/v1/runs/{run}")).await;
    for (method, path) in paths(&run, &graph) {
        let body = json!({"inputs": {"text": "x"}, "decision": "grant", "content_hash": "x"});
        let query =
            if path.ends_with("/status") { format!("?run_id={run}") } else { String::new() };
        let request = api.request(method.clone(), &format!("{path}{query}"), Some("cvg_two"));
        let request = if method == Method::POST { request.json(&body) } else { request };
        let (status, answer) = parts(request.send().await.expect("an answer")).await;
        let text = answer.to_string();
        assert!(!text.contains(&run) || status >= 400, "{method} {path}: {text}");
        if path.contains(&run) || path.contains(&graph) {
            assert!(status == 404 || status == 400, "{method} {path}: {status} {text}");
        } else if status == 200 {
            let items = answer.get("items").or_else(|| answer.get("entries"));
            assert_eq!(items, Some(&json!([])), "{path}");
        }
    }
}

#[tokio::test]
async fn the_same_key_gives_the_same_answer_and_another_body_is_refused() {
    let api = Api::start().await;
    let path = format!("/v1/graphs/{}/execute", api.graph().await);
    let body = json!({"inputs": {"text": "x"}});
    let first = api.post(&path, &body, Some("k")).await;
    assert_eq!(first.0, 202);
    assert_eq!(api.post(&path, &body, Some("k")).await, first);
    let other = api.post(&path, &json!({"inputs": {"text": "y"}}), Some("k")).await;
    assert_eq!((other.0, &other.1["code"]), (422, &json!("idempotency.mismatch")));
    let run = first.1["run_id"].as_str().expect("a run");
    let cancel = format!("/v1/runs/{run}/cancel");
    assert_eq!(api.post(&cancel, &json!({}), Some("c")).await.0, 200);
    assert_eq!(api.post(&cancel, &json!({}), Some("c")).await.0, 200);
    let other = api.post(&cancel, &json!({"reason": "x"}), Some("c")).await;
    assert_eq!(other.1["code"], "idempotency.mismatch");
    let bad = api.post(&path, &body, Some(&"k".repeat(256))).await;
    assert_eq!(bad.1["code"], "request.invalid");
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let api = Api::start().await;
    let graph = api.graph().await;
    let path = format!("/v1/graphs/{graph}/execute");
    let (status, problem) = api.post(&path, &json!({"inputs": {"text": 5}}), None).await;
    assert_eq!((status, &problem["code"]), (400, &json!("request.invalid")));
    assert!(problem["detail"].as_str().expect("text").contains("inputs/text"), "{problem}");
    let (_, problem) = api.post(&path, &json!({"input": {}}), None).await;
    assert!(problem["detail"].as_str().expect("text").contains("input"), "{problem}");
    assert_eq!(api.get("/v1/nothing").await.1["code"], "not_found");
    assert_eq!(api.get("/v1/runs?cursor=x").await.1["code"], "request.invalid");
    assert_eq!(api.get("/v1/runs?limit=x").await.1["code"], "request.invalid");
    let wrong = api.request(Method::DELETE, "/v1/graphs", Some("cvg_one"));
    let (status, problem) = parts(wrong.send().await.expect("an answer")).await;
    assert_eq!((status, &problem["code"]), (405, &json!("request.method")));
    let large = "x".repeat((1 << 20) + 1);
    let request = api.request(Method::POST, "/v1/graphs", Some("cvg_one")).body(large);
    let (status, problem) = parts(request.send().await.expect("an answer")).await;
    assert_eq!((status, &problem["code"]), (413, &json!("request.too_large")));
    let listed: Value = api.get("/v1/runs").await.1;
    assert_eq!(listed["items"], json!([]), "nothing was done");
}
