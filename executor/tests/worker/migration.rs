//! Moving a run under way to another version of its graph.

use convergio_domain::graph;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{RunCommand, RunPhase, RunState, StepStatus};
use convergio_executor::migration::find_migration_obstacle;
use convergio_executor::replay::Replay;
use convergio_executor::tool;
use serde_json::json;

use crate::harness::Platform;

const ASKS: &str = r#"
name: asks
output: "{{ nodes.last.output }}"
nodes:
  - {id: first, tool: text.trim, with: {text: " x "}}
  - {id: ask, approval: {role: owner, show: "{{ nodes.first.output }}"}}
  - {id: last, needs: [ask], tool: text.trim, with: {text: "{{ nodes.first.output }} old "}}
"#;

fn parsed(manifest: &str) -> Graph {
    graph::parse_manifest(manifest, &tool::builtin_catalog()).expect("the manifest is valid").graph
}

async fn register(platform: &Platform, manifest: &str) -> Graph {
    let graph = parsed(manifest);
    platform.use_cases().register_graph(&platform.caller(), &graph).await.expect("new");
    graph
}

fn asking(state: &RunState) -> bool {
    !state.approvals.is_empty()
}

#[tokio::test]
async fn a_moved_run_goes_on_by_the_new_version_and_replays_over_the_move() {
    let mut platform = Platform::new();
    let run = platform.create(ASKS, &json!({})).await;
    platform.start();
    platform.until(&run, asking).await;
    let changed = ASKS.replace("old ", "new ").replace(
        "  - {id: last",
        "  - {id: more, needs: [first], tool: text.trim, with: {text: more}}\n  - {id: last",
    );
    let graph = register(&platform, &changed).await;
    let state = platform.state(&run).await;
    assert_eq!(find_migration_obstacle(&parsed(ASKS), &graph, &state), None);
    // An executor has the run in memory or not: both must follow.
    platform.tell(&run, RunCommand::Migrate { to: graph.compute_version() }).await;
    platform.answer(&run, true).await;
    let state = platform.ended(&run).await;
    platform.stop().await;
    assert_eq!(state.phase, RunPhase::Completed, "{:?}", state.error);
    assert_eq!(state.graph.expect("a graph").1, graph.compute_version());
    let more = "more".parse().expect("a step");
    assert_eq!(state.steps[&more].status, StepStatus::Completed, "what the new version adds");
    let output = state.output.expect("an output");
    let output = platform.repository.read_payload(&run, output).await.expect("readable");
    assert_eq!(output.as_deref(), Some(&b"\"x new\""[..]));
    let mut replay = Replay::new(parsed(ASKS)).expect("the kernel takes it");
    for record in platform.records(&run).await {
        if replay.migration_target(&record).is_some() {
            replay.offer_graph(graph.compute_version(), graph.clone());
        }
        replay.replay_commit(&record, None).expect("no divergence");
    }
    assert!(replay.is_ended());
    let mut without = Replay::new(parsed(ASKS)).expect("the kernel takes it");
    let records = platform.records(&run).await;
    let found = records.iter().find_map(|record| without.replay_commit(record, None).err());
    assert!(found.expect("it diverges").computed.contains("no such graph version"));
}

#[tokio::test]
async fn what_is_under_way_must_be_there_and_of_the_same_kind() {
    let mut platform = Platform::new();
    let run = platform.create(ASKS, &json!({})).await;
    platform.start();
    let state = platform.until(&run, asking).await;
    let own = parsed(ASKS);
    let reason = |manifest: &str| {
        find_migration_obstacle(&own, &parsed(manifest), &state).expect("an obstacle")
    };
    let gone = ASKS.replace("id: ask,", "id: question,").replace("[ask]", "[question]");
    assert!(reason(&gone).contains("step ask is under way"), "{}", reason(&gone));
    let sleeps = ASKS.replace(
        "approval: {role: owner, show: \"{{ nodes.first.output }}\"}",
        "needs: [first], sleep: 1s",
    );
    assert!(reason(&sleeps).contains("was begun as an approval, and is a sleep"));
    let before = ASKS
        .replace("nodes:\n", "nodes:\n  - {id: zero, sleep: 1s}\n")
        .replace("{id: first,", "{id: first, needs: [zero],");
    assert!(reason(&before).contains("the kernel refuses"), "{}", reason(&before));
    let named = ASKS.replace("name: asks", "name: other");
    assert!(reason(&named).contains("the run is of `asks`"));
    platform.answer(&run, false).await;
    platform.ended(&run).await;
    let events = platform.events(&run).await;
    assert!(!events.iter().any(|event| matches!(event, RunEvent::RunMigrated(_))));
    platform.stop().await;
}
