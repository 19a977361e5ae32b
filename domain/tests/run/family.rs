//! Runs within runs that are paused, cancelled and repaired together.

use crate::history::{History, advance, failed, outcome, outcomes, start, starts, step};
use convergio_domain::decider::{Decider, Wake};
use convergio_domain::failure::FailureReport;
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::money::Money;
use convergio_domain::payload::PayloadSlot;
use convergio_domain::platform_text;
use convergio_domain::run::{
    AdvanceRun, Budget, ChildIntent, ChildReopening, ChildReport, FamilyCommand, ReopenRun, Run,
    RunCommand, RunOutcome, RunPhase, RunRejection, StepIntent, StepStatus,
};
use convergio_domain::time::Span;
use uuid::Uuid;

const CHILD: RunId = RunId(Uuid::from_u128(9));

fn failure(code: &'static str) -> FailureReport {
    FailureReport::new(code, platform_text!("no"))
}

/// A run whose step `sub` waits for a run within it, besides a step of its own.
fn parent() -> History {
    let mut run = History::created(Budget { tokens: Some(1_000), ..Budget::default() });
    let child = StepIntent::CreateChild(ChildIntent {
        tool_call: None,
        child: CHILD,
        graph: GraphId(Uuid::from_u128(1)),
        version: GraphVersion::from_manifest(b"{}"),
        input: PayloadSlot(0),
        manifest: None,
        budget: Budget { tokens: Some(400), ..Budget::UNBOUND },
        privacy: Default::default(),
        agent: None,
    });
    let starts = vec![start("a", StepIntent::Compute), start("sub", child)];
    run.when(RunCommand::Advance(AdvanceRun { starts, ..advance() })).expect("they start");
    run
}

fn report(tokens: u64, reopenings: u32, error: Option<&'static str>) -> ChildReport {
    ChildReport {
        child: CHILD,
        error: error.map(failure),
        output: error.is_none().then_some(PayloadSlot(0)),
        tokens,
        cost: Money::ZERO,
        reopenings,
        active_ms: Some(0),
        inherited: false,
    }
}

fn ended(report: ChildReport) -> RunCommand {
    RunCommand::ChildEnded(report)
}

fn fail_by(run: &mut History, id: &str) {
    let end = Some(RunOutcome::Failed { step: Some(step(id)), error: failure("tool.failed") });
    let outcomes = vec![outcome(id, 1, failed(None))];
    run.when(RunCommand::Advance(AdvanceRun { outcomes, end, ..advance() })).expect("it fails");
}

fn retry(ids: &[&str]) -> RunCommand {
    RunCommand::Retry { steps: ids.iter().map(|id| step(id)).collect() }
}

#[test]
fn what_a_failure_cancelled_goes_on_with_the_run() {
    let mut run = parent();
    fail_by(&mut run, "a");
    run.when(ended(ChildReport { inherited: true, ..report(100, 0, Some("run.cancelled")) }))
        .expect("it was within");
    assert_eq!((run.state.spent.tokens, run.state.spent.reserved_tokens), (100, 0));
    let types = run.types(retry(&["a"]));
    assert_eq!(types, ["run.reopened.v1", "run.child.reopened.v1"]);
    let child = &run.state.children[&CHILD];
    assert_eq!((child.ended.is_none(), child.reopenings), (true, 1));
    assert_eq!(run.state.spent.reserved_tokens, 300, "what it may use beyond what is counted");
    assert!(run.state.steps[&step("sub")].is_parked());
    run.when(ended(report(150, 1, None))).expect("it is within");
    assert_eq!((run.state.spent.tokens, run.state.spent.reserved_tokens), (150, 0), "counted once");
}

#[test]
fn a_run_that_somebody_cancelled_stays_cancelled_and_its_step_begins_anew() {
    let mut run = parent();
    fail_by(&mut run, "a");
    run.when(ended(report(0, 0, Some("run.cancelled")))).expect("it was within");
    assert_eq!(run.types(retry(&["a"])), ["run.reopened.v1"]);
    assert_eq!(run.state.steps[&step("sub")].status, StepStatus::Scheduled { due: None });
}

#[test]
fn a_cancellation_that_is_heard_after_the_run_went_on_is_taken_back() {
    let mut run = parent();
    fail_by(&mut run, "a");
    run.when(retry(&["a"])).expect("it failed");
    let late = ChildReport { inherited: true, ..report(50, 0, Some("run.cancelled")) };
    let types = run.types(ended(late.clone()));
    assert_eq!(types, ["run.child.ended.v1", "run.child.reopened.v1"]);
    assert_eq!(run.when(ended(late)), Ok(Vec::new()), "told twice changes nothing");
    assert!(run.state.children[&CHILD].ended.is_none());
}

#[test]
fn a_run_within_that_was_repaired_by_itself_is_heard_and_counted_once() {
    let mut run = parent();
    run.when(ended(report(100, 0, Some("tool.failed")))).expect("it is within");
    fail_by(&mut run, "sub");
    assert_eq!(run.when(ended(report(100, 0, Some("tool.failed")))), Ok(Vec::new()));
    let types = run.types(ended(report(130, 1, None)));
    assert_eq!(types, ["run.child.ended.v1", "run.reopened.v1"], "it failed by that failure");
    assert_eq!(run.state.steps[&step("sub")].status, StepStatus::Scheduled { due: None });
    assert_eq!(run.when(ended(report(130, 1, None))), Ok(Vec::new()));
    assert_eq!((run.state.spent.tokens, run.state.spent.reserved_tokens), (130, 0));
    assert_eq!(run.state.children[&CHILD].ended.as_ref().map(|end| &end.error), Some(&None));
}

#[test]
fn a_run_that_failed_by_another_step_only_notes_what_was_repaired_within_it() {
    let mut run = parent();
    run.when(ended(report(100, 0, Some("tool.failed")))).expect("it is within");
    run.when(outcomes(vec![outcome("sub", 1, failed(None))])).expect("it fails");
    fail_by(&mut run, "a");
    assert_eq!(run.types(ended(report(130, 1, None))), ["run.child.ended.v1"]);
    assert_eq!((run.state.phase, run.state.spent.tokens), (RunPhase::Failed, 130));
}

#[test]
fn a_further_try_holds_what_the_run_within_may_use_beyond_what_it_did() {
    let mut run = parent();
    run.when(ended(report(100, 0, Some("tool.failed")))).expect("it is within");
    fail_by(&mut run, "sub");
    run.when(retry(&["sub"])).expect("it failed");
    let budget = Budget { tokens: Some(350), ..Budget::UNBOUND };
    let reopening = ChildReopening { child: CHILD, version: None, budget };
    let starts = vec![start("sub", StepIntent::ReopenChild(reopening))];
    let types = run.types(RunCommand::Advance(AdvanceRun { starts, ..advance() }));
    assert_eq!(types, ["run.step.started.v1", "run.child.reopened.v1"]);
    assert_eq!((run.state.spent.tokens, run.state.spent.reserved_tokens), (100, 250));
    assert_eq!(run.state.steps[&step("sub")].attempt, 2);
    let stale = run.when(ended(report(100, 0, Some("tool.failed"))));
    assert_eq!(stale, Ok(Vec::new()), "the end of before is not the one that is waited for");
}

fn reopen(reopenings: u32) -> RunCommand {
    RunCommand::Reopen(ReopenRun {
        reopenings,
        steps: Vec::new(),
        budget: Budget::default(),
        version: GraphVersion::from_manifest(b"{}"),
    })
}

#[test]
fn only_a_cancellation_from_above_is_taken_back_from_above() {
    let mut run = History::created(Budget::default());
    run.when(starts(&["a"])).expect("it starts");
    run.when(RunCommand::Inherit(FamilyCommand::Cancel)).expect("it runs");
    assert_eq!(run.state.phase, RunPhase::Cancelled);
    assert_eq!(run.types(reopen(1)), ["run.reopened.v1"]);
    assert_eq!(run.when(reopen(1)), Ok(Vec::new()), "it went on already");
    assert_eq!((run.state.phase, run.state.reopenings), (RunPhase::Running, 1));
    run.when(RunCommand::Cancel { reason: None }).expect("it runs");
    assert_eq!(run.when(reopen(2)), Err(RunRejection::Ended(RunPhase::Cancelled)));
    assert_eq!(run.when(RunCommand::Inherit(FamilyCommand::Pause)), Ok(Vec::new()));
}

#[test]
fn a_run_that_two_paused_goes_on_when_both_let_it() {
    let mut run =
        History::created(Budget { wall: Some(Span::from_seconds(10)), ..Budget::default() });
    run.when(starts(&["a"])).expect("it starts");
    let (pause, resume) = (RunCommand::Pause { reason: None }, RunCommand::Resume);
    let above = |command| RunCommand::Inherit(command);
    assert_eq!(run.types(above(FamilyCommand::Pause)), ["run.paused.v1"]);
    assert_eq!(run.when(resume.clone()), Err(RunRejection::ParentPaused));
    assert_eq!(run.types(pause), ["run.paused.v1"]);
    run.now = run.now.add_span(Span::from_seconds(100));
    assert_eq!(run.types(above(FamilyCommand::Resume)), ["run.resumed.v1"]);
    assert!(run.state.paused, "somebody paused it besides");
    assert_eq!(run.when(above(FamilyCommand::Resume)), Ok(Vec::new()));
    run.now = run.now.add_span(Span::from_seconds(100));
    assert_eq!(run.types(resume), ["run.resumed.v1"]);
    assert_eq!(run.state.earliest_deadline(), Some(run.now.add_span(Span::from_seconds(10))));
}

#[test]
fn a_run_that_goes_on_looks_after_those_within_it() {
    let mut run = parent();
    run.when(RunCommand::ChildrenCreated(vec![CHILD])).expect("it exists");
    run.when(outcomes(vec![outcome("a", 1, crate::history::completed())])).expect("it ends");
    run.when(RunCommand::Pause { reason: None }).expect("it runs");
    assert_eq!(Run::next_wake(&run.state), Wake::Parked);
    run.when(RunCommand::Resume).expect("it is paused");
    assert_eq!(Run::next_wake(&run.state), Wake::At(run.now));
}

#[test]
fn a_run_that_waits_for_one_within_is_charged_what_that_one_worked() {
    let mut run = parent();
    run.state.budget.wall = Some(Span::from_seconds(100));
    run.when(outcomes(vec![outcome("a", 1, crate::history::completed())])).expect("it ends");
    assert_eq!(run.state.earliest_deadline(), None, "it only waits");
    run.now = run.now.add_span(Span::from_seconds(50));
    let worked = ChildReport { active_ms: Some(20_000), ..report(0, 0, None) };
    run.when(ended(worked)).expect("it is within");
    assert_eq!(run.state.active_time(run.now), Span::from_seconds(20));
}
