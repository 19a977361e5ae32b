//! Runs that many write to at once while their executor works: signals, answers, and runs within
//! them that end together.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use convergio_domain::chat::Privacy;
use convergio_domain::event::Event;
use convergio_domain::id::{ExecutorId, RunId, StepId};
use convergio_domain::payload::{PayloadSlot, Purpose};
use convergio_domain::run::{
    Advance, Answer, Budget, ChildIntent, CreateRun, Intent, Lineage, Origin, Phase, Rejection,
    Run, RunCommand, Signal, Start, child_run_id,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use convergio_eventstore::{CommitError, Payload};
use futures_util::StreamExt;
use serde_json::json;
use tokio::task::JoinSet;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Metadata, Subscriber};
use uuid::Uuid;

use crate::harness::{PATIENCE, Platform, tenant};

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
    let log = EmbeddedLog::open(&Config::new(folder.path())).expect("opens");
    (Platform::on(Arc::new(log), Vec::new()), folder)
}

fn payload(json: &str, purpose: Purpose) -> Payload {
    let bytes = Bytes::copy_from_slice(json.as_bytes());
    Payload { bytes, media_type: "application/json".into(), purpose, subject: None }
}

fn signal(name: &str) -> RunCommand {
    let (id, signal) = (Uuid::now_v7(), name.parse().expect("a name"));
    RunCommand::Signal(Signal { id, signal, payload: PayloadSlot(0) })
}

/// A command to a run, as a request of its own.
fn submit(
    platform: &Platform,
    run: &StreamKey,
    command: RunCommand,
) -> impl Future<Output = Result<(), CommitError<Rejection>>> + Send + use<> {
    let (repository, context) = (platform.repository.clone(), platform.context());
    let (run, is_signal) = (run.clone(), matches!(command, RunCommand::Signal(_)));
    let carried = payload("{\"by\": \"Ann\"}", Purpose::Signal);
    let carried: Vec<Payload> = is_signal.then_some(carried).into_iter().collect();
    async move {
        let commands = |_: &_, _| (command.clone(), carried.clone());
        repository.submit::<Run>(&run, &context, commands).await
    }
}

/// Waits for the end of a run without folding it again at every record.
async fn end_of(platform: &Platform, run: &StreamKey) -> Phase {
    let mut records = platform.repository.log().tail_stream(run, Seq(0));
    let ending = async {
        loop {
            let record = records.next().await.expect("the log goes on").expect("readable");
            match record.body.events.last() {
                Some(Event::RunCompleted(_)) => return Phase::Completed,
                Some(Event::RunFailed(_)) => return Phase::Failed,
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
        write!(nodes, "  - {{id: q{n}, approval: {{show: \"{n}?\"}}}}\n").expect("into memory");
        write!(nodes, "  - {{id: s{n}, signal: paid}}\n").expect("into memory");
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
        let answer = Answer {
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
    assert_eq!(end_of(&platform, &run).await, Phase::Completed);
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
            let carried = payload("1", Purpose::Signal);
            let commands = |_: &_, _| (signal("more"), vec![carried.clone()]);
            while repository.submit::<Run>(&run, &context, commands).await.is_ok() {
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    platform.start();
    assert_eq!(end_of(&platform, &run).await, Phase::Completed);
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
    let budget = Budget::UNBOUND;
    let intent = |number: usize| ChildIntent {
        at: None,
        child: child_run_id(RunId(parent.id), &step(number), 1, None),
        graph: id,
        version: inner.version(),
        input: PayloadSlot(0),
        manifest: None,
        budget,
        privacy: Privacy::Any,
        agent: None,
    };
    let input = vec![payload("{}", Purpose::Input)];
    for part in 0..WITHIN / 100 {
        let numbers = part * 100..(part + 1) * 100;
        let start = |number| Start { step: step(number), intent: Intent::Child(intent(number)) };
        let advance = Advance {
            executor: ExecutorId(Uuid::nil()),
            moves: Vec::new(),
            outcomes: Vec::new(),
            instant: Vec::new(),
            ready: Vec::new(),
            starts: numbers.map(start).collect(),
            end: None,
        };
        let commands = |_: &_, _| (RunCommand::Advance(advance.clone()), input.clone());
        let (repository, context) = (&platform.repository, platform.context());
        let written = repository.submit::<Run>(parent, &context, commands).await;
        written.expect("the run takes it");
    }
    for number in 0..WITHIN {
        let origin = Some(Origin { run: RunId(parent.id), step: step(number), depth: 1 });
        let create = CreateRun {
            privacy: Privacy::Any,
            graph: id,
            version: inner.version(),
            input: PayloadSlot(0),
            budget,
            request_hash: "test".into(),
            lineage: Lineage { origin, agent: None },
        };
        let child = StreamKey::run(tenant(), intent(number).child);
        let commands = |_: &_, _| (RunCommand::Create(create.clone()), input.clone());
        let (repository, context) = (&platform.repository, platform.context());
        repository.submit::<Run>(&child, &context, commands).await.expect("new");
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
    assert_eq!(end_of(&platform, &parent).await, Phase::Completed);
    platform.stop().await;
    let events = platform.events(&parent).await;
    let ends = events.iter().filter(|event| matches!(event, Event::ChildEnded(_))).count();
    assert_eq!(ends, WITHIN);
    platform.replay(&parent, &manifest).await.expect("no divergence");
    // None was left alone for a while because it could not tell of its end.
    errors.check_none();
}
