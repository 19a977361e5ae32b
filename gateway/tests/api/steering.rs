//! Steering runs over HTTP: what is answered, and that what is refused changes nothing.

use convergio_domain::run::{Intent, Outcome, StepResult};
use convergio_domain::time::Timestamp;
use serde_json::{Value, json};

use crate::harness::Api;

async fn status(api: &Api, run: &str) -> Value {
    api.get(&format!("/v1/runs/{run}")).await.1["status"].clone()
}

async fn seq(api: &Api, run: &str) -> Value {
    api.get(&format!("/v1/runs/{run}")).await.1["seq"].clone()
}

#[tokio::test]
async fn a_run_is_paused_and_resumed_by_itself_and_by_its_graph() {
    let api = Api::start().await;
    let run = api.run().await;
    let (code, view) = api.post(&format!("/v1/runs/{run}/pause"), &json!({}), Some("p")).await;
    assert_eq!((code, &view["status"]), (200, &json!("paused")));
    let again = api.post(&format!("/v1/runs/{run}/pause"), &json!({}), Some("p")).await;
    assert_eq!(again, (code, view.clone()), "the same request, the same answer");
    let listed = api.get("/v1/runs?status=paused").await.1;
    assert_eq!(listed["items"][0]["id"], run.as_str());
    let (code, view) = api.post(&format!("/v1/runs/{run}/resume"), &json!({}), None).await;
    assert_eq!((code, &view["status"]), (200, &json!("running")));
    api.post(&format!("/v1/runs/{run}/pause"), &json!({"reason": "look"}), None).await;
    let graph = view["graph_id"].as_str().expect("a graph").to_owned();
    let path = format!("/v1/graphs/{graph}/resume");
    let (code, view) = api.post(&path, &json!({"run_id": run}), None).await;
    assert_eq!((code, &view["status"]), (200, &json!("running")), "{view}");
    let nobody = json!({"run_id": "01920000-0000-7000-8000-000000000000"});
    assert_eq!(api.post(&path, &nobody, None).await.0, 404);
}

#[tokio::test]
async fn what_has_ended_is_not_steered_and_nothing_is_changed() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &[], true).await;
    let before = seq(&api, &run).await;
    for (verb, body, code) in [
        ("resume", json!({}), "run.not_resumable"),
        ("retry", json!({}), "run.not_resumable"),
        ("fork", json!({}), "run.not_resumable"),
        ("pause", json!({}), "request.conflict"),
        ("signal", json!({"name": "paid"}), "request.conflict"),
        ("resolve", json!({"step": "a", "as": "retry"}), "request.conflict"),
        ("fork", json!({"at": 99}), "request.invalid"),
        ("fork", json!({"at": 1, "version": "0".repeat(64)}), "not_found"),
        ("fork", json!({"at": 1, "nodes": {"b": {"model": "x"}}}), "request.invalid"),
        ("fork", json!({"at": 1, "nodes": {"a": {"prompt": "x"}}}), "request.invalid"),
        ("fork", json!({"at": 1, "inputs": {"text": 5}}), "request.invalid"),
        ("fork", json!({"at": 1, "manifest": "name: [}"}), "graph.invalid"),
        ("signal", json!({"name": "No Name"}), "request.invalid"),
        ("signal", json!({"payload": 1}), "request.invalid"),
        ("pause", json!({"why": "x"}), "request.invalid"),
    ] {
        let (status, problem) = api.post(&format!("/v1/runs/{run}/{verb}"), &body, None).await;
        assert_eq!(problem["code"], code, "{verb} {body}: {status} {problem}");
    }
    let (_, beyond) = api.post(&format!("/v1/runs/{run}/fork"), &json!({"at": 99}), None).await;
    assert_eq!(beyond["detail"], "the run has 2 events: no event 99");
    assert_eq!(seq(&api, &run).await, before);
    assert_eq!(api.get("/v1/runs").await.1["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_signal_counts_once_under_a_key() {
    let api = Api::start().await;
    let run = api.run().await;
    let path = format!("/v1/runs/{run}/signal");
    let body = json!({"name": "paid", "payload": {"eur": 5}});
    assert_eq!(api.post(&path, &body, Some("k")).await.0, 200);
    let before = seq(&api, &run).await;
    assert_eq!(api.post(&path, &body, Some("k")).await.0, 200);
    assert_eq!(seq(&api, &run).await, before);
    let other = api.post(&path, &json!({"name": "paid"}), Some("k")).await;
    assert_eq!(other.1["code"], "idempotency.mismatch");
    api.post(&path, &body, None).await;
    let state = api.get(&format!("/v1/runs/{run}/state")).await.1;
    assert_eq!(state["signals"], json!({"paid": 2}), "kept for the nodes that will wait");
}

#[tokio::test]
async fn an_unknown_outcome_is_seen_and_decided() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a"], false).await;
    let lost = Outcome {
        step: "a".parse().expect("a step"),
        attempt: 1,
        result: StepResult::UnknownAsking,
        call: None,
        skipped: Vec::new(),
    };
    api.tell(&run, vec![lost], Vec::new()).await;
    let view = api.get(&format!("/v1/runs/{run}")).await.1;
    assert_eq!(view["steps"][0]["status"], "undecided");
    let path = format!("/v1/runs/{run}/resolve");
    let (code, problem) = api.post(&path, &json!({"step": "a", "as": "skip"}), None).await;
    assert_eq!((code, &problem["code"]), (409, &json!("request.conflict")), "{problem}");
    let told = json!({"step": "a", "as": "completed", "output": "found", "reason": "export"});
    assert_eq!(api.post(&path, &told, Some("r")).await.0, 200);
    assert_eq!(api.post(&path, &told, Some("r")).await.0, 200);
    let audit = api.get(&format!("/v1/audit?stream=run/{run}&type=run.step.resolved.v1")).await.1;
    let entries = audit["items"].as_array().or(audit["entries"].as_array()).expect("a page");
    assert_eq!(entries.len(), 1, "{audit}");
}

#[tokio::test]
async fn a_failed_run_is_retried_by_the_steps_that_ended_it() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a"], false).await;
    api.fail(&run, "a").await;
    assert_eq!(status(&api, &run).await, "failed");
    let path = format!("/v1/runs/{run}/retry");
    let (code, problem) = api.post(&path, &json!({"step": "b"}), None).await;
    assert_eq!((code, &problem["detail"]), (409, &json!("`b` did not end the run: a did")));
    let (code, view) = api.post(&path, &json!({"step": "a"}), Some("again")).await;
    assert_eq!((code, &view["status"]), (200, &json!("running")), "{view}");
    assert_eq!(view["error"], Value::Null);
    assert_eq!(api.post(&path, &json!({"step": "a"}), Some("again")).await.0, 200);
}

#[tokio::test]
async fn a_fork_shows_what_it_inherits_and_what_differs() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a"], false).await;
    let done = Outcome {
        step: "a".parse().expect("a step"),
        attempt: 1,
        result: StepResult::Completed { output: None, case: None },
        call: None,
        skipped: Vec::new(),
    };
    let nap = Intent::Sleep { due: Timestamp(i64::MAX / 2) };
    api.tell(&run, vec![done], vec![("nap", nap)]).await;
    let path = format!("/v1/runs/{run}/fork");
    let body = json!({"inputs": {"text": "other"}});
    let (code, fork) = api.post(&path, &body, Some("f")).await;
    assert_eq!(code, 202, "{fork}");
    assert_eq!(api.post(&path, &body, Some("f")).await, (202, fork.clone()));
    let child = fork["run_id"].as_str().expect("a run").to_owned();
    let view = api.get(&format!("/v1/runs/{child}")).await.1;
    assert_eq!(view["forked_from"]["run_id"], run.as_str());
    assert_eq!(view["steps"][0]["id"], "a");
    assert_eq!(
        (&view["steps"][0]["status"], &view["steps"][0]["is_inherited"]),
        (&json!("completed"), &json!(true))
    );
    assert_eq!(view["usage"]["cost"], "0");
    let early = api.get(&format!("/v1/runs/{run}/state?at=1")).await.1;
    assert_eq!((&early["seq"], &early["steps"]), (&json!(1), &json!([])));
    assert_eq!(api.get(&format!("/v1/runs/{run}/state?at=99")).await.0, 400);
    api.post(&format!("/v1/runs/{child}/cancel"), &json!({}), None).await;
    let diff = api.get(&format!("/v1/runs/{run}/diff?with={child}")).await.1;
    assert_eq!(diff["common"]["run_id"], run.as_str(), "{diff}");
    assert_eq!(
        (&diff["a"]["status"], &diff["b"]["status"]),
        (&json!("running"), &json!("cancelled"))
    );
    assert_eq!(diff["same"], 1, "{diff}");
    let nap = &diff["steps"][0];
    assert_eq!(
        (&nap["a"]["status"], &nap["b"]["status"]),
        (&json!("sleeping"), &json!("abandoned"))
    );
    let graph = view["graph_id"].as_str().expect("a graph");
    let mark = json!({"run_id": run, "label": "here"});
    let (code, point) = api.post(&format!("/v1/graphs/{graph}/checkpoint"), &mark, None).await;
    assert_eq!((code, point["seq"].is_u64()), (201, true), "{point}");
    let again = json!({"run_id": run, "at": point["seq"]});
    let (code, resumed) = api.post(&format!("/v1/graphs/{graph}/resume"), &again, None).await;
    assert_eq!(code, 200, "{resumed}");
    assert_eq!(resumed["forked_from"]["run_id"], run.as_str());
    assert_ne!(resumed["id"], run.as_str());
}
