//! The run's decider: what follows from which command, in which state.

use crate::history::{
    History, advance, completed, create, failed, model_call, outcome, outcomes, start, starts, step,
};
use convergio_domain::billing::{Meter, Usage};
use convergio_domain::decider::{Decider, Wake};
use convergio_domain::id::ApprovalId;
use convergio_domain::payload::PayloadSlot;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{
    AdvanceRun, AnswerApproval, ApprovalState, Budget, CallReport, Run, RunCommand, RunOutcome,
    RunPhase, RunRejection, StepIntent, StepResult, StepStatus,
};
use convergio_domain::time::{Span, Timestamp};
use uuid::Uuid;

fn report(tokens: u64) -> CallReport {
    CallReport {
        fallback: None,
        retry_after: None,
        provider: "local".into(),
        model: "m".into(),
        finish: Some("stop".into()),
        duration_ms: 5,
        first_token_ms: None,
        usage: Some(Usage([(Meter::InFresh, tokens)].into())),
        confirmed: true,
        service_tier: None,
        charge: None,
        provider_cost: None,
    }
}

#[test]
fn the_same_request_creates_one_run_and_another_is_refused() {
    let mut run = History::created(Budget::default());
    let again = run.when(RunCommand::Create(create("request", Budget::default())));
    assert_eq!(again, Ok(Vec::new()));
    let other = run.when(RunCommand::Create(create("other", Budget::default())));
    assert_eq!(other, Err(RunRejection::IdempotencyMismatch));
}

#[test]
fn a_linear_step_costs_one_commit_that_also_starts_the_next() {
    let mut run = History::created(Budget::default());
    run.when(starts(&["a"])).unwrap();
    let types = run.types(RunCommand::Advance(AdvanceRun {
        outcomes: vec![outcome("a", 1, completed())],
        ready_steps: vec![step("b"), step("c")],
        starts: vec![start("b", StepIntent::Compute)],
        ..advance()
    }));
    let expected = ["run.step.completed.v1", "run.step.scheduled.v1", "run.step.started.v1"];
    assert_eq!(types, expected);
    assert_eq!(run.state.steps[&step("c")].status, StepStatus::Scheduled { due: None });
}

#[test]
fn an_output_refers_to_the_commit_that_carried_it() {
    let mut run = History::created(Budget::default());
    run.when(starts(&["a"])).unwrap();
    let before = run.state.seq;
    run.when(outcomes(vec![outcome("a", 1, completed())])).unwrap();
    let output = run.state.steps[&step("a")].output.unwrap();
    assert_eq!(output.seq, before.offset_by(1));
}

#[test]
fn a_completed_step_is_neither_started_nor_completed_again() {
    let mut run = History::created(Budget::default());
    run.when(starts(&["a"])).unwrap();
    run.when(outcomes(vec![outcome("a", 1, completed())])).unwrap();
    assert_eq!(run.when(starts(&["a"])), Err(RunRejection::NotScheduled(step("a"))));
    let again = run.when(outcomes(vec![outcome("a", 1, completed())]));
    assert_eq!(again, Err(RunRejection::NotUnderWay(step("a"))));
}

#[test]
fn a_failed_try_is_repeated_when_its_time_has_come() {
    let mut run = History::created(Budget::default());
    run.when(starts(&["a"])).unwrap();
    let types = run.types(outcomes(vec![outcome("a", 1, failed(Some(Timestamp(9_000))))]));
    assert_eq!(types, ["run.step.failed.v1", "run.step.retried.v1"]);
    assert_eq!(Run::next_wake(&run.state), Wake::At(Timestamp(9_000)));
    assert_eq!(run.when(starts(&["a"])), Err(RunRejection::NotScheduled(step("a"))));
    run.now = Timestamp(9_000);
    run.when(starts(&["a"])).unwrap();
    let late = run.when(outcomes(vec![outcome("a", 1, completed())]));
    assert_eq!(late, Err(RunRejection::StaleAttempt { step: step("a"), reported: 1, current: 2 }));
    run.when(outcomes(vec![outcome("a", 2, completed())])).unwrap();
    assert_eq!(run.state.steps[&step("a")].failures, 1);
}

#[test]
fn a_step_of_a_dead_executor_is_unknown_before_it_is_repeated() {
    let mut run = History::created(Budget::default());
    run.when(starts(&["a"])).unwrap();
    let result = StepResult::Unknown { retry_at: Some(run.now) };
    let types = run.types(outcomes(vec![outcome("a", 1, result)]));
    assert_eq!(types, ["run.step.unknown.v1", "run.step.retried.v1"]);
    assert_eq!(run.state.steps[&step("a")].failures, 0);
}

#[test]
fn a_model_call_is_intended_held_and_settled() {
    let mut run = History::created(Budget { tokens: Some(100), ..Budget::default() });
    let call =
        RunCommand::Advance(AdvanceRun { starts: vec![start("a", model_call(80))], ..advance() });
    assert_eq!(run.types(call), ["run.step.started.v1", "run.model_call.intended.v1"]);
    assert_eq!(run.state.spent.reserved_tokens, 80);
    let mut told = outcome("a", 1, completed());
    told.call = Some(report(30));
    let types = run.types(outcomes(vec![told]));
    let expected =
        ["run.model_call.completed.v1", "run.usage.recorded.v1", "run.step.completed.v1"];
    assert_eq!(types, expected);
    assert_eq!((run.state.spent.tokens, run.state.spent.reserved_tokens), (30, 0));
}

#[test]
fn a_call_that_could_break_the_budget_is_not_made() {
    let mut run = History::created(Budget { tokens: Some(100), ..Budget::default() });
    let both = vec![start("a", model_call(60)), start("b", model_call(60))];
    let types = run.types(RunCommand::Advance(AdvanceRun { starts: both, ..advance() }));
    let expected = [
        "run.step.started.v1",
        "run.model_call.intended.v1",
        "run.budget.exhausted.v1",
        "run.failed.v1",
    ];
    assert_eq!(types, expected);
    assert_eq!(run.state.error.as_ref().unwrap().code, "budget.exceeded");
    assert_eq!(Run::next_wake(&run.state), Wake::Now, "the call under way is still to be settled");
}

#[test]
fn what_a_call_cost_is_recorded_after_the_end_too() {
    let mut run = History::created(Budget::default());
    let call = AdvanceRun { starts: vec![start("a", model_call(80))], ..advance() };
    run.when(RunCommand::Advance(call)).unwrap();
    run.when(RunCommand::Cancel { reason: None }).unwrap();
    let mut told = outcome("a", 1, StepResult::Unknown { retry_at: None });
    told.call = Some(CallReport { finish: None, confirmed: false, ..report(20) });
    assert_eq!(run.types(outcomes(vec![told.clone()])), ["run.usage.recorded.v1"]);
    assert_eq!(run.when(outcomes(vec![told])), Err(RunRejection::Ended(RunPhase::Cancelled)));
    assert_eq!(Run::next_wake(&run.state), Wake::Done);
}

#[test]
fn a_run_ends_at_its_deadline() {
    let mut run =
        History::created(Budget { wall: Some(Span::from_seconds(1)), ..Budget::default() });
    run.when(starts(&["a"])).unwrap();
    run.now = run.state.earliest_deadline().unwrap();
    assert_eq!(run.types(RunCommand::Advance(advance())), ["run.failed.v1"]);
    assert_eq!(run.state.phase, RunPhase::Failed);
}

#[test]
fn the_end_carries_the_output() {
    let mut run = History::created(Budget::default());
    run.when(starts(&["a"])).unwrap();
    run.when(RunCommand::Advance(AdvanceRun {
        outcomes: vec![outcome("a", 1, completed())],
        end: Some(RunOutcome::Completed { output: Some(PayloadSlot(1)) }),
        ..advance()
    }))
    .unwrap();
    assert_eq!(run.state.phase, RunPhase::Completed);
    assert_eq!(run.state.output.unwrap().index, 1);
    let ended = Err(RunRejection::Ended(RunPhase::Completed));
    assert_eq!(run.when(RunCommand::Cancel { reason: None }), ended);
}

fn asked(run: &mut History) -> ApprovalId {
    let approval = ApprovalId(Uuid::from_u128(5));
    let ask = StepIntent::RequestApproval {
        approval,
        role: "teacher".into(),
        content: PayloadSlot(0),
        content_hash: "abc".into(),
        expires: Some(Timestamp(50_000)),
    };
    let command = AdvanceRun { starts: vec![start("ok", ask)], ..advance() };
    run.when(RunCommand::Advance(command)).expect("the sleep starts");
    approval
}

fn answer(approval: ApprovalId, hash: &str, granted: bool) -> RunCommand {
    answer_as(&["teacher"], approval, hash, granted)
}

fn answer_as(roles: &[&str], approval: ApprovalId, hash: &str, granted: bool) -> RunCommand {
    let (content_hash, reason) = (hash.into(), None);
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    RunCommand::Answer(AnswerApproval { approval, content_hash, granted, reason, roles })
}

#[test]
fn an_approval_is_answered_by_who_has_its_role_or_owns_everything() {
    for (roles, may) in [
        (&[][..], false),
        (&["student", "finance"], false),
        (&["student", "teacher"], true),
        (&["owner"], true),
    ] {
        let mut run = History::created(Budget::default());
        let id = asked(&mut run);
        let told = run.when(answer_as(roles, id, "abc", true));
        let refused = Err(RunRejection::NotInRole(id, "teacher".into()));
        assert!(if may { told.is_ok() } else { told == refused }, "{roles:?}: {told:?}");
        assert_eq!(run.state.approvals[&id].state == ApprovalState::Granted, may, "{roles:?}");
    }
}

#[test]
fn an_approval_is_bound_to_its_content_and_answered_once() {
    let mut run = History::created(Budget::default());
    let id = asked(&mut run);
    assert_eq!(run.when(answer(id, "other", true)), Err(RunRejection::ContentChanged(id)));
    assert_eq!(run.types(answer(id, "abc", true)), ["run.approval.granted.v1"]);
    assert_eq!(run.when(answer(id, "abc", true)), Ok(Vec::new()));
    assert_eq!(run.when(answer(id, "abc", false)), Err(RunRejection::AnsweredBefore(id)));
    assert_eq!(Run::next_wake(&run.state), Wake::Now);
}

#[test]
fn an_approval_lapses() {
    let mut run = History::created(Budget::default());
    let id = asked(&mut run);
    assert_eq!(Run::next_wake(&run.state), Wake::At(Timestamp(50_000)));
    run.now = Timestamp(50_000);
    assert_eq!(run.when(answer(id, "abc", true)), Err(RunRejection::ApprovalExpired(id)));
}

#[test]
fn a_sleep_fires_its_timer_once() {
    let mut run = History::created(Budget::default());
    let sleep = start("s", StepIntent::Sleep { due: Timestamp(3_000) });
    let command = AdvanceRun { starts: vec![sleep], ..advance() };
    run.when(RunCommand::Advance(command)).unwrap();
    assert_eq!(Run::next_wake(&run.state), Wake::At(Timestamp(3_000)));
    let over = StepResult::Completed { output: None, case: None };
    let types = run.types(outcomes(vec![outcome("s", 1, over)]));
    assert_eq!(types, ["run.timer.fired.v1", "run.step.completed.v1"]);
}

#[test]
fn a_branch_is_decided_without_an_intent() {
    let mut run = History::created(Budget::default());
    let mut chosen = outcome("b", 1, StepResult::Completed { output: None, case: Some(1) });
    chosen.skipped = vec!["other".parse().unwrap()];
    let command = AdvanceRun { instant_outcomes: vec![chosen], ..advance() };
    let types = run.types(RunCommand::Advance(command));
    assert_eq!(types, ["run.branch.decided.v1", "run.step.completed.v1"]);
    assert_eq!(run.state.steps[&step("other")].status, StepStatus::Skipped);
    assert!(matches!(run.events.last(), Some(RunEvent::StepCompleted(done)) if done.attempt == 1));
}

#[test]
fn a_step_is_told_of_once_in_a_commit() {
    let mut run = History::created(Budget::default());
    run.when(starts(&["a"])).unwrap();
    let twice = vec![outcome("a", 1, completed()), outcome("a", 1, completed())];
    assert_eq!(run.when(outcomes(twice)), Err(RunRejection::ReportedTwice(step("a"))));
    assert_eq!(run.when(starts(&["b", "b"])), Err(RunRejection::ReportedTwice(step("b"))));
}

#[test]
fn nothing_is_asked_of_a_run_that_does_not_exist() {
    let mut none = History::default();
    assert_eq!(none.when(starts(&["a"])), Err(RunRejection::NotFound));
    assert_eq!(none.when(RunCommand::Cancel { reason: None }), Err(RunRejection::NotFound));
}
