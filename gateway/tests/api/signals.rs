//! Signals over HTTP: taken once, and only where a node of the run's graph waits for them.

use serde_json::json;

use crate::harness::Api;
use crate::steering::seq;

const WAITING: &str = r#"
name: waiting
nodes:
  - {id: paid, signal: {name: payment.settled}}
  - {id: again, needs: paid, signal: payment.settled}
  - {id: sent, needs: paid, signal: "orders/fulfilled"}
"#;

#[tokio::test]
async fn a_signal_counts_once_under_a_key() {
    let api = Api::start().await;
    let run = api.run_of(WAITING).await;
    let path = format!("/v1/runs/{run}/signal");
    let body = json!({"name": "payment.settled", "payload": {"eur": 5}});
    assert_eq!(api.post(&path, &body, Some("k")).await.0, 200);
    let before = seq(&api, &run).await;
    assert_eq!(api.post(&path, &body, Some("k")).await.0, 200);
    assert_eq!(seq(&api, &run).await, before);
    let other = api.post(&path, &json!({"name": "payment.settled"}), Some("k")).await;
    assert_eq!(other.1["code"], "idempotency.mismatch");
    api.post(&path, &body, None).await;
    let state = api.get(&format!("/v1/runs/{run}/state")).await.1;
    assert_eq!(
        state["signals"],
        json!({"payment.settled": 2}),
        "kept for the nodes that will wait"
    );
}

#[tokio::test]
async fn a_signal_that_no_node_waits_for_is_refused_with_the_names_that_would_be_right() {
    let api = Api::start().await;
    let run = api.run_of(WAITING).await;
    let path = format!("/v1/runs/{run}/signal");
    for name in ["payment", "Payment.settled", "payment.settled.", "paid"] {
        let (status, problem) = api.post(&path, &json!({"name": name}), None).await;
        assert_eq!((status, &problem["code"]), (409, &json!("request.conflict")), "{name}");
        let right = "it waits for `orders/fulfilled`, `payment.settled`";
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(&format!("`{name}`")) && detail.contains(right), "{detail}");
    }
    let state = api.get(&format!("/v1/runs/{run}/state")).await.1;
    assert_eq!(state.get("signals"), None, "nothing is kept");
    assert_eq!(api.post(&path, &json!({"name": "orders/fulfilled"}), None).await.0, 200);
}

#[tokio::test]
async fn a_graph_that_waits_for_nothing_says_so() {
    let api = Api::start().await;
    let run = api.run().await;
    let path = format!("/v1/runs/{run}/signal");
    let (_, problem) = api.post(&path, &json!({"name": "payment"}), None).await;
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.ends_with("it waits for none"), "{detail}");
}

#[tokio::test]
async fn a_name_that_is_none_is_told_as_a_signals() {
    let api = Api::start().await;
    let run = api.run_of(WAITING).await;
    let path = format!("/v1/runs/{run}/signal");
    let long = "x".repeat(129);
    for name in ["", "pay ment", "zahlung.best\u{e4}tigt", &long] {
        let (status, problem) = api.post(&path, &json!({"name": name}), None).await;
        assert_eq!(status, 400, "{problem}");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains("is not a valid signal name: use 1 to 128"), "{detail}");
    }
}
