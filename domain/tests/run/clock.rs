//! What time counts against a run's budget, and what an amendment gives it.

use crate::history::{History, advance, completed, outcome, outcomes, start, starts, step};
use convergio_domain::decider::{Decider, Wake};
use convergio_domain::id::{ApprovalId, GraphVersion};
use convergio_domain::payload::PayloadSlot;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{
    AdvanceRun, AmendRun, AnswerApproval, Budget, NewLimits, Run, RunCommand, RunOutcome, RunPhase,
    RunRejection, StepIntent, StepStatus,
};
use convergio_domain::time::{Span, Timestamp};
use uuid::Uuid;

const APPROVAL: ApprovalId = ApprovalId(Uuid::from_u128(5));

fn limited(wall: u64) -> History {
    History::created(Budget { wall: Some(Span::from_seconds(wall)), ..Budget::default() })
}

fn asking(run: &mut History, ttl: Option<Span>) {
    let ask = StepIntent::RequestApproval {
        approval: APPROVAL,
        role: "owner".into(),
        content: PayloadSlot(0),
        content_hash: "abc".into(),
        expires: ttl.map(|ttl| run.now.add_span(ttl)),
    };
    let starts = vec![start("ok", ask)];
    run.when(RunCommand::Advance(AdvanceRun { starts, ..advance() })).expect("it asks");
}

fn answer() -> RunCommand {
    RunCommand::Answer(AnswerApproval {
        approval: APPROVAL,
        content_hash: "abc".into(),
        granted: true,
        reason: None,
        roles: vec!["owner".into()],
    })
}

fn pass(run: &mut History, seconds: u64) {
    run.now = run.now.add_span(Span::from_seconds(seconds));
}

fn amend(limits: NewLimits) -> RunCommand {
    RunCommand::Amend(AmendRun { limits, version: None, steps: Vec::new(), reason: None })
}

#[test]
fn time_in_which_all_of_a_run_waits_does_not_count() {
    let mut run = limited(10);
    asking(&mut run, None);
    assert_eq!(run.state.earliest_deadline(), None, "it waits for a person");
    assert_eq!(Run::next_wake(&run.state), Wake::Parked);
    pass(&mut run, 3_600);
    run.when(answer()).expect("it is open");
    pass(&mut run, 60);
    run.when(outcomes(vec![outcome("ok", 1, completed())])).expect("it was asked");
    run.when(starts(&["a"])).expect("it goes on");
    assert_eq!(run.state.earliest_deadline(), Some(run.now.add_span(Span::from_seconds(10))));
    pass(&mut run, 10);
    assert_eq!(run.types(RunCommand::Advance(advance())), ["run.failed.v1"]);
}

#[test]
fn a_wait_beside_work_counts() {
    let mut run = limited(10);
    run.when(starts(&["a"])).expect("it starts");
    asking(&mut run, None);
    pass(&mut run, 10);
    assert_eq!(run.types(RunCommand::Advance(advance())), ["run.failed.v1"]);
    let error = run.state.error.expect("it failed");
    assert!(error.message.contains("budget.wall"), "{}", error.message);
}

#[test]
fn a_back_off_counts() {
    let mut run = limited(10);
    run.when(starts(&["a"])).expect("it starts");
    let later = run.now.add_span(Span::from_seconds(60));
    let failed = crate::history::failed(Some(later));
    run.when(outcomes(vec![outcome("a", 1, failed)])).expect("it fails");
    assert_eq!(run.state.earliest_deadline(), Some(Timestamp(11_000)));
}

#[test]
fn a_deadline_counts_whatever_happens() {
    let budget = Budget { deadline: Some(Span::from_seconds(60)), ..Budget::default() };
    let mut run = History::created(budget);
    asking(&mut run, None);
    assert_eq!(Run::next_wake(&run.state), Wake::At(Timestamp(61_000)));
    pass(&mut run, 60);
    assert_eq!(run.types(RunCommand::Advance(advance())), ["run.failed.v1"]);
    let error = run.state.error.expect("it failed");
    assert_eq!(error.code, "budget.exceeded");
    assert!(error.message.contains("budget.deadline"), "{}", error.message);
}

#[test]
fn questions_and_sleeps_stand_still_with_a_paused_run() {
    let mut run = History::created(Budget::default());
    asking(&mut run, Some(Span::from_seconds(5)));
    let due = run.now.add_span(Span::from_seconds(7));
    let sleep = start("nap", StepIntent::Sleep { due });
    run.when(RunCommand::Advance(AdvanceRun { starts: vec![sleep], ..advance() }))
        .expect("it sleeps");
    pass(&mut run, 2);
    run.when(RunCommand::Pause { reason: None }).expect("it runs");
    pass(&mut run, 100);
    let mut meanwhile = run.clone();
    assert_eq!(meanwhile.types(answer()), ["run.approval.granted.v1"], "its time stands still");
    run.when(RunCommand::Resume).expect("it is paused");
    let by = Span::from_seconds(100);
    assert_eq!(
        run.state.steps[&step("nap")].status,
        StepStatus::Sleeping { due: due.add_span(by) }
    );
    pass(&mut run, 2);
    assert_eq!(run.types(answer()), ["run.approval.granted.v1"], "a second is left of its ttl");
    let mut late = meanwhile.clone();
    late.when(RunCommand::Resume).expect("it is paused");
    assert_eq!(late.when(answer()), Ok(Vec::new()), "the same answer again");
}

#[test]
fn a_resumption_of_before_moves_nothing() {
    let mut run = History::created(Budget::default());
    asking(&mut run, Some(Span::from_seconds(5)));
    run.when(RunCommand::Pause { reason: None }).expect("it runs");
    pass(&mut run, 2);
    let before = run.state.approvals.clone();
    let resumed = RunEvent::RunResumed(Default::default());
    let recorded = convergio_domain::decider::RecordedEvent {
        seq: run.state.seq.offset_by(1),
        time: run.now,
        event: &resumed,
    };
    Run::evolve(&mut run.state, recorded);
    assert_eq!((run.state.paused, &run.state.approvals), (false, &before));
}

fn out_of_time() -> History {
    let mut run = limited(3);
    run.when(starts(&["a"])).expect("it starts");
    pass(&mut run, 3);
    run.when(RunCommand::Advance(advance())).expect("it ends");
    pass(&mut run, 1_000);
    run
}

#[test]
fn a_run_that_used_up_its_time_gets_it_anew_by_a_retry() {
    let mut run = out_of_time();
    assert_eq!(run.types(RunCommand::Retry { steps: Vec::new() }), ["run.reopened.v1"]);
    assert_eq!(run.state.earliest_deadline(), Some(run.now.add_span(Span::from_seconds(3))));
    assert!(matches!(run.state.steps[&step("a")].status, StepStatus::Started { .. }));
}

#[test]
fn a_run_that_used_up_its_time_goes_on_with_more() {
    let mut run = out_of_time();
    let wall =
        |seconds| NewLimits { wall: Some(Span::from_seconds(seconds)), ..NewLimits::default() };
    let too_little = run.when(amend(wall(2)));
    assert!(matches!(too_little, Err(RunRejection::LimitUsedUp { limit: "budget.wall", .. })));
    assert_eq!(run.when(amend(NewLimits::default())), Err(RunRejection::NothingAmended));
    assert_eq!(run.types(amend(wall(13))), ["run.reopened.v1", "run.amended.v1"]);
    assert_eq!(run.state.earliest_deadline(), Some(run.now.add_span(Span::from_seconds(10))));
}

#[test]
fn a_run_that_failed_by_its_output_is_mended_by_another_graph_and_not_by_a_retry() {
    let mut run = History::created(Budget::default());
    run.when(starts(&["a"])).expect("it starts");
    let message = convergio_domain::platform_text!("no such field");
    let error = convergio_domain::failure::FailureReport::new("template.invalid", message);
    let end = Some(RunOutcome::Failed { step: None, error });
    let outcomes = vec![outcome("a", 1, completed())];
    run.when(RunCommand::Advance(AdvanceRun { outcomes, end, ..advance() })).expect("it ends");
    let refused = run.when(RunCommand::Retry { steps: Vec::new() }).expect_err("nothing to retry");
    assert!(refused.to_string().contains("runs amend"), "{refused}");
    assert_eq!(convergio_domain::run::check_fork_point(&run.state), Ok(()), "all is done there");
    let version = Some(GraphVersion::from_manifest(b"corrected"));
    let command = AmendRun { limits: NewLimits::default(), version, steps: vec![], reason: None };
    let types = run.types(RunCommand::Amend(command));
    assert_eq!(types, ["run.reopened.v1", "run.migrated.v1"]);
    assert_eq!(run.state.steps[&step("a")].status, StepStatus::Completed);
    assert_eq!((run.state.phase, &run.state.error), (RunPhase::Running, &None));
}

#[test]
fn a_run_under_way_gets_another_budget_without_an_end() {
    let mut run = History::created(Budget { tokens: Some(100), ..Budget::default() });
    run.when(starts(&["a"])).expect("it starts");
    let limits = NewLimits { tokens: Some(500), ..NewLimits::default() };
    assert_eq!(run.types(amend(limits)), ["run.amended.v1"]);
    assert_eq!(run.when(amend(limits)), Ok(Vec::new()), "twice changes nothing");
    assert_eq!(run.state.budget.tokens, Some(500));
    run.when(RunCommand::Cancel { reason: None }).expect("it runs");
    assert_eq!(run.when(amend(limits)), Err(RunRejection::Ended(RunPhase::Cancelled)));
}
