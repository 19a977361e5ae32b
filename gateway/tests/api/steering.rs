//! Steering runs over HTTP: what is answered, and that what is refused changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use convergio_domain::run::{StepIntent, StepOutcome, StepResult};
use convergio_domain::time::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Api, run_stream};

async fn status(api: &Api, run: &str) -> Value {
    api.get(&format!("/v1/runs/{run}")).await.1["status"].clone()
}

pub(crate) async fn seq(api: &Api, run: &str) -> Value {
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

const WAITING: &str = "name: waiting\nnodes: [{id: paid, signal: paid}]";

/// Sends requests at once; gives how often each status was answered.
async fn statuses_of_all(
    api: &Arc<Api>,
    requests: impl Iterator<Item = (String, Value, Option<String>)>,
) -> BTreeMap<u16, usize> {
    let mut answers = JoinSet::new();
    for (path, body, key) in requests {
        let api = Arc::clone(api);
        answers.spawn(async move { api.post(&path, &body, key.as_deref()).await.0 });
    }
    let mut statuses = BTreeMap::new();
    for status in answers.join_all().await {
        *statuses.entry(status).or_default() += 1;
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_signals_at_once_are_all_taken() {
    let api = Arc::new(Api::in_files().await);
    let run = api.run_of(WAITING).await;
    let before = seq(&api, &run).await.as_u64().expect("a number");
    let path = format!("/v1/runs/{run}/signal");
    let signal = |number: usize| {
        let body = json!({"name": "paid", "payload": {"number": number}});
        // With a key and without: half of them write to streams of their own too.
        (path.clone(), body, number.is_multiple_of(2).then(|| format!("payment-{number}")))
    };
    let statuses = statuses_of_all(&api, (0..1000).map(signal)).await;
    assert_eq!(statuses, [(200, 1000)].into());
    let state = api.get(&format!("/v1/runs/{run}/state")).await.1;
    assert_eq!(state["signals"], json!({"paid": 1000}));
    assert_eq!(seq(&api, &run).await, before + 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_many_questions_of_one_run_at_once_are_all_taken() {
    let api = Arc::new(Api::in_files().await);
    let run = api.run().await;
    let mut questions = Vec::new();
    for number in 0..150 {
        questions.push(api.ask(&run, &format!("q{number}"), "teacher").await);
    }
    api.get(&format!("/v1/runs/{run}")).await;
    let body = json!({"decision": "grant", "content_hash": "abc"});
    let answer = |id: &String| (format!("/v1/approvals/{id}"), body.clone(), None);
    // Each twice: the same answer again is the same answer.
    let requests = questions.iter().chain(&questions).map(answer);
    assert_eq!(statuses_of_all(&api, requests).await, [(200, 300)].into());
    for id in &questions {
        let (_, asked) = api.get(&format!("/v1/approvals/{id}")).await;
        assert_eq!(asked["state"], "granted", "{asked}");
    }
}

#[tokio::test]
async fn who_does_not_get_its_turn_in_time_is_told_to_send_it_again() {
    let api = Api::impatient().await;
    let run = api.run_of(WAITING).await;
    let before = seq(&api, &run).await;
    let turn = api.repository.take_turn(&run_stream(&run)).await;
    for (verb, body) in [("signal", json!({"name": "paid"})), ("pause", json!({}))] {
        let (status, problem) = api.post(&format!("/v1/runs/{run}/{verb}"), &body, None).await;
        assert_eq!((status, &problem["code"]), (409, &json!("request.conflict")), "{problem}");
        assert_eq!(problem["retryable"], true);
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains("nothing was done, send the same request again"), "{detail}");
    }
    assert_eq!(seq(&api, &run).await, before);
    drop(turn);
    let (status, _) = api.post(&format!("/v1/runs/{run}/pause"), &json!({}), None).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn an_unknown_outcome_is_seen_and_decided() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a"], false).await;
    let lost = StepOutcome {
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
    let done = StepOutcome {
        step: "a".parse().expect("a step"),
        attempt: 1,
        result: StepResult::Completed { output: None, case: None },
        call: None,
        skipped: Vec::new(),
    };
    let nap = StepIntent::Sleep { due: Timestamp(i64::MAX / 2) };
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

#[tokio::test]
async fn a_failed_run_goes_on_with_other_limits() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a"], false).await;
    api.fail(&run, "a").await;
    let path = format!("/v1/runs/{run}/amend");
    for (body, code) in [
        (json!({}), "request.conflict"),
        (json!({"wall": "soon"}), "request.invalid"),
        (json!({"cost": "-1x"}), "request.invalid"),
        (json!({"token": 5}), "request.invalid"),
        (json!({"deadline": "1ms"}), "request.conflict"),
        (json!({"version": "0".repeat(64)}), "not_found"),
        (json!({"version": "0".repeat(64), "manifest": "name: x"}), "request.invalid"),
    ] {
        let (status, problem) = api.post(&path, &body, None).await;
        assert_eq!(problem["code"], code, "{body}: {status} {problem}");
    }
    let body = json!({"tokens": 900_000, "wall": "2h", "deadline": "30d", "reason": "longer text"});
    let (code, view) = api.post(&path, &body, Some("more")).await;
    assert_eq!((code, &view["status"]), (200, &json!("running")), "{view}");
    let before = seq(&api, &run).await;
    assert_eq!(api.post(&path, &body, Some("more")).await.0, 200);
    assert_eq!(seq(&api, &run).await, before, "the same request is done once");
    let audit = api.get(&format!("/v1/audit?stream=run/{run}&type=run.amended.v1")).await.1;
    let entries = audit["items"].as_array().or(audit["entries"].as_array()).expect("a page");
    assert_eq!(entries.len(), 1, "{audit}");
}
