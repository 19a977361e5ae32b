//! Every operation that changes something, with a world around it that changes afterwards.

use std::future::Future;
use std::pin::Pin;

use convergio_domain::run::{StepIntent, StepOutcome, StepResult};
use convergio_domain::token::TokenHash;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Api;

type Change<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A request, and what happens between its two sendings.
pub(crate) struct Scene<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: String,
    /// What changes so that the request, looked at anew, would do or answer something else.
    pub(crate) change: Change<'a>,
    /// The event that the request leads to, once.
    pub(crate) effect: &'static str,
}

/// Operations that are asked by `POST` and change nothing.
pub(crate) const READS: [&str; 2] = ["POST /v1/fleet/replay", "POST /v1/runs/{id}/replay"];

/// The tiny graph with other inputs: what was right for it is wrong for this one.
const CHANGED: &str = r#"
name: tiny
inputs: {type: object, required: [number], properties: {number: {type: integer}},
  additionalProperties: false}
nodes: [{id: a, tool: text.trim, with: {text: "{{ inputs.number }}"}}]
"#;
const WAITING: &str = "name: waiting\nnodes: [{id: paid, signal: paid}]\n";
const THIRD: &str = r#"
name: tiny
nodes: [{id: a, tool: text.trim, with: {text: "third"}}]
"#;

fn tutor(system: &str) -> Value {
    json!({"name": "tutor", "model": "local", "system": system})
}

fn scene<'a>(
    method: Method,
    path: String,
    body: &Value,
    effect: &'static str,
    change: impl Future<Output = ()> + Send + 'a,
) -> Scene<'a> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Scene { method, path, body, change: Box::pin(change), effect }
}

/// The scenes of an operation; none for one that nobody has thought of yet.
pub(crate) async fn of<'a>(api: &'a Api, operation: &str) -> Vec<Scene<'a>> {
    match operation.split_once("/v1/").map(|(_, path)| path) {
        Some(path) if path.starts_with("runs/") => of_run(api, operation).await,
        Some(path) if path.starts_with("graphs") => of_graph(api, operation).await,
        Some(path) if path.starts_with("agents") => of_agent(api, operation).await,
        Some(path) if path.starts_with("tokens") => of_token(api, operation).await,
        _ => of_others(api, operation).await,
    }
}

async fn of_run<'a>(api: &'a Api, operation: &str) -> Vec<Scene<'a>> {
    let run = api.run().await;
    let path = |verb: &str| format!("/v1/runs/{run}/{verb}");
    let (cancel, pause, resume) = (path("cancel"), path("pause"), path("resume"));
    let post = |path: String, body: Value, effect, change: Change<'a>| {
        vec![scene(Method::POST, path, &body, effect, change)]
    };
    let id = run.clone();
    match operation {
        "POST /v1/runs/{id}/cancel" => {
            let body = json!({"reason": "enough"});
            post(cancel, body, "run.cancelled.v1", Box::pin(mark(api, id)))
        }
        "POST /v1/runs/{id}/pause" => {
            let change = async move { steer(api, &resume).await };
            post(pause, json!({}), "run.paused.v1", Box::pin(change))
        }
        "POST /v1/runs/{id}/resume" => {
            steer(api, &pause).await;
            let change = async move { steer(api, &pause).await };
            post(resume, Value::Null, "run.resumed.v1", Box::pin(change))
        }
        "POST /v1/runs/{id}/signal" => {
            let id = api.run_of(WAITING).await;
            let path = format!("/v1/runs/{id}/signal");
            let body = json!({"name": "paid", "payload": {"eur": 5}});
            let change = async move { api.advance(&id, &[], true).await };
            post(path, body, "run.signal.received.v1", Box::pin(change))
        }
        "POST /v1/runs/{id}/fork" => {
            let change = async move { api.advance(&id, &[], true).await };
            let body = json!({"inputs": {"text": "y"}});
            post(path("fork"), body, "run.forked.v1", Box::pin(change))
        }
        "POST /v1/runs/{id}/migrate" => {
            let migrate = path("migrate");
            let other = migrate.clone();
            let change = async move {
                let (status, report) = api.post(&other, &json!({"manifest": THIRD}), None).await;
                assert_eq!(status, 200, "{report}");
            };
            post(migrate, json!({"manifest": CHANGED}), "run.migrated.v1", Box::pin(change))
        }
        _ => of_failed_run(api, operation, run).await,
    }
}

/// Operations that repair a run.
async fn of_failed_run<'a>(api: &'a Api, operation: &str, run: String) -> Vec<Scene<'a>> {
    let path = |verb: &str| format!("/v1/runs/{run}/{verb}");
    let id = run.clone();
    api.advance(&run, &["a"], false).await;
    match operation {
        "POST /v1/runs/{id}/retry" => {
            api.fail(&run, "a").await;
            let change = async move {
                api.advance(&id, &["a"], false).await;
                api.fail_try(&id, "a", 2).await;
            };
            let body = json!({"step": "a"});
            vec![scene(Method::POST, path("retry"), &body, "run.reopened.v1", change)]
        }
        "POST /v1/runs/{id}/amend" => {
            api.fail(&run, "a").await;
            let change = async move {
                api.advance(&id, &["a"], false).await;
                api.fail_try(&id, "a", 2).await;
            };
            let body = json!({"wall": "2h"});
            vec![scene(Method::POST, path("amend"), &body, "run.amended.v1", change)]
        }
        "POST /v1/runs/{id}/resolve" => {
            tell(api, &run, 1, StepResult::UnknownAsking).await;
            let change = async move {
                tell(api, &id, 1, StepResult::Retried).await;
                api.advance(&id, &["a"], false).await;
                tell(api, &id, 2, StepResult::UnknownAsking).await;
            };
            let body = json!({"step": "a", "as": "retry"});
            vec![scene(Method::POST, path("resolve"), &body, "run.step.resolved.v1", change)]
        }
        _ => Vec::new(),
    }
}

async fn of_graph<'a>(api: &'a Api, operation: &str) -> Vec<Scene<'a>> {
    let run = api.run().await;
    let graph = api.graph().await;
    let path = |verb: &str| format!("/v1/graphs/{graph}/{verb}");
    match operation {
        "POST /v1/graphs" => {
            let change = async move { drop(api.register(THIRD).await) };
            let effect = "graph.registered.v1";
            let method = Method::POST;
            let (path, body) = ("/v1/graphs".into(), CHANGED.to_owned());
            vec![Scene { method, path, body, change: Box::pin(change), effect }]
        }
        "POST /v1/graphs/{id}/execute" => {
            let change = async move { drop(api.register(CHANGED).await) };
            let body = json!({"inputs": {"text": "x"}});
            vec![scene(Method::POST, path("execute"), &body, "run.created.v1", change)]
        }
        "POST /v1/graphs/{id}/checkpoint" => {
            let body = json!({"run_id": run, "label": "here"});
            let change = async move { api.advance(&run, &["a"], false).await };
            let effect = "run.checkpoint.saved.v1";
            vec![scene(Method::POST, path("checkpoint"), &body, effect, change)]
        }
        "POST /v1/graphs/{id}/resume" => {
            let pause = format!("/v1/runs/{run}/pause");
            steer(api, &pause).await;
            let other = api.run().await;
            let body = json!({"run_id": run});
            let again = async move { steer(api, &pause).await };
            let fork = json!({"run_id": other, "at": 1});
            let end = async move { api.advance(&other, &[], true).await };
            vec![
                scene(Method::POST, path("resume"), &body, "run.resumed.v1", again),
                scene(Method::POST, path("resume"), &fork, "run.forked.v1", end),
            ]
        }
        _ => Vec::new(),
    }
}

async fn of_agent<'a>(api: &'a Api, operation: &str) -> Vec<Scene<'a>> {
    let define = async move |system: &str| {
        let (status, agent) = api.post("/v1/agents", &tutor(system), None).await;
        assert_eq!(status, 201, "{agent}");
    };
    let path = "/v1/agents/tutor";
    match operation {
        "POST /v1/agents" => {
            let change = async move { define("Be kind.").await };
            let body = tutor("Be brief.");
            vec![scene(Method::POST, "/v1/agents".into(), &body, "agent.created.v1", change)]
        }
        "DELETE /v1/agents/{id}" => {
            define("Be brief.").await;
            let change = async move { define("Be brief.").await };
            let effect = "agent.terminated.v1";
            vec![scene(Method::DELETE, path.into(), &Value::Null, effect, change)]
        }
        "POST /v1/agents/{id}/run" => {
            define("Be brief.").await;
            let change = async move { delete(api, path).await };
            let body = json!({"message": "hi"});
            vec![scene(Method::POST, format!("{path}/run"), &body, "run.created.v1", change)]
        }
        _ => Vec::new(),
    }
}

async fn of_token<'a>(api: &'a Api, operation: &str) -> Vec<Scene<'a>> {
    let hash = |token: &str| TokenHash::from_token(token).to_string();
    let ann =
        move |token: &str| json!({"actor": "ann", "roles": ["teacher"], "blake3": hash(token)});
    let rotation = move |token: &str| json!({"blake3": hash(token)});
    let (all, of_ann, rotate) = ("/v1/tokens", "/v1/tokens/ann", "/v1/tokens/ann/rotate");
    let issue = async move |body: Value| {
        assert_eq!(api.post(all, &body, None).await.0, 201);
    };
    api.admit_owner().await;
    match operation {
        "POST /v1/tokens" => {
            let change = async move { delete(api, of_ann).await };
            vec![scene(Method::POST, all.into(), &ann("1"), "token.issued.v1", change)]
        }
        "POST /v1/tokens/{id}/rotate" => {
            issue(ann("1")).await;
            let change = async move {
                assert_eq!(api.post(rotate, &rotation("3"), None).await.0, 200);
            };
            vec![scene(Method::POST, rotate.into(), &rotation("2"), "token.issued.v1", change)]
        }
        "DELETE /v1/tokens/{id}" => {
            issue(ann("1")).await;
            let change = async move { issue(ann("2")).await };
            let effect = "token.revoked.v1";
            vec![scene(Method::DELETE, of_ann.into(), &Value::Null, effect, change)]
        }
        _ => Vec::new(),
    }
}

async fn of_others<'a>(api: &'a Api, operation: &str) -> Vec<Scene<'a>> {
    let memory = json!({"subject": "student:42", "text": "Anna likes maps."});
    match operation {
        "POST /v1/approvals/{id}" => {
            let run = api.run().await;
            let id = api.ask(&run, "a", "teacher").await;
            api.get(&format!("/v1/runs/{run}")).await;
            let body = json!({"decision": "grant", "content_hash": "abc"});
            let change = async move { steer(api, &format!("/v1/runs/{run}/cancel")).await };
            let path = format!("/v1/approvals/{id}");
            vec![scene(Method::POST, path, &body, "run.approval.granted.v1", change)]
        }
        "POST /v1/memories" => {
            let change = async move {
                let (_, listed) = api.get("/v1/memories?subject=student:42").await;
                let id = listed["items"][0]["id"].as_str().expect("an id").to_owned();
                delete(api, &format!("/v1/memories/{id}?subject=student:42")).await;
            };
            let path = "/v1/memories".into();
            vec![scene(Method::POST, path, &memory, "memory.stored.v1", change)]
        }
        "DELETE /v1/memories/{id}" => {
            let (_, stored) = api.post("/v1/memories", &memory, None).await;
            let id = stored["id"].as_str().expect("an id");
            let path = format!("/v1/memories/{id}?subject=student:42");
            let change = async move { drop(api.post("/v1/memories", &memory, None).await) };
            vec![scene(Method::DELETE, path, &Value::Null, "memory.forgotten.v1", change)]
        }
        _ => Vec::new(),
    }
}

/// Gives a run a command of its own, under no key.
async fn steer(api: &Api, path: &str) {
    let (status, view) = api.post(path, &json!({}), None).await;
    assert_eq!(status, 200, "{path}: {view}");
}

async fn mark(api: &Api, run: String) {
    let graph = api.get(&format!("/v1/runs/{run}")).await.1["graph_id"].clone();
    let path = format!("/v1/graphs/{}/checkpoint", graph.as_str().expect("a graph"));
    assert_eq!(api.post(&path, &json!({"run_id": run}), None).await.0, 201);
}

async fn delete(api: &Api, path: &str) {
    let request = api.request(Method::DELETE, path, Some("cvg_one"));
    assert_eq!(request.send().await.expect("an answer").status(), 200, "{path}");
}

/// An executor tells what came of a try of step `a`.
async fn tell(api: &Api, run: &str, attempt: u32, result: StepResult) {
    let step = "a".parse().expect("a step");
    let outcome = StepOutcome { step, attempt, result, call: None, skipped: Vec::new() };
    api.tell(run, vec![outcome], Vec::<(&str, StepIntent)>::new()).await;
}
