//! Runs that came as files: no executor takes them up, and none takes them for a run of its own.

use std::sync::Arc;

use convergio_domain::decider::Wake;
use convergio_domain::id::{GraphId, GraphVersion, RunId, StepId};
use convergio_domain::payload::{PayloadRef, PayloadSlot};
use convergio_domain::run::event::{RunCompleted, RunCreated, RunEvent, RunImported};
use convergio_domain::run::{Budget, RunCommand, RunPhase, RunRejection, child_run_id};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{
    CommitError, LogWriter, MemoryLog, SystemClock, UndecidedCommit, WallClock,
};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Platform, tenant};

const INNER: &str = "name: inner\nnodes: [{id: a, tool: text.trim, with: {text: \"x\"}}]\n";
const OUTER: &str = "name: outer\nnodes:\n  - id: sub\n    graph: {name: inner, inputs: {}}\n";

/// Puts a run that was begun elsewhere into the log, with the mark of an import behind it.
async fn plant(
    log: &MemoryLog,
    stream: &StreamKey,
    graph: GraphId,
    version: GraphVersion,
    more: Vec<RunEvent>,
) {
    let created = RunEvent::RunCreated(RunCreated {
        graph,
        version,
        input: PayloadRef { seq: Seq(1), index: 0 },
        budget: Budget::default(),
        privacy: convergio_domain::chat::Privacy::Any,
        request_hash: "planted".into(),
        origin: None,
    });
    let mark = RunEvent::RunImported(RunImported {
        by: "owner".parse().expect("a name"),
        file_hash: "ab".into(),
        signer: None,
    });
    let input = convergio_eventstore::Payload {
        bytes: bytes::Bytes::from_static(b"{}"),
        media_type: "application/json".into(),
        purpose: convergio_domain::payload::PayloadPurpose::Input,
        subject: None,
    };
    assert_eq!(PayloadSlot(0).to_payload_ref(Seq(1)), PayloadRef { seq: Seq(1), index: 0 });
    let commit = UndecidedCommit {
        stream: stream.clone(),
        expected: None,
        time: SystemClock.now(),
        actor: "stranger".parse().expect("a name"),
        events: [created].into_iter().chain(more).chain([mark]).map(Into::into).collect(),
        payloads: vec![input],
        // Even if the index of a log says that it has work.
        wake: Wake::Now,
    };
    log.append(commit.into()).await.expect("it is new");
}

#[tokio::test]
async fn an_imported_run_under_way_is_left_alone() {
    let log = MemoryLog::new();
    let mut platform = Platform::on(Arc::new(log.clone()), Vec::new());
    let (graph, parsed) = platform.register(INNER).await;
    let planted = StreamKey::for_run(tenant(), RunId(Uuid::now_v7()));
    plant(&log, &planted, graph, parsed.compute_version(), Vec::new()).await;
    // Those that an executor finds at its start, and one that begins meanwhile.
    platform.start();
    let own = platform.create(INNER, &json!({})).await;
    assert_eq!(platform.ended(&own).await.phase, RunPhase::Completed);
    let another = StreamKey::for_run(tenant(), RunId(Uuid::now_v7()));
    plant(&log, &another, graph, parsed.compute_version(), Vec::new()).await;
    let own = platform.create(INNER, &json!({})).await;
    assert_eq!(platform.ended(&own).await.phase, RunPhase::Completed);
    platform.stop().await;
    for run in [&planted, &another] {
        assert_eq!(platform.events(run).await.len(), 2, "nothing was added");
    }
}

#[tokio::test]
async fn an_imported_run_under_the_id_of_a_run_within_is_not_taken_for_it() {
    let log = MemoryLog::new();
    let mut platform = Platform::on(Arc::new(log.clone()), Vec::new());
    let (graph, parsed) = platform.register(INNER).await;
    let outer = platform.create(OUTER, &json!({})).await;
    let step: StepId = "sub".parse().expect("a step");
    let child = StreamKey::for_run(tenant(), child_run_id(RunId(outer.id), &step, 1, None));
    let ended = RunEvent::RunCompleted(RunCompleted { output: None });
    plant(&log, &child, graph, parsed.compute_version(), vec![ended]).await;
    platform.start();
    let state = platform.ended(&outer).await;
    assert_eq!(state.phase, RunPhase::Failed);
    assert_eq!(state.error.expect("a reason").code, "run.imported");
    platform.stop().await;
}

#[tokio::test]
async fn what_an_imported_run_says_that_it_has_within_is_not_steered() {
    let log = MemoryLog::new();
    let platform = Platform::on(Arc::new(log.clone()), Vec::new());
    let (graph, parsed) = platform.register(INNER).await;
    let victim = platform.create(INNER, &json!({})).await;
    let planted = StreamKey::for_run(tenant(), RunId(Uuid::now_v7()));
    plant(&log, &planted, graph, parsed.compute_version(), Vec::new()).await;
    let context = platform.context();
    for command in [RunCommand::Cancel { reason: None }, RunCommand::Pause { reason: None }] {
        let told = platform.repository.steer_family(&planted, &context, command).await;
        assert!(matches!(told.map(drop), Err(CommitError::Rejected(RunRejection::Imported))));
    }
    let state = platform.state(&victim).await;
    assert!(state.phase == RunPhase::Running && !state.paused);
}
