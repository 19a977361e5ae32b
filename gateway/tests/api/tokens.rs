//! Tokens of the log: what one gateway issues, rotates and revokes holds at every other.

use std::sync::Arc;

use convergio_domain::id::TenantId;
use convergio_domain::token::TokenHash;
use convergio_eventstore::{HealthRegistry, LogWriter, MemoryLog};
use convergio_gateway::{ConnectionLimits, follow_tokens};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::{Api, TOKEN, parts};

/// Two gateways on one log whose owner has `TOKEN`, following its tokens.
async fn two() -> (Api, Api, watch::Sender<bool>) {
    let log: Arc<dyn LogWriter> = Arc::new(MemoryLog::new());
    let (stop, stopping) = watch::channel(false);
    let mut all = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().expect("a folder");
        all.push(Api::on(Arc::clone(&log), folder, ConnectionLimits::default()).await);
    }
    all[0].admit_owner().await;
    let tenant: TenantId = "one".parse().expect("a name");
    for api in &all {
        let (repository, tokens) = (api.repository.clone(), api.tokens.clone());
        let health = HealthRegistry::default().component_health("tokens");
        let follow = follow_tokens(repository, tenant.clone(), tokens, health, stopping.clone());
        tokio::spawn(follow);
    }
    let second = all.pop().expect("two");
    (all.pop().expect("two"), second, stop)
}

async fn asked(api: &Api, method: Method, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let request = api.request(method, path, Some(token));
    let request = if body.is_null() { request } else { request.json(body) };
    parts(request.send().await.expect("an answer")).await
}

async fn status(api: &Api, token: &str) -> u16 {
    asked(api, Method::GET, "/v1/tokens", token, &Value::Null).await.0
}

/// Waits until a gateway has heard what a token is worth.
async fn until(api: &Api, token: &str, expected: u16) {
    while status(api, token).await != expected {
        tokio::task::yield_now().await;
    }
}

fn hash(token: &str) -> String {
    TokenHash::from_token(token).to_string()
}

#[tokio::test]
async fn what_one_gateway_decides_holds_at_the_other() {
    let (here, there, _stop) = two().await;
    // The tokens of before are not in the log.
    until(&here, "cvg_teacher", 401).await;
    until(&there, "cvg_teacher", 401).await;
    let ann = json!({"actor": "ann", "roles": ["teacher"], "blake3": hash("cvg_ann")});
    let (code, issued) = asked(&here, Method::POST, "/v1/tokens", TOKEN, &ann).await;
    assert_eq!((code, &issued["actor"]), (201, &json!("ann")), "{issued}");
    assert_eq!(status(&here, "cvg_ann").await, 200, "at once");
    until(&there, "cvg_ann", 200).await;
    let rotation = json!({"blake3": hash("cvg_ann_2")});
    let rotate = "/v1/tokens/ann/rotate";
    assert_eq!(asked(&there, Method::POST, rotate, "cvg_ann", &rotation).await.0, 200);
    assert_eq!((status(&there, "cvg_ann").await, status(&there, "cvg_ann_2").await), (401, 200));
    until(&here, "cvg_ann", 401).await;
    assert_eq!(status(&here, "cvg_ann_2").await, 200);
    let path = "/v1/tokens/ann";
    let (code, revoked) = asked(&here, Method::DELETE, path, TOKEN, &Value::Null).await;
    assert_eq!((code, &revoked["revoked"]), (200, &json!(true)), "{revoked}");
    assert_eq!(status(&here, "cvg_ann_2").await, 401, "at once");
    until(&there, "cvg_ann_2", 401).await;
    assert_eq!(asked(&there, Method::DELETE, path, TOKEN, &Value::Null).await.0, 200, "twice");
}

#[tokio::test]
async fn a_follower_is_cut_off_where_its_token_was_not_revoked() {
    let (here, there, _stop) = two().await;
    let ann = json!({"actor": "ann", "roles": ["teacher"], "blake3": hash("cvg_ann")});
    assert_eq!(asked(&here, Method::POST, "/v1/tokens", TOKEN, &ann).await.0, 201);
    until(&there, "cvg_ann", 200).await;
    until(&here, TOKEN, 200).await;
    let run = here.run().await;
    let path = format!("/v1/runs/{run}/events");
    let follow = there.request(Method::GET, &path, Some("cvg_ann"));
    let follow = follow.header("accept", "text/event-stream").send().await.expect("an answer");
    assert_eq!(follow.status().as_u16(), 200);
    let revoked = asked(&here, Method::DELETE, "/v1/tokens/ann", TOKEN, &Value::Null).await;
    assert_eq!(revoked.0, 200);
    assert!(follow.text().await.expect("it ends").contains("run.created.v1"));
}

#[tokio::test]
async fn only_the_owner_gives_and_takes_and_mistakes_are_named() {
    let (api, _other, _stop) = two().await;
    let ann = |actor: &str| json!({"actor": actor, "roles": ["teacher"], "blake3": hash(actor)});
    assert_eq!(asked(&api, Method::POST, "/v1/tokens", TOKEN, &ann("ann")).await.0, 201);
    let grab = json!({"actor": "ann2", "roles": ["owner"], "blake3": hash("x")});
    let other = json!({"blake3": hash("x")});
    let cases = [
        (Method::POST, "/v1/tokens", "ann", grab, 403, "auth.forbidden"),
        (Method::POST, "/v1/tokens/owner/rotate", "ann", other.clone(), 403, "auth.forbidden"),
        (Method::POST, "/v1/tokens/bob/rotate", TOKEN, other, 404, "not_found"),
        (Method::DELETE, "/v1/tokens/owner", "ann", Value::Null, 403, "auth.forbidden"),
        (Method::DELETE, "/v1/tokens/owner", TOKEN, Value::Null, 409, "request.conflict"),
        (Method::DELETE, "/v1/tokens/carl", TOKEN, Value::Null, 404, "not_found"),
        (Method::POST, "/v1/tokens", TOKEN, ann("fork"), 409, "request.conflict"),
        (Method::POST, "/v1/tokens", TOKEN, ann("Ann"), 400, "request.invalid"),
        (Method::POST, "/v1/tokens", TOKEN, json!({"token": "cvg_x"}), 400, "request.invalid"),
    ];
    for (method, path, token, body, status, code) in cases {
        let (got, problem) = asked(&api, method.clone(), path, token, &body).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{method} {path}: {problem}");
    }
}
