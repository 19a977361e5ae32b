//! kill -9 at random points of the example brief, thirty times: the run goes on by itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Server, convergio, model_url, repository, text};

const ROUNDS: u64 = 30;

/// A number from 1 to 8, drawn from the round: a failing test is a repeatable one.
fn step_of(round: u64) -> u64 {
    1 + (round.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) % 8
}

#[tokio::test]
async fn a_brief_survives_thirty_kills() {
    let Some(_model) = model_url() else {
        eprintln!("skipped: `make test` serves the model that this test needs");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let document = std::fs::read_to_string(repository("examples/documents/constitution.md"))
        .expect("the document is there");
    let (mut runs, mut current) = (Vec::new(), None::<(String, u64)>);
    for round in 0..ROUNDS {
        let server = Server::start(folder.path());
        let (run, seen) = match current.take() {
            Some(known) => known,
            None => {
                let graph = server.register("brief.yaml").await;
                let (_, accepted) = server.execute(&graph, &json!({"doc": document}), None).await;
                let run = accepted["run_id"].as_str().expect("a run").to_owned();
                runs.push(run.clone());
                (run, 1)
            }
        };
        let (seen, ended) = server.wait_for_events(&run, seen + step_of(round)).await;
        server.kill();
        current = (!ended).then_some((run, seen));
    }
    let server = Server::start(folder.path());
    for run in &runs {
        let view = server.ended(run).await;
        assert_eq!(view["status"], "completed", "{view}");
        each_call_counts_once(&server, run).await;
    }
    server.kill();
    let checked = convergio(folder.path(), &["projections", "check"]);
    assert!(checked.status.success(), "{}", text(&checked.stdout));
    let verified = convergio(folder.path(), &["log", "verify"]);
    assert!(verified.status.success(), "{}", text(&verified.stdout));
}

/// No completed step runs again, and the ledger has each confirmed call once.
async fn each_call_counts_once(server: &Server, run: &str) {
    let events = server.events(run).await;
    let mut completed = BTreeSet::new();
    let mut calls = BTreeSet::new();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], index as u64 + 1, "no gap and no repeat");
        let step = event["data"]["step"].as_str().unwrap_or("").to_owned();
        match event["type"].as_str().expect("a type") {
            "run.step.completed.v1" => assert!(completed.insert(step), "completed once"),
            "run.step.started.v1" => assert!(!completed.contains(&step), "{step} ran again"),
            "run.model_call.completed.v1" => {
                assert!(calls.insert(step.clone()), "{step} was answered once");
            }
            _ => {}
        }
    }
    let usage = server.get(&format!("/v1/usage?run={run}&limit=1000")).await;
    let lines = usage["items"].as_array().expect("a page");
    let unique: BTreeSet<_> = lines.iter().map(|line| line["usage_id"].to_string()).collect();
    assert_eq!(unique.len(), lines.len(), "every line once");
    let confirmed: BTreeSet<_> = lines
        .iter()
        .filter(|line| line["confirmed"] == Value::Bool(true))
        .map(|line| line["step"].as_str().expect("a step").to_owned())
        .collect();
    assert_eq!(confirmed, calls, "each answered call is in the ledger, and nothing else is");
    let ledger = server.get(&format!("/v1/ledger?run={run}&limit=1000")).await;
    assert_eq!(ledger["entries"].as_array().map(Vec::len), Some(lines.len()));
}
