//! What people decide about a run from outside: pause, retry, signals, decisions, forks.

use crate::history::{
    History, advance, completed, failed, model_call, outcome, outcomes, start, starts, step,
};
use convergio_domain::decider::{Decider, Fingerprint, RecordedEvent, Wake};
use convergio_domain::failure::FailureReport;
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::payload::{PayloadRef, PayloadSlot};
use convergio_domain::platform_text;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{
    AdvanceRun, Budget, CommandReason, ForkRun, Resolution, ResolveStep, Run, RunCommand,
    RunOutcome, RunPhase, RunRejection, RunState, SendSignal, StepIntent, StepResult, StepStatus,
    check_fork_point, lineage,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::{Span, Timestamp};
use uuid::Uuid;

fn failure() -> FailureReport {
    FailureReport::new("tool.failed", platform_text!("no"))
}

fn begun(ids: &[&str]) -> History {
    let mut run = History::created(Budget::default());
    run.when(starts(ids)).expect("they start");
    run
}

fn pause() -> RunCommand {
    RunCommand::Pause { reason: None }
}

#[test]
fn a_paused_run_records_outcomes_and_starts_nothing() {
    let mut run = begun(&["a"]);
    assert_eq!(run.types(pause()), ["run.paused.v1"]);
    assert_eq!(run.when(pause()), Ok(Vec::new()), "twice changes nothing");
    assert_eq!(Run::next_wake(&run.state), Wake::Parked, "it costs nothing while it is paused");
    let both = AdvanceRun {
        outcomes: vec![outcome("a", 1, completed())],
        ready_steps: vec![step("b")],
        ..advance()
    };
    let starting = AdvanceRun { starts: vec![start("b", StepIntent::Compute)], ..both.clone() };
    assert_eq!(run.when(RunCommand::Advance(starting)), Err(RunRejection::Paused));
    let types = run.types(RunCommand::Advance(both));
    assert_eq!(types, ["run.step.completed.v1", "run.step.scheduled.v1"]);
    assert_eq!(run.types(RunCommand::Resume), ["run.resumed.v1"]);
    assert_eq!(run.when(RunCommand::Resume), Ok(Vec::new()));
    assert_eq!(Run::next_wake(&run.state), Wake::Now);
}

#[test]
fn the_time_of_a_pause_does_not_count_against_the_budget() {
    let mut run =
        History::created(Budget { wall: Some(Span::from_seconds(10)), ..Budget::default() });
    run.when(starts(&["a"])).expect("it starts");
    run.when(pause()).expect("it runs");
    assert_eq!(run.state.earliest_deadline(), None);
    run.now = Timestamp(61_000);
    run.when(RunCommand::Resume).expect("it is paused");
    assert_eq!(run.state.earliest_deadline(), Some(Timestamp(71_000)));
}

#[test]
fn an_ended_run_is_neither_paused_nor_resumed() {
    let mut run = begun(&["a"]);
    let end = Some(RunOutcome::Completed { output: None });
    run.when(RunCommand::Advance(AdvanceRun { end, ..advance() })).expect("it ends");
    let before = run.state.clone();
    assert_eq!(run.when(pause()), Err(RunRejection::Ended(RunPhase::Completed)));
    let refused = run.when(RunCommand::Resume).expect_err("it has ended");
    assert_eq!(refused, RunRejection::NotResumable(RunPhase::Completed));
    assert!(refused.to_string().contains("fork"), "{refused}");
    assert_eq!(
        check_fork_point(&run.state),
        Err(RunRejection::NotForkable(RunPhase::Completed, Seq(3)))
    );
    assert_eq!(run.state, before, "nothing was changed");
}

fn failed_run() -> History {
    let mut run = begun(&["a", "m", "m[0]"]);
    run.when(outcomes(vec![outcome("a", 1, completed())])).expect("it is under way");
    let end = Some(RunOutcome::Failed { step: Some(step("m[0]")), error: failure() });
    let outcomes = vec![outcome("m[0]", 1, failed(None)), outcome("m", 1, failed(None))];
    run.when(RunCommand::Advance(AdvanceRun { outcomes, end, ..advance() })).expect("it fails");
    run
}

#[test]
fn a_failed_run_goes_on_from_its_failed_steps_and_repeats_no_other() {
    let mut run = failed_run();
    let retry = |ids: &[&str]| RunCommand::Retry { steps: ids.iter().map(|id| step(id)).collect() };
    assert_eq!(run.when(retry(&["a"])), Err(RunRejection::HasNotFailed(step("a"))));
    assert_eq!(run.when(retry(&[])), Err(RunRejection::NothingToRetry));
    run.now = Timestamp(100_000);
    assert_eq!(run.types(retry(&["m[0]", "m"])), ["run.reopened.v1"]);
    assert_eq!((run.state.phase, &run.state.error), (RunPhase::Running, &None));
    assert_eq!(run.state.steps[&step("m[0]")].status, StepStatus::Scheduled { due: None });
    assert_eq!(run.state.steps[&step("a")].status, StepStatus::Completed);
    let again = run.when(starts(&["a"]));
    assert_eq!(again, Err(RunRejection::NotScheduled(step("a"))), "what is done is done");
    run.when(starts(&["m[0]"])).expect("it is scheduled");
    assert_eq!(run.state.steps[&step("m[0]")].attempt, 2);
    assert_eq!(run.when(retry(&["m"])), Err(RunRejection::NotFailed(RunPhase::Running)));
}

#[test]
fn a_map_that_failed_by_an_item_is_open_again_with_it() {
    let mut run = History::created(Budget::default());
    let expand = start("m", StepIntent::ExpandMap { width: 2, max_parallel: 1 });
    let begin = AdvanceRun { starts: vec![expand], ready_steps: vec![step("m[0]")], ..advance() };
    run.when(RunCommand::Advance(begin)).expect("it expands");
    run.when(starts(&["m[0]"])).expect("its item starts");
    let end = Some(RunOutcome::Failed { step: Some(step("m[0]")), error: failure() });
    let outcomes = vec![outcome("m[0]", 1, failed(None)), outcome("m", 1, failed(None))];
    run.when(RunCommand::Advance(AdvanceRun { outcomes, end, ..advance() })).expect("it fails");
    let steps = vec![step("m[0]"), step("m")];
    run.when(RunCommand::Retry { steps }).expect("it failed");
    assert_eq!(run.state.steps[&step("m")].status, StepStatus::Expanded);
    assert_eq!(Run::next_wake(&run.state), Wake::Now);
}

fn signal(id: u128, name: &str) -> RunCommand {
    let signal = name.parse().expect("a name");
    let payload = PayloadSlot(0);
    RunCommand::Signal(SendSignal { id: Uuid::from_u128(id), name: signal, payload })
}

fn awaiting(id: &str, name: &str) -> RunCommand {
    let signal = name.parse().expect("a name");
    let wait = StepIntent::AwaitSignal { signal, expires: Some(Timestamp(9_000)) };
    RunCommand::Advance(AdvanceRun { starts: vec![start(id, wait)], ..advance() })
}

fn received(run: &History, id: &str) -> Option<PayloadRef> {
    match run.state.steps[&step(id)].status {
        StepStatus::Awaiting { received, .. } => received,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_signal_goes_to_the_first_step_that_waits_or_is_kept_for_the_next() {
    let mut run = History::created(Budget::default());
    run.when(awaiting("b", "paid")).expect("it waits");
    assert_eq!(Run::next_wake(&run.state), Wake::At(Timestamp(9_000)));
    assert_eq!(run.types(signal(1, "paid")), ["run.signal.received.v1"]);
    assert_eq!(run.when(signal(1, "paid")), Ok(Vec::new()), "the same one counts once");
    assert_eq!(received(&run, "b"), Some(PayloadRef { seq: Seq(4), index: 0 }));
    assert_eq!(Run::next_wake(&run.state), Wake::Now);
    run.when(signal(2, "paid")).expect("kept");
    run.when(signal(3, "paid")).expect("kept");
    run.when(awaiting("c", "paid")).expect("it waits");
    assert_eq!(received(&run, "c"), Some(PayloadRef { seq: Seq(5), index: 0 }), "the oldest");
    run.when(awaiting("d", "shipped")).expect("it waits");
    assert_eq!(received(&run, "d"), None, "another name");
    run.when(RunCommand::Cancel { reason: None }).expect("it runs");
    assert_eq!(run.when(signal(9, "paid")), Err(RunRejection::Ended(RunPhase::Cancelled)));
}

fn resolve(id: &str, resolution: Resolution, output: Option<PayloadSlot>) -> RunCommand {
    RunCommand::Resolve(ResolveStep { step: step(id), resolution, output, reason: None })
}

#[test]
fn a_step_of_unknown_outcome_waits_for_a_decision() {
    let mut run = History::created(Budget::default());
    let call = AdvanceRun { starts: vec![start("a", model_call(50))], ..advance() };
    run.when(RunCommand::Advance(call)).expect("it starts");
    let types = run.types(outcomes(vec![outcome("a", 1, StepResult::UnknownAsking)]));
    assert_eq!(types, ["run.step.unknown.v1", "run.step.asked.v1"]);
    let skip = run.when(resolve("a", Resolution::Skip, None));
    assert!(matches!(skip, Err(RunRejection::NoSuchDecision { unknown: true, .. })), "{skip:?}");
    let done = resolve("a", Resolution::Completed, Some(PayloadSlot(0)));
    assert_eq!(run.types(done.clone()), ["run.step.resolved.v1"]);
    assert_eq!(run.when(done), Ok(Vec::new()), "twice changes nothing");
    let other = run.when(resolve("a", Resolution::Retry, None));
    assert_eq!(other, Err(RunRejection::DecidedBefore(step("a"), Resolution::Completed)));
    assert_eq!(Run::next_wake(&run.state), Wake::Now);
    run.when(outcomes(vec![outcome("a", 1, completed())])).expect("it is decided");
    let none = run.when(resolve("b", Resolution::Retry, None));
    assert_eq!(none, Err(RunRejection::NotUndecided(step("b"))));
}

#[test]
fn a_failed_step_that_asks_is_retried_skipped_or_given_up() {
    for (resolution, result, expected) in [
        (Resolution::Retry, StepResult::Retried, "run.step.retried.v1"),
        (Resolution::Skip, StepResult::Skipped, "run.step.skipped.v1"),
        (Resolution::Failed, failed(None), "run.step.failed.v1"),
    ] {
        let mut run = begun(&["a"]);
        let asks = StepResult::FailedAsking { error: failure() };
        let types = run.types(outcomes(vec![outcome("a", 1, asks)]));
        assert_eq!(types, ["run.step.failed.v1", "run.step.asked.v1"]);
        let done = run.when(resolve("a", Resolution::Completed, None));
        assert!(matches!(done, Err(RunRejection::NoSuchDecision { unknown: false, .. })));
        run.when(resolve("a", resolution, None)).expect("it asks");
        assert_eq!(run.types(outcomes(vec![outcome("a", 1, result)])), [expected]);
    }
}

#[test]
fn a_call_that_was_lost_is_known_by_its_key_until_an_outcome_is_known() {
    let mut run = History::created(Budget::default());
    let call = |key: &str| {
        let mut intent = model_call(10);
        if let StepIntent::CallModel { idempotency_key, .. } = &mut intent {
            *idempotency_key = Some(key.into());
        }
        RunCommand::Advance(AdvanceRun { starts: vec![start("a", intent)], ..advance() })
    };
    run.when(call("k1")).expect("it starts");
    let lost = StepResult::Unknown { retry_at: Some(run.now) };
    run.when(outcomes(vec![outcome("a", 1, lost)])).expect("it was under way");
    assert_eq!(run.state.steps[&step("a")].lost_call.as_deref(), Some("k1"));
    run.when(call("k1")).expect("it starts again");
    run.when(outcomes(vec![outcome("a", 2, failed(Some(run.now)))])).expect("it fails");
    assert_eq!(run.state.steps[&step("a")].lost_call, None, "its outcome is known");
}

#[test]
fn a_mark_is_an_event_and_changes_nothing() {
    let mut run = begun(&["a"]);
    let before = run.state.clone();
    let mark = RunCommand::Mark { label: Some(CommandReason::Platform(platform_text!("here"))) };
    assert_eq!(run.types(mark), ["run.checkpoint.saved.v1"]);
    assert_eq!((before.steps, before.phase), (run.state.steps, run.state.phase));
}

fn forking(parent: &mut RunState, input: Option<PayloadSlot>) -> ForkRun {
    ForkRun {
        parent: RunId(Uuid::from_u128(77)),
        seq: parent.seq,
        hash: "ab".into(),
        fingerprint: parent.refresh_fingerprint(),
        graph: GraphId(Uuid::from_u128(1)),
        version: GraphVersion::from_manifest(b"other"),
        input,
        budget: Budget { tokens: Some(5), ..Budget::default() },
        changes: vec!["model".into()],
        request_hash: "fork".into(),
        is_parent_imported: false,
    }
}

/// The fork of a state, as the repository makes it: the parent's state, then the first event.
fn forked(parent: &RunState, command: ForkRun) -> RunState {
    let mut none = History { now: Timestamp(7_000), ..History::default() };
    let events = none.when(RunCommand::Fork(command)).expect("it is new");
    let mut state = parent.clone();
    Run::evolve(&mut state, RecordedEvent { seq: Seq(1), time: none.now, event: &events[0] });
    state
}

#[test]
fn a_fork_has_what_was_done_and_does_what_was_under_way_itself() {
    let mut run = begun(&["a", "b"]);
    run.when(outcomes(vec![outcome("a", 1, completed())])).expect("it is under way");
    let call = AdvanceRun { starts: vec![start("c", model_call(50))], ..advance() };
    run.when(RunCommand::Advance(call)).expect("it starts");
    let command = forking(&mut run.state, Some(PayloadSlot(0)));
    let done = run.state.steps[&step("a")].clone();
    let (upto, parent) = (run.state.seq, command.parent);
    let state = forked(&run.state, command);
    assert_eq!(
        (state.seq, state.phase, state.created),
        (Seq(1), RunPhase::Running, Timestamp(7_000))
    );
    assert_eq!((state.spent.tokens, state.spent.reserved_tokens), (0, 0), "nothing was spent");
    assert_eq!(state.steps[&step("a")], done);
    for id in ["b", "c"] {
        assert_eq!(state.steps[&step(id)].status, StepStatus::Scheduled { due: None });
        assert_eq!(state.steps[&step(id)].call, None);
    }
    let own = StreamKey::for_run("t".parse().expect("a name"), RunId(Uuid::from_u128(78)));
    let output = done.output.expect("it yielded");
    let (stream, place) = lineage::locate_payload(&state.lineage, &own, output);
    assert_eq!((stream.id, place), (parent.0, output), "what the parent wrote lies with it");
    let input = state.input.expect("changed");
    assert!(input.seq > upto);
    let (stream, place) = lineage::locate_payload(&state.lineage, &own, input);
    assert_eq!((stream, place), (own, PayloadRef { seq: Seq(1), index: 0 }));
}

#[test]
fn a_fork_asks_anew_what_is_not_answered() {
    let mut run = History::created(Budget::default());
    let ask = StepIntent::RequestApproval {
        approval: convergio_domain::id::ApprovalId(Uuid::from_u128(5)),
        role: "teacher".into(),
        content: PayloadSlot(0),
        content_hash: "abc".into(),
        expires: None,
    };
    let asking = AdvanceRun { starts: vec![start("ok", ask)], ..advance() };
    run.when(RunCommand::Advance(asking)).expect("it asks");
    let command = forking(&mut run.state, None);
    let state = forked(&run.state, command);
    assert!(state.approvals.is_empty(), "its own question will have its own id");
    assert_eq!(state.steps[&step("ok")].status, StepStatus::Scheduled { due: None });
    let mut fresh = state.clone();
    let snapshot = Run::encode_snapshot(&state).expect("written");
    let mut read = Run::decode_snapshot(&snapshot).expect("read");
    assert_eq!(
        read.refresh_fingerprint(),
        fresh.refresh_fingerprint(),
        "removed questions leave no print"
    );
}

#[test]
fn the_same_request_forks_once() {
    let mut run = begun(&["a"]);
    let command = forking(&mut run.state, None);
    let mut fork = History::default();
    fork.when(RunCommand::Fork(command.clone())).expect("it is new");
    assert_eq!(fork.when(RunCommand::Fork(command.clone())), Ok(Vec::new()));
    let other = ForkRun { request_hash: "other".into(), ..command };
    assert_eq!(fork.when(RunCommand::Fork(other)), Err(RunRejection::IdempotencyMismatch));
    let Some(RunEvent::RunForked(event)) = fork.events.first() else { panic!("forked") };
    let inherited =
        Run::inherited_history(&fork.events[0].clone().into()).expect("a part of another history");
    assert_eq!((inherited.id, inherited.seq), (event.parent.0, event.seq));
    assert_eq!(inherited.fingerprint, Fingerprint(event.fold.0));
}
