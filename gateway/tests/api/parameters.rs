//! Unknown parameters and values are refused by name, everywhere.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, parts};

const SOME: &str = "01920000-0000-7000-8000-000000000000";

/// Sends an operation with a query; gives status and problem.
async fn ask(api: &Api, method: &str, path: &str, body: &str) -> (u16, Value) {
    let method: Method = method.to_uppercase().parse().expect("a method");
    let request = api.request(method, path, Some("cvg_one"));
    let request = request.header("content-type", "application/json").body(body.to_owned());
    parts(request.send().await.expect("an answer")).await
}

#[tokio::test]
async fn every_operation_refuses_a_parameter_that_it_does_not_have() {
    let api = Api::start().await;
    let document = serde_json::to_value(convergio_gateway::openapi_document()).expect("JSON");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let asked = format!("{}?statu=failed", path.replace("{id}", SOME));
            let (status, problem) = ask(&api, method, &asked, "").await;
            assert_eq!((status, &problem["code"]), (400, &json!("request.invalid")), "{asked}");
            let detail = problem["detail"].as_str().expect("text");
            assert!(detail.contains("`statu`") && detail.contains(path.as_str()), "{detail}");
            let known = operation["parameters"].as_array().into_iter().flatten();
            for parameter in known.filter(|parameter| parameter["in"] == "query") {
                let name = parameter["name"].as_str().expect("a name");
                assert!(detail.contains(&format!("`{name}`")), "{detail}");
            }
        }
    }
}

#[tokio::test]
async fn every_operation_refuses_a_field_that_it_does_not_have() {
    let api = Api::start().await;
    let run = api.run().await;
    let document = serde_json::to_value(convergio_gateway::openapi_document()).expect("JSON");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            if method == "get" {
                continue;
            }
            let id = if path.contains("/agents/") { "tutor" } else { run.as_str() };
            let query = if path == "/v1/memories/{id}" { "?subject=s" } else { "" };
            let asked = format!("{}{query}", path.replace("{id}", id));
            let (status, problem) = ask(&api, method, &asked, r#"{"resaon": "x"}"#).await;
            assert_eq!(status, 400, "{method} {asked}: {problem}");
            assert!(problem.to_string().contains("resaon"), "{method} {asked}: {problem}");
        }
    }
}

#[tokio::test]
async fn a_value_that_does_not_exist_is_refused_by_name() {
    let api = Api::start().await;
    let run = api.run().await;
    for (query, status, words) in [
        ("runs?status=finished", 400, ["status", "`finished`", "`cancelled`"]),
        ("runs?status=Completed", 400, ["status", "`Completed`", "`completed`"]),
        ("runs?graph=nothing", 404, ["graph", "`nothing`", ""]),
        ("runs?actor=no%20body", 400, ["actor", "no body", ""]),
        ("runs?cursor=-5", 400, ["cursor", "`-5`", "next_cursor"]),
        ("runs?cursor=abc", 400, ["cursor", "`abc`", "next_cursor"]),
        ("runs?limit=0", 400, ["limit", "`0`", "1000"]),
        ("runs?limit=-1", 400, ["limit", "`-1`", "1000"]),
        ("runs?limit=5000", 400, ["limit", "`5000`", "1000"]),
        ("runs?limit=abc", 400, ["limit", "`abc`", "1000"]),
        ("runs?limit=5&limit=6", 400, ["limit", "twice", ""]),
        ("graphs?limit=0", 400, ["limit", "`0`", "1000"]),
        ("graphs?cursor=-5", 400, ["cursor", "`-5`", ""]),
        ("agents?status=gone", 400, ["status", "`gone`", "`terminated`"]),
        ("approvals?state=opened", 400, ["state", "`opened`", "`open`"]),
        ("approvals?run=nothing", 404, ["run", "`nothing`", ""]),
        ("approvals?cursor=-5.x", 400, ["cursor", "`-5.x`", ""]),
        ("usage?run=nothing", 404, ["run", "`nothing`", ""]),
        ("ledger?run=nothing", 404, ["run", "`nothing`", ""]),
        ("ledger?cursor=5", 400, ["cursor", "`5`", ""]),
        ("audit?stream=nothing", 400, ["stream", "`nothing`", "run/UUID"]),
        ("audit?type=run.ended", 400, ["type", "`run.ended`", "`run.completed.v1`"]),
        ("audit?cursor=5.x", 400, ["cursor", "`5.x`", ""]),
        ("memories?subject=s&limit=0", 400, ["limit", "`0`", "1000"]),
    ] {
        let (found, problem) = api.get(&format!("/v1/{query}")).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!(found, status, "{query}: {problem}");
        assert!(words.iter().all(|word| detail.contains(word)), "{query}: {detail}");
    }
    for query in ["after=-1", "limit=0", "payloads=yes"] {
        let (status, problem) = api.get(&format!("/v1/runs/{run}/events?{query}")).await;
        let name = query.split('=').next().expect("a name");
        assert!(problem["detail"].as_str().unwrap_or_default().contains(name), "{problem}");
        assert_eq!(status, 400, "{query}");
    }
}

#[tokio::test]
async fn runs_are_listed_by_the_name_of_their_graph() {
    let api = Api::start().await;
    let run = api.run().await;
    api.get(&format!("/v1/runs/{run}")).await;
    let graph = api.graph().await;
    for named in ["tiny", graph.as_str()] {
        let (status, listed) = api.get(&format!("/v1/runs?graph={named}")).await;
        assert_eq!((status, &listed["items"][0]["id"]), (200, &json!(run)), "{named}");
    }
    assert_eq!(api.get(&format!("/v1/runs?graph={SOME}")).await.0, 404);
}
