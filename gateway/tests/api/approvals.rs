//! Questions to people: who may answer, and what they answer to.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, parts};

async fn answer(api: &Api, id: &str, token: &str, hash: &str) -> (u16, Value) {
    let request = api.request(Method::POST, &format!("/v1/approvals/{id}"), Some(token));
    let body = json!({"decision": "grant", "content_hash": hash, "reason": "as agreed"});
    parts(request.json(&body).send().await.expect("an answer")).await
}

#[tokio::test]
async fn a_question_is_answered_by_who_has_its_role() {
    let api = Api::start().await;
    let run = api.run().await;
    let id = api.ask(&run, "a", "teacher").await;
    api.get(&format!("/v1/runs/{run}")).await;
    let (status, problem) = answer(&api, &id, "cvg_student", "abc").await;
    assert_eq!((status, &problem["code"]), (403, &json!("auth.forbidden")), "{problem}");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("`teacher`") && detail.contains(&id), "{detail}");
    assert_eq!(api.get(&format!("/v1/approvals/{id}")).await.1["state"], "open", "nothing changed");
    let (status, problem) = answer(&api, &id, "cvg_two", "abc").await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")), "another tenant's owner");
    let (status, problem) = answer(&api, &id, "cvg_teacher", "other").await;
    assert_eq!((status, &problem["code"]), (409, &json!("request.conflict")), "{problem}");
    let (status, asked) = answer(&api, &id, "cvg_teacher", "abc").await;
    assert_eq!((status, &asked["state"]), (200, &json!("granted")), "{asked}");
    assert_eq!(asked["answered_by"], "teacher");
}

#[tokio::test]
async fn an_owner_answers_for_everybody() {
    let api = Api::start().await;
    let run = api.run().await;
    let id = api.ask(&run, "a", "teacher").await;
    api.get(&format!("/v1/runs/{run}")).await;
    assert_eq!(answer(&api, &id, "cvg_one", "abc").await.0, 200);
}
