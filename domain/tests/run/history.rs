//! given / when / then for the run's decider, and values that the tests share.

use convergio_domain::chat::Privacy;
use convergio_domain::decider::{Decider, DecisionContext, RecordedEvent};
use convergio_domain::failure::FailureReport;
use convergio_domain::id::{ExecutorId, GraphId, GraphVersion, StepId};
use convergio_domain::payload::PayloadSlot;
use convergio_domain::platform_text;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{
    AdvanceRun, Budget, CreateRun, Provenance, Run, RunCommand, RunRejection, RunState, StepIntent,
    StepOutcome, StepResult, StepStart,
};
use convergio_domain::time::Timestamp;
use uuid::Uuid;

/// The executor of all tests.
pub(crate) const EXECUTOR: ExecutorId = ExecutorId(Uuid::from_u128(7));

/// A run whose history is what the commands before made of it.
#[derive(Default, Clone)]
pub(crate) struct History {
    pub(crate) state: RunState,
    pub(crate) events: Vec<RunEvent>,
    pub(crate) now: Timestamp,
}

impl History {
    /// A run that was created with a budget.
    pub(crate) fn created(budget: Budget) -> Self {
        let mut history = Self { now: Timestamp(1_000), ..Self::default() };
        history
            .when(RunCommand::Create(create("request", budget)))
            .expect("the test's own values are right");
        history
    }

    /// Decides and folds; gives the new events.
    pub(crate) fn when(&mut self, command: RunCommand) -> Result<Vec<RunEvent>, RunRejection> {
        let context = DecisionContext {
            now: self.now,
            actor: "tester".parse().expect("the test's own values are right"),
        };
        let next = self.state.seq.offset_by(1);
        let events = Run::decide(&self.state, command, &context, next)?;
        for event in &events {
            let seq = self.state.seq.offset_by(1);
            Run::evolve(&mut self.state, RecordedEvent { seq, time: self.now, event });
        }
        self.events.extend(events.iter().cloned());
        Ok(events)
    }

    /// The written types of what a command led to.
    pub(crate) fn types(&mut self, command: RunCommand) -> Vec<&'static str> {
        self.when(command)
            .expect("the test's own values are right")
            .iter()
            .map(RunEvent::type_name)
            .collect()
    }
}

pub(crate) fn create(request: &str, budget: Budget) -> CreateRun {
    CreateRun {
        privacy: Privacy::Any,
        graph: GraphId(Uuid::from_u128(1)),
        version: GraphVersion::from_manifest(b"{}"),
        input: PayloadSlot(0),
        budget,
        request_hash: request.into(),
        provenance: Provenance::default(),
    }
}

pub(crate) fn step(text: &str) -> StepId {
    text.parse().expect("the test's own values are right")
}

/// An empty advance.
pub(crate) fn advance() -> AdvanceRun {
    AdvanceRun {
        executor: EXECUTOR,
        turn_updates: Vec::new(),
        outcomes: Vec::new(),
        instant_outcomes: Vec::new(),
        ready_steps: Vec::new(),
        starts: Vec::new(),
        end: None,
    }
}

pub(crate) fn start(id: &str, intent: StepIntent) -> StepStart {
    StepStart { step: step(id), intent }
}

/// Starts pure steps.
pub(crate) fn starts(ids: &[&str]) -> RunCommand {
    let starts = ids.iter().map(|id| start(id, StepIntent::Compute)).collect();
    RunCommand::Advance(AdvanceRun { starts, ..advance() })
}

pub(crate) fn outcome(id: &str, attempt: u32, result: StepResult) -> StepOutcome {
    StepOutcome { step: step(id), attempt, result, call: None, skipped: Vec::new() }
}

pub(crate) fn completed() -> StepResult {
    StepResult::Completed { output: Some(PayloadSlot(0)), case: None }
}

pub(crate) fn failed(retry_at: Option<Timestamp>) -> StepResult {
    let error = FailureReport {
        retryable: true,
        ..FailureReport::new("tool.failed", platform_text!("no"))
    };
    StepResult::Failed { error, retry_at }
}

/// Reports outcomes.
pub(crate) fn outcomes(outcomes: Vec<StepOutcome>) -> RunCommand {
    RunCommand::Advance(AdvanceRun { outcomes, ..advance() })
}

pub(crate) fn model_call(tokens: u64) -> StepIntent {
    StepIntent::CallModel {
        key: None,
        left_out: Vec::new(),
        turn: 0,
        provider: "local".into(),
        model: "m".into(),
        route: "cheapest".into(),
        routing: None,
        prompt: PayloadSlot(0),
        reserved_tokens: tokens,
        reserved_cost: None,
        estimated_tokens: None,
        estimated_meter: None,
        output_limit: None,
        idempotency_key: None,
    }
}
