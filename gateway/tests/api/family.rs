//! Runs and the runs within them: who belongs to whom, what is listed, which step an error is of.

use convergio_domain::run::{RunOrigin, StepIntent};
use convergio_domain::time::Timestamp;
use serde_json::{Value, json};

use crate::harness::Api;

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().expect("a page");
    items.iter().map(|run| run["id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn a_run_names_its_parent_and_its_children_and_lists_show_top_runs() {
    let api = Api::start().await;
    let parent = api.run().await;
    let mut children = Vec::new();
    for number in 0..3 {
        let step = format!("m[{number}]").parse().expect("a step");
        let run = parent.parse().expect("a run");
        children.insert(0, api.child(RunOrigin { run, step, depth: 1 }).await);
    }
    // Who asks for one run waits for the read models; lists do not.
    api.get(&format!("/v1/runs/{}", children[0])).await;
    assert_eq!(ids(&api.get("/v1/runs").await.1), [&*parent]);
    assert_eq!(ids(&api.get("/v1/runs?all=true").await.1).len(), 4);
    assert_eq!(ids(&api.get(&format!("/v1/runs?parent={parent}")).await.1), children);
    let (_, view) = api.get(&format!("/v1/runs/{parent}")).await;
    assert_eq!(view["children_total"], 3);
    assert_eq!(view["children"][0]["run_id"], children[0].as_str());
    assert_eq!(view["children"][0]["step"], "m[2]");
    assert_eq!(view["children"][0]["status"], "running");
    assert_eq!(view["children"][0]["graph_name"], "tiny");
    let (_, view) = api.get(&format!("/v1/runs/{}", children[0])).await;
    assert_eq!(view["parent"], json!({"run_id": parent, "step": "m[2]"}));
    assert_eq!(view["children"], Value::Null);
    for query in ["parent=x".to_owned(), format!("parent={parent}&all=true")] {
        let (status, problem) = api.get(&format!("/v1/runs?{query}")).await;
        assert_eq!((status, &problem["code"]), (400, &json!("request.invalid")), "{query}");
    }
    let of_nobody = "/v1/runs?parent=01920000-0000-7000-8000-000000000000";
    assert!(ids(&api.get(of_nobody).await.1).is_empty());
}

#[tokio::test]
async fn a_failed_run_names_the_step_and_what_it_left_is_abandoned() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a", "b"], false).await;
    api.tell(&run, Vec::new(), vec![("s", StepIntent::Sleep { due: Timestamp(i64::MAX / 2) })])
        .await;
    api.fail(&run, "a").await;
    let statuses = |steps: &Value, name: &str| {
        let steps = steps.as_array().expect("steps").iter();
        let status = |step: &Value| format!("{} {}", step[name], step["status"]).replace('"', "");
        let mut statuses: Vec<String> = steps.map(status).collect();
        statuses.sort();
        statuses
    };
    let left = ["a failed", "b abandoned", "s abandoned"];
    let (_, view) = api.get(&format!("/v1/runs/{run}")).await;
    assert_eq!(view["error"]["step"], "a");
    assert_eq!(statuses(&view["steps"], "id"), left);
    assert_eq!((&view["steps_abandoned"], &view["steps_total"]), (&json!(2), &json!(3)));
    let (_, state) = api.get(&format!("/v1/runs/{run}/state")).await;
    assert_eq!(statuses(&state["steps"], "step"), left);
    let before = state["seq"].as_u64().expect("a number") - 1;
    let (_, state) = api.get(&format!("/v1/runs/{run}/state?at={before}")).await;
    assert_eq!(statuses(&state["steps"], "step")[1..], ["b started", "s sleeping"]);
    let (status, view) = api.post(&format!("/v1/runs/{run}/retry"), &json!({}), None).await;
    assert_eq!(status, 200, "{view}");
    assert_eq!(statuses(&view["steps"], "id"), ["a scheduled", "b started", "s sleeping"]);
    assert_eq!((&view["error"], &view["steps_abandoned"]), (&Value::Null, &Value::Null));
}
