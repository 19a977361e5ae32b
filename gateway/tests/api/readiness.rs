//! Readiness: what was read is compared with what was written, whatever the projector says.

use serde_json::json;

use crate::harness::Api;

#[tokio::test]
async fn a_server_whose_read_models_hold_the_log_is_ready() {
    let api = Api::start().await;
    api.run().await;
    let (status, health) = api.get("/readyz").await;
    assert_eq!((status, &health["status"]), (200, &json!("ok")), "{health}");
    assert_eq!(health["log_position"], health["read_position"]);
    assert_eq!(health["projection_lag"], 0);
}

#[tokio::test]
async fn read_models_that_do_not_move_are_told_with_numbers() {
    let api = Api::start().await;
    api.run().await;
    assert_eq!(api.get("/readyz").await.0, 200);
    api.stop_projector().await;
    let tail = api.get("/readyz").await.1["log_position"].as_u64().expect("a number");
    api.run().await;
    let (status, problem) = api.get("/readyz").await;
    assert_eq!((status, &problem["code"]), (503, &json!("server.not_ready")));
    assert_eq!(problem["retryable"], true);
    let expected = format!(
        "the read models hold {tail} of {} records, 1 behind, and did not move within 1000 ms",
        tail + 1
    );
    assert_eq!(problem["detail"], expected.as_str());
    let (status, health) = api.get("/healthz").await;
    assert_eq!((status, &health["projection_lag"]), (200, &json!(1)), "the server lives");
}

#[tokio::test]
async fn a_loop_that_fails_is_told_with_its_reason() {
    let api = Api::start().await;
    let component = api.health.component_health("executor");
    component.report_failure(&"the wake index cannot be read: no such file");
    let (status, problem) = api.get("/readyz").await;
    assert_eq!(status, 503);
    let detail = problem["detail"].as_str().expect("a reason");
    assert!(detail.starts_with("executor: the wake index cannot be read: no such file, for "));
    component.report_success();
    assert_eq!(api.get("/readyz").await.0, 200);
}
