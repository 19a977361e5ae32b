//! Runs that many write to at once while their executor works: signals, answers, and runs within
//! them that end together.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use convergio_application::NewRun;
use convergio_domain::chat::Privacy;
use convergio_domain::event::Event;
use convergio_domain::id::{ExecutorId, RunId, StepId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{
    AdvanceRun, AnswerApproval, Budget, ChildIntent, Provenance, Run, RunCommand, RunOrigin,
    RunPhase, RunRejection, SendSignal, StepIntent, StepStart, child_run_id,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{CommitError, Payload};
use futures_util::StreamExt;
use serde_json::json;
use tokio::task::JoinSet;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Metadata, Subscriber};
use uuid::Uuid;

use crate::harness::{PATIENCE, Platform};

/// What was logged as an error by this thread, on which a test's executor works too.
#[derive(Clone, Default)]
struct LoggedErrors(Arc<Mutex<String>>);

impl LoggedErrors {
    fn collect() -> (Self, DefaultGuard) {
        let errors = Self::default();
        let guard = tracing::subscriber::set_default(errors.clone());
        (errors, guard)
    }

    fn check_none(&self) {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(errors.is_empty(), "{errors}");
    }
}

impl Visit for LoggedErrors {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(errors, "{field}: {value:?}").expect("into memory");
    }
}

impl Subscriber for LoggedErrors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// On a log in files: writers meet there, as each waits for its commit.
fn platform() -> (Platform, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).expect("opens");
    (Platform::on(Arc::new(log), Vec::new()), folder)
}

fn payload(json: &str, purpose: PayloadPurpose) -> Payload {
    let bytes = Bytes::copy_from_slice(json.as_bytes());
    Payload { bytes, media_type: "application/json".into(), purpose, subject: None }
}

fn signal(name: &str) -> RunCommand {
    let (id, signal) = (Uuid::now_v7(), name.parse().expect("a name"));
    RunCommand::Signal(SendSignal { id, name: signal, payload: PayloadSlot(0) })
}

/// A command to a run, as a request of its own.
fn submit(
    platform: &Platform,
    run: &StreamKey,
    command: RunCommand,
) -> impl Future<Output = Result<(), CommitError<RunRejection>>> + Send + use<> {
    let (repository, context) = (platform.repository.clone(), platform.context());
    let (run, is_signal) = (run.clone(), matches!(command, RunCommand::Signal(_)));
    let carried = payload("{\"by\": \"Ann\"}", PayloadPurpose::Signal);
    let carried: Vec<Payload> = is_signal.then_some(carried).into_iter().collect();
    async move {
        let commands = |_: &_, _| (command.clone(), carried.clone());
        repository.submit_command::<Run>(&run, &context, commands).await
    }
}

/// Waits for the end of a run without folding it again at every record.
async fn end_of(platform: &Platform, run: &StreamKey) -> RunPhase {
    let mut records = platform.repository.event_log().tail_stream(run, Seq(0));
    let ending = async {
        loop {
            let record = records.next().await.expect("the log goes on").expect("readable");
            match record.body.events.last().and_then(Event::as_run) {
                Some(RunEvent::RunCompleted(_)) => return RunPhase::Completed,
                Some(RunEvent::RunFailed(_)) => return RunPhase::Failed,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, ending).await.expect("it ends")
}

const NODES: usize = 60;

/// Questions, signals, and a node that needs them all.
fn waiting() -> String {
    let mut nodes = String::from("name: waiting\nbudget: {wall: 1h}\nnodes:\n");
    for n in 0..NODES {
        writeln!(nodes, "  - {{id: q{n}, approval: {{show: \"{n}?\"}}}}").expect("into memory");
        writeln!(nodes, "  - {{id: s{n}, signal: paid}}").expect("into memory");
    }
    let needs: Vec<String> = (0..NODES).map(|n| format!("q{n}, s{n}")).collect();
    let needs = needs.join(", ");
    nodes + &format!("  - {{id: last, needs: [{needs}], tool: text.trim, with: {{text: x}}}}\n")
}

#[tokio::test]
async fn signals_and_answers_at_once_to_a_run_at_work_are_all_taken() {
    let (errors, _guard) = LoggedErrors::collect();
    let (mut platform, _folder) = platform();
    let manifest = waiting();
    let run = platform.create(&manifest, &json!({})).await;
    platform.start();
    let asked = platform.until(&run, |state| state.approvals.len() == NODES).await;
    let mut writers = JoinSet::new();
    for (id, approval) in &asked.approvals {
        let answer = AnswerApproval {
            approval: *id,
            content_hash: approval.content_hash.clone(),
            granted: true,
            reason: None,
            roles: vec!["owner".into()],
        };
        writers.spawn(submit(&platform, &run, RunCommand::Answer(answer)));
        writers.spawn(submit(&platform, &run, signal("paid")));
    }
    for written in writers.join_all().await {
        written.expect("its turn comes");
    }
    assert_eq!(end_of(&platform, &run).await, RunPhase::Completed);
    platform.stop().await;
    platform.replay(&run, &manifest).await.expect("no divergence");
    errors.check_none();
}

/// Writers that never stop, and a run of some steps one after the other.
#[tokio::test]
async fn a_run_at_work_is_not_starved_by_others_that_write_to_it_all_the_time() {
    let (errors, _guard) = LoggedErrors::collect();
    let (mut platform, _folder) = platform();
    let mut manifest = String::from("name: line\nbudget: {wall: 1h}\nnodes:\n");
    for n in 0..20 {
        let needs = if n == 0 { String::new() } else { format!("needs: [n{}], ", n - 1) };
        let node = format!("  - {{id: n{n}, {needs}tool: text.trim, with: {{text: x}}}}\n");
        manifest.push_str(&node);
    }
    let run = platform.create(&manifest, &json!({})).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..20 {
        let (repository, context) = (platform.repository.clone(), platform.context());
        let (run, taken) = (run.clone(), Arc::clone(&taken));
        writers.spawn(async move {
            let carried = payload("1", PayloadPurpose::Signal);
            let commands = |_: &_, _| (signal("more"), vec![carried.clone()]);
            while repository.submit_command::<Run>(&run, &context, commands).await.is_ok() {
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    platform.start();
    assert_eq!(end_of(&platform, &run).await, RunPhase::Completed);
    writers.join_all().await;
    platform.stop().await;
    let taken = taken.load(Ordering::Relaxed);
    // Each of its 22 commits waits for those that came before, which are 20 at most.
    assert!((20..2000).contains(&taken), "{taken} signals before its end");
    platform.replay(&run, &manifest).await.expect("no divergence");
    errors.check_none();
}

const WITHIN: usize = 500;
const INNER: &str = "{name: inner, nodes: [{id: a, tool: text.trim, with: {text: x}}]}";

fn step(number: usize) -> StepId {
    format!("s{number}").parse().expect("a step")
}

/// What an executor writes that begins so many runs within a run and dies; nobody has begun them.
async fn begin_children(platform: &Platform, parent: &StreamKey) {
    let (id, inner) = platform.register(INNER).await;
    let budget = Budget { tokens: None, cost: None, wall: None, deadline: None };
    let intent = |number: usize| ChildIntent {
        tool_call: None,
        child: child_run_id(RunId(parent.id), &step(number), 1, None),
        graph: id,
        version: inner.compute_version(),
        input: PayloadSlot(0),
        manifest: None,
        budget,
        privacy: Privacy::Any,
        agent: None,
    };
    let input = vec![payload("{}", PayloadPurpose::Input)];
    for part in 0..WITHIN / 100 {
        let numbers = part * 100..(part + 1) * 100;
        let start = |number| StepStart {
            step: step(number),
            intent: StepIntent::CreateChild(intent(number)),
        };
        let advance = AdvanceRun {
            executor: ExecutorId(Uuid::nil()),
            turn_updates: Vec::new(),
            outcomes: Vec::new(),
            instant_outcomes: Vec::new(),
            ready_steps: Vec::new(),
            starts: numbers.map(start).collect(),
            end: None,
        };
        let commands = |_: &_, _| (RunCommand::Advance(advance.clone()), input.clone());
        let (repository, context) = (&platform.repository, platform.context());
        let written = repository.submit_command::<Run>(parent, &context, commands).await;
        written.expect("the run takes it");
    }
    for number in 0..WITHIN {
        let origin = Some(RunOrigin { run: RunId(parent.id), step: step(number), depth: 1 });
        let new_run = NewRun {
            run: intent(number).child,
            budget,
            request_hash: "test".into(),
            provenance: Provenance { origin, agent: None },
            ..NewRun::of_version(id, inner.compute_version(), "{}")
        };
        platform.use_cases().create_run(&platform.caller(), new_run).await.expect("new");
    }
}

/// They are all there when the executor starts: they end together, while the one that waits for
/// them is worked on too.
#[tokio::test]
async fn the_ends_of_five_hundred_runs_within_one_are_all_told_at_once() {
    let (errors, _guard) = LoggedErrors::collect();
    let (mut platform, _folder) = platform();
    let mut manifest = String::from("name: outer\nbudget: {wall: 1h}\nnodes:\n");
    for number in 0..WITHIN {
        let node = format!("  - {{id: {}, graph: {{name: inner}}}}\n", step(number));
        manifest.push_str(&node);
    }
    let parent = platform.create(&manifest, &json!({})).await;
    begin_children(&platform, &parent).await;
    platform.start();
    assert_eq!(end_of(&platform, &parent).await, RunPhase::Completed);
    platform.stop().await;
    let events = platform.events(&parent).await;
    let ends = events.iter().filter(|event| matches!(event, RunEvent::ChildEnded(_))).count();
    assert_eq!(ends, WITHIN);
    platform.replay(&parent, &manifest).await.expect("no divergence");
    // None was left alone for a while because it could not tell of its end.
    errors.check_none();
}
