//! Routes in the log: what a model was chosen from stands there once, and the choice is made again
//! by a replay.

use convergio_domain::event::Event;
use convergio_domain::graph;
use convergio_domain::payload::{PayloadPurpose, PayloadRef};
use convergio_domain::run::RoutingCandidates;
use convergio_domain::run::event::{ModelCallIntended, RunEvent};
use convergio_domain::stream::StreamKey;
use convergio_executor::replay::{Divergence, Replay};
use convergio_executor::tool;
use serde_json::{Value, json};

use crate::fallback::{answers, provider};
use crate::harness::Platform;

/// The second agent is asked by an executor that did not ask the first one.
const TWICE: &str = r#"
name: twice
nodes:
  - {id: one, agent: {model: auto, prompt: hi, max_tokens: 20}}
  - {id: ok, needs: [one], approval: {role: teacher, show: go on?}}
  - {id: two, needs: [ok], agent: {model: auto, prompt: hi again, max_tokens: 20}}
"#;

async fn ran(manifest: &str) -> (Platform, StreamKey) {
    let (_, first) = provider("first", answers).await;
    let (_, second) = provider("second", answers).await;
    let mut platform = Platform::with_models(vec![first, second]);
    let run = platform.create(manifest, &Value::Null).await;
    platform.start();
    platform.until(&run, |state| !state.approvals.is_empty()).await;
    platform.stop().await;
    platform.start();
    platform.answer(&run, true).await;
    platform.ended(&run).await;
    platform.stop().await;
    (platform, run)
}

async fn calls(platform: &Platform, run: &StreamKey) -> Vec<ModelCallIntended> {
    let events = platform.events(run).await.into_iter();
    let calls = events.filter_map(|event| match event {
        RunEvent::ModelCallIntended(call) => Some(call),
        _ => None,
    });
    calls.collect()
}

fn table_of(call: &ModelCallIntended) -> PayloadRef {
    match call.routing.as_ref().expect("it was routed").candidates {
        RoutingCandidates::Table(table) => table,
        RoutingCandidates::One(_) => panic!("there are two"),
    }
}

async fn tables(platform: &Platform, run: &StreamKey) -> usize {
    let records = platform.records(run).await;
    let payloads = records.iter().flat_map(|record| &record.body.payloads);
    payloads.filter(|payload| payload.purpose == PayloadPurpose::Candidates).count()
}

/// Replays a run of which a table, or a call, has become another.
async fn replayed(
    (platform, run): &(Platform, StreamKey),
    table: impl Fn(Value) -> Option<Value>,
    call: impl Fn(&mut ModelCallIntended),
) -> Result<Replay, Box<Divergence>> {
    let graph = graph::parse_manifest(TWICE, &tool::builtin_catalog()).expect("valid").graph;
    let mut replay = Replay::new(graph).expect("the kernel takes it");
    for record in platform.records(run).await {
        for at in replay.missing_payloads(&record) {
            let bytes = platform.repository.read_payload(run, at).await.expect("readable");
            let read = serde_json::from_slice(&bytes.expect("it is there")).expect("JSON");
            replay.provide_payload(at, table(read).map(|table| table.to_string().into_bytes()));
        }
        let mut record = (*record).clone();
        for event in &mut record.body.events {
            if let Event::Run(RunEvent::ModelCallIntended(event)) = event {
                call(event);
            }
        }
        replay.replay_commit(&std::sync::Arc::new(record), None)?;
    }
    Ok(replay)
}

#[tokio::test]
async fn what_is_chosen_from_is_stored_once_also_over_a_restart() {
    let (platform, run) = ran(TWICE).await;
    let calls = calls(&platform, &run).await;
    assert_eq!(calls.len(), 2);
    assert_eq!(table_of(&calls[0]), table_of(&calls[1]));
    assert_eq!(tables(&platform, &run).await, 1);
    let replay = platform.replay(&run, TWICE).await.expect("no divergence");
    assert_eq!(replay.skipped_decisions, 0);
    let without = replayed(&(platform, run), |_| None, |_| ()).await.expect("no divergence");
    assert_eq!((without.skipped_decisions, without.decisions + 2), (2, replay.decisions));
}

#[tokio::test]
async fn one_that_is_named_stands_with_its_call() {
    let named = TWICE.replace("model: auto", "model: second/m");
    let (platform, run) = ran(&named).await;
    for call in calls(&platform, &run).await {
        let routing = call.routing.expect("it was routed");
        assert!(matches!(routing.candidates, RoutingCandidates::One(_)), "{routing:?}");
        assert_eq!((routing.pinned, &routing.verdicts), (Some(0), &None));
        let bytes = serde_json::to_vec(&routing).expect("JSON").len();
        assert!(bytes < 200, "{bytes} bytes");
    }
    assert_eq!(tables(&platform, &run).await, 0);
    let replay = platform.replay(&run, &named).await.expect("no divergence");
    assert_eq!(replay.skipped_decisions, 0);
}

#[tokio::test]
async fn a_choice_that_would_be_another_is_named_by_its_step() {
    let run = ran(TWICE).await;
    let failing = |mut table: Value| {
        table[0]["failing"] = json!(true);
        Some(table)
    };
    let found = replayed(&run, failing, |_| ()).await.err().expect("it diverges");
    assert_eq!(
        (found.step.expect("a step").to_string().as_str(), found.aspect),
        ("one", "the route")
    );
    assert_eq!(found.recorded, "first/m: cheapest");
    assert!(found.computed.starts_with("second/m: "), "{}", found.computed);
    let renamed = |call: &mut ModelCallIntended| {
        if call.step.to_string() == "two" {
            call.route = "quality".into();
        }
    };
    let found = replayed(&run, Some, renamed).await.err().expect("it diverges");
    assert_eq!(
        (found.step.expect("a step").to_string().as_str(), found.aspect),
        ("two", "the route")
    );
    assert_eq!(
        (found.recorded.as_str(), found.computed.as_str()),
        ("first/m: quality", "first/m: cheapest")
    );
}

#[tokio::test]
async fn other_reasons_against_the_others_are_named_too() {
    let run = ran(TWICE).await;
    let smaller = |mut table: Value| {
        table[1]["context"] = json!(1);
        Some(table)
    };
    let found = replayed(&run, smaller, |_| ()).await.err().expect("it diverges");
    assert_eq!(found.step.expect("a step").to_string(), "one");
    assert_eq!(found.aspect, "the verdicts on the other models");
    assert_ne!(found.recorded, found.computed);
    let broken = |_| Some(json!({"no": "list"}));
    let found = replayed(&run, broken, |_| ()).await.err().expect("it diverges");
    assert!(found.computed.starts_with("it cannot be read"), "{found:?}");
}
