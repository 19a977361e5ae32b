//! Checks of a run's history after an engine crashed in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::event::Event;
use convergio_domain::id::StepId;
use convergio_domain::run::RunPhase;
use convergio_domain::run::event::RunEvent::{
    self, AgentSpawned, ApprovalDenied, ApprovalGranted, ApprovalRequested, BranchDecided,
    BudgetExhausted, CheckpointSaved, ChildCreated, ChildEnded, ChildIntended, ChildReopened,
    MapExpanded, ParentTold, RunAmended, RunCancelled, RunCompleted, RunCreated, RunFailed,
    RunForked, RunImported, RunMigrated, RunPaused, RunReopened, RunResumed, SignalAwaited,
    SignalReceived, StepAsked, StepResolved, StepRetried, StepScheduled, StepSkipped, TimerFired,
    TimerSet, ToolCallCompleted, ToolCallDenied, ToolCallFailed, ToolCallIntended, ToolCallQueued,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{LogWriter, Record, Repository, SystemClock};
use convergio_replay::{ReplaySource, replay_run};
use serde::Serialize;

use crate::crash_point::CrashPoint;
use crate::engine_run::{GraphUnderTest, calls_models};
use crate::model_proxy::ModelProxy;
use crate::test_run::CrashTestRun;

/// Maximum records of a run under test.
const RECORDS_LIMIT: usize = 1 << 20;

/// Result of the run without a crash, that all others are compared with.
pub(crate) struct ReferenceResult {
    phase: RunPhase,
    output: Option<Bytes>,
    /// Number of intents to call a model.
    pub(crate) model_calls: u64,
}

impl ReferenceResult {
    pub(crate) async fn from_log(
        log: &Arc<dyn LogWriter>,
        run: &StreamKey,
        commits: u64,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(commits > 0, "the run makes no commit");
        let repository = Repository::new(Arc::clone(log), Arc::new(SystemClock));
        let state = repository.load::<convergio_domain::run::Run>(run).await?.state;
        let output = match state.output {
            Some(output) => repository.read_payload(run, output).await?,
            None => None,
        };
        let mut history = EffectHistory::default();
        for record in &log.read_stream(run, Seq(0), RECORDS_LIMIT).await? {
            history.add_record(record);
        }
        Ok(Self { phase: state.phase, output, model_calls: history.intents })
    }
}

/// Violations, each with its crash point, and counts that are merely informative.
#[derive(Debug, Default, Serialize)]
pub struct CrashFindings {
    /// Effects repeated although their result was recorded, or without a record of the first
    /// attempt.
    pub repeated_effects: Vec<String>,
    /// Usage that is missing or recorded twice.
    pub usage: Vec<String>,
    /// Divergences of a replay.
    pub divergences: Vec<String>,
    /// Ends that differ from that of the run without a crash.
    pub outcomes: Vec<String>,
    /// Steps of unknown outcome that were repeated as their policy allows.
    pub unknown_steps: u64,
    /// Intents to call a model in all runs; `model_questions` counts the calls that reached one.
    pub model_calls: u64,
    /// Calls that reached a model.
    pub model_questions: u64,
}

impl CrashFindings {
    pub(crate) fn is_clean(&self) -> bool {
        let lists = [&self.repeated_effects, &self.usage, &self.divergences, &self.outcomes];
        lists.iter().all(|list| list.is_empty())
    }

    /// Checks one run by its log.
    pub(crate) async fn check_run(
        &mut self,
        test_run: &CrashTestRun,
        graph_under_test: &GraphUnderTest,
        reference: &ReferenceResult,
        point: CrashPoint,
    ) -> anyhow::Result<()> {
        let crash_point = format!("{:?} commit {}", point.moment, point.commit).to_lowercase();
        let records = test_run.log.read_stream(&test_run.run, Seq(0), RECORDS_LIMIT).await?;
        let mut history = EffectHistory::default();
        for record in &records {
            history.add_record(record);
        }
        history.finish_history();
        let with_crash_point =
            |found: Vec<String>| found.into_iter().map(|text| format!("{crash_point}: {text}"));
        self.repeated_effects.extend(with_crash_point(history.repeated));
        self.usage.extend(with_crash_point(history.usage));
        self.unknown_steps += history.unknown;
        self.model_calls += history.intents;
        self.check_call_count(graph_under_test, &crash_point);
        let repository = Repository::new(Arc::clone(&test_run.log), Arc::new(SystemClock));
        let replayed =
            replay_run(&ReplaySource::Log(&repository, &test_run.run), None, None).await?;
        let differs = replayed.divergence.map(|found| format!("{crash_point}: {found:?}"));
        self.divergences.extend(differs);
        let state = &replayed.replay.state;
        let output = match state.output {
            Some(output) => repository.read_payload(&test_run.run, output).await?,
            None => None,
        };
        // Answers of models differ from run to run, so that outputs are compared without models
        // only.
        let is_same = state.phase == reference.phase
            && (calls_models(&graph_under_test.graph) || output == reference.output);
        if !is_same {
            let (now, was) = (state.phase, reference.phase);
            let error = state.error.as_ref().map(ToString::to_string).unwrap_or_default();
            self.outcomes.push(format!("{crash_point}: {now:?} {error}, without a death {was:?}"));
        }
        Ok(())
    }

    /// Checks that every call that reached a model has its intent in a log.
    fn check_call_count(&mut self, graph_under_test: &GraphUnderTest, place: &str) {
        self.model_questions = graph_under_test.models.iter().map(ModelProxy::call_count).sum();
        let (asked, intents) = (self.model_questions, self.model_calls);
        if asked > intents {
            self.usage.push(format!("{place}: {asked} questions to models, {intents} intents"));
        }
    }
}

/// Key of a model call: step, attempt and turn.
type ModelCallKey = (StepId, u32, u32);

/// Effects and usage of a run's history.
#[derive(Default)]
struct EffectHistory {
    started: BTreeSet<(StepId, u32)>,
    /// Attempts of steps without a recorded outcome.
    open: BTreeMap<StepId, u32>,
    completed: BTreeSet<StepId>,
    /// Model calls without recorded usage.
    calls: BTreeSet<ModelCallKey>,
    intents: u64,
    unknown: u64,
    repeated: Vec<String>,
    usage: Vec<String>,
}

impl EffectHistory {
    fn add_record(&mut self, record: &Record) {
        let mut failed: Vec<ModelCallKey> = Vec::new();
        for event in &record.body.events {
            if let Event::Run(event) = event {
                self.add_event(event, &mut failed);
            }
        }
        // The usage of a failed call is in the same commit if there is any, so failures are settled
        // after all events of a record.
        for call in failed {
            self.calls.remove(&call);
        }
    }

    fn add_event(&mut self, event: &RunEvent, failed: &mut Vec<ModelCallKey>) {
        match event {
            RunEvent::StepStarted(event) => self.add_step_start(&event.step, event.attempt),
            RunEvent::StepCompleted(event) => {
                self.open.remove(&event.step);
                if !self.completed.insert(event.step.clone()) {
                    self.repeated.push(format!("{} completed twice", event.step));
                }
            }
            RunEvent::StepFailed(event) => drop(self.open.remove(&event.step)),
            RunEvent::StepUnknown(event) => {
                self.unknown += 1;
                self.open.remove(&event.step);
            }
            RunEvent::ModelCallIntended(event) => {
                self.intents += 1;
                if !self.calls.insert((event.step.clone(), event.attempt, event.turn)) {
                    self.usage.push(format!("the usage of a call of {} is lost", event.step));
                }
            }
            RunEvent::ModelCallFailed(event) => {
                failed.push((event.step.clone(), event.attempt, event.turn));
            }
            RunEvent::UsageRecorded(event) => {
                let (step, attempt) = (&event.step, event.attempt);
                let is_open = self.calls.remove(&(step.clone(), attempt, event.turn));
                let twice = || format!("the usage of {step}, try {attempt}, is there twice");
                self.usage.extend((!is_open).then(twice));
            }
            RunEvent::ToolIntended(_) | RunEvent::ModelCallCompleted(_) => {}
            RunCreated(_) | StepScheduled(_) | MapExpanded(_) | StepRetried(_)
            | BranchDecided(_) | TimerSet(_) | TimerFired(_) | ApprovalRequested(_)
            | ApprovalGranted(_) | ApprovalDenied(_) | ToolCallIntended(_) | ToolCallQueued(_)
            | ToolCallCompleted(_) | ToolCallFailed(_) | ToolCallDenied(_) | ChildIntended(_)
            | ChildCreated(_) | ChildEnded(_) | ChildReopened(_) | ParentTold(_)
            | AgentSpawned(_) | BudgetExhausted(_) | RunPaused(_) | RunResumed(_)
            | RunReopened(_) | RunAmended(_) | RunForked(_) | RunImported(_) | SignalAwaited(_)
            | SignalReceived(_) | StepAsked(_) | StepResolved(_) | StepSkipped(_)
            | CheckpointSaved(_) | RunMigrated(_) | RunCancelled(_) | RunCompleted(_)
            | RunFailed(_) => {}
        }
    }

    fn add_step_start(&mut self, step: &StepId, attempt: u32) {
        if self.completed.contains(step) {
            self.repeated.push(format!("{step} was done again after it was completed"));
        }
        if !self.started.insert((step.clone(), attempt)) {
            self.repeated.push(format!("try {attempt} of {step} was started twice"));
        }
        if self.open.insert(step.clone(), attempt).is_some() {
            self.repeated.push(format!("{step} was done again, and nothing says so"));
        }
    }

    fn finish_history(&mut self) {
        for (step, attempt, _) in &self.calls {
            self.usage.push(format!("the usage of {step}, try {attempt}, is lost"));
        }
    }
}
