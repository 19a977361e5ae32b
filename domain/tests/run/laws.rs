//! Laws of the run's decider over random commands and events.

use std::collections::BTreeMap;

use crate::history::{History, advance, completed, failed, model_call, outcome, start};
use convergio_domain::decider::{Decider, DecisionContext, RecordedEvent};
use convergio_domain::failure::FailureReport;
use convergio_domain::payload::PayloadSlot;
use convergio_domain::platform_text;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{
    AdvanceRun, Budget, FamilyCommand, Resolution, ResolveStep, Run, RunCommand, RunOutcome,
    RunState, SendSignal, StepIntent, StepResult, ToolIntent,
};
use convergio_domain::stream::Seq;
use convergio_domain::time::{Span, Timestamp};
use proptest::prelude::{
    Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use uuid::Uuid;

const STEPS: [&str; 4] = ["a", "b", "c", "m[0]"];

fn result() -> impl Strategy<Value = StepResult> {
    prop_oneof![
        Just(completed()),
        Just(failed(None)),
        (0..5_000_i64).prop_map(|due| failed(Some(Timestamp(due)))),
        Just(StepResult::Unknown { retry_at: Some(Timestamp(0)) }),
        Just(StepResult::UnknownAsking),
        Just(StepResult::FailedAsking { error: failure() }),
        Just(StepResult::Retried),
        Just(StepResult::Skipped),
    ]
}

fn intent() -> impl Strategy<Value = StepIntent> {
    prop_oneof![
        Just(StepIntent::Compute),
        Just(StepIntent::RunTool(ToolIntent {
            name: "memory.store".into(),
            arguments: PayloadSlot(0),
            idempotency_key: Some("run/a".into()),
        })),
        (1..200_u64).prop_map(model_call),
        Just(StepIntent::Sleep { due: Timestamp(100) }),
        Just(StepIntent::ExpandMap { width: 2, max_parallel: 1 }),
        Just(StepIntent::AwaitSignal {
            signal: "go".parse().expect("a name"),
            expires: Some(Timestamp(900))
        }),
    ]
}

fn command() -> impl Strategy<Value = RunCommand> {
    let name = || prop::sample::select(&STEPS[..]);
    let told = (name(), 1..4_u32, result()).prop_map(|(id, attempt, r)| outcome(id, attempt, r));
    let begun = (name(), intent()).prop_map(|(id, intent)| start(id, intent));
    let moves = (prop::collection::vec(told, 0..3), prop::collection::vec(begun, 0..3)).prop_map(
        |(outcomes, starts)| RunCommand::Advance(AdvanceRun { outcomes, starts, ..advance() }),
    );
    prop_oneof![20 => moves, 8 => steering(), 1 => Just(RunCommand::Cancel { reason: None })]
}

fn failure() -> FailureReport {
    FailureReport::new("tool.failed", platform_text!("no"))
}

/// What people decide from outside.
fn steering() -> impl Strategy<Value = RunCommand> {
    let name = || prop::sample::select(&STEPS[..]);
    let id = || name().prop_map(|id| id.parse().expect("a step"));
    let resolutions = [Resolution::Retry, Resolution::Completed, Resolution::Failed];
    let resolution = prop::sample::select(resolutions.to_vec());
    let signal = |id| SendSignal {
        id: Uuid::from_u128(id),
        name: "go".parse().expect("a name"),
        payload: PayloadSlot(0),
    };
    prop_oneof![
        1 => Just(RunCommand::Pause { reason: None }),
        2 => Just(RunCommand::Resume),
        1 => Just(RunCommand::Inherit(FamilyCommand::Pause)),
        2 => Just(RunCommand::Inherit(FamilyCommand::Resume)),
        1 => Just(RunCommand::Mark { label: None }),
        2 => id().prop_map(|step| RunCommand::Retry { steps: vec![step] }),
        2 => (0..9_u128).prop_map(move |id| RunCommand::Signal(signal(id))),
        4 => (id(), resolution).prop_map(|(step, resolution)| {
            RunCommand::Resolve(ResolveStep { step, resolution, output: None, reason: None })
        }),
        1 => Just(RunCommand::Advance(AdvanceRun { end: Some(failed_end()), ..advance() })),
    ]
}

fn failed_end() -> RunOutcome {
    RunOutcome::Failed { step: None, error: failure() }
}

fn history(commands: Vec<(RunCommand, u16)>) -> History {
    let budget = Budget { tokens: Some(500), ..Budget::default() };
    let mut run = History::created(budget);
    for (command, passed_ms) in commands {
        run.now = run.now.add_span(Span(u64::from(passed_ms)));
        let _refused_is_fine = run.when(command);
    }
    run
}

fn commands() -> impl Strategy<Value = Vec<(RunCommand, u16)>> {
    prop::collection::vec((command(), any::<u16>().prop_map(|ms| ms % 3_000)), 0..40)
}

proptest! {
    #[test]
    fn the_fingerprint_is_of_the_state_and_not_of_the_way_to_it(commands in commands()) {
        let run = history(commands);
        let (mut at_the_end, mut at_every_event) = (RunState::default(), RunState::default());
        for (index, event) in run.events.iter().enumerate() {
            let recorded = RecordedEvent { seq: Seq(index as u64 + 1), time: run.now, event };
            let before = at_every_event.refresh_fingerprint();
            Run::evolve(&mut at_the_end, recorded);
            Run::evolve(&mut at_every_event, recorded);
            prop_assert!(before != at_every_event.refresh_fingerprint(), "an event changes it");
        }
        prop_assert_eq!(at_the_end.refresh_fingerprint(), at_every_event.refresh_fingerprint());
    }
}

proptest! {
    #[test]
    fn a_state_that_was_written_down_is_read_as_it_was(commands in commands()) {
        let mut run = history(commands);
        let snapshot = Run::encode_snapshot(&run.state).unwrap();
        let mut read = Run::decode_snapshot(&snapshot).unwrap();
        prop_assert_eq!(read.refresh_fingerprint(), run.state.refresh_fingerprint());
        prop_assert_eq!(&read, &run.state);
        prop_assert_eq!(Run::next_wake(&read), Run::next_wake(&run.state));
    }

    #[test]
    fn a_paused_run_starts_nothing(commands in commands()) {
        let run = history(commands);
        let mut paused = false;
        for event in &run.events {
            match event {
                RunEvent::RunPaused(_) => paused = true,
                RunEvent::RunResumed(event) => paused = event.stays_paused,
                RunEvent::RunReopened(_) => paused = false,
                RunEvent::StepStarted(_) => prop_assert!(!paused),
                _ => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn completed_steps_never_run_again(commands in commands()) {
        let run = history(commands);
        let mut completed = BTreeMap::new();
        for event in &run.events {
            match event {
                RunEvent::StepCompleted(done) => {
                    prop_assert_eq!(completed.insert(done.step.clone(), ()), None);
                }
                RunEvent::StepStarted(started) => {
                    prop_assert!(!completed.contains_key(&started.step));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_is_held_and_spent_stays_within_the_budget(commands in commands()) {
        let run = history(commands);
        let spent = run.state.spent;
        prop_assert!(spent.tokens + spent.reserved_tokens <= 500);
    }

    #[test]
    fn the_time_that_a_run_worked_never_shrinks_and_never_exceeds_its_age(commands in commands()) {
        let budget = Budget { wall: None, ..Budget::default() };
        let mut run = History::created(budget);
        let (began, mut before) = (run.now, Span(0));
        for (command, passed_ms) in commands {
            run.now = run.now.add_span(Span(u64::from(passed_ms)));
            let _refused_is_fine = run.when(command);
            let worked = run.state.active_time(run.now);
            prop_assert!(worked >= before && worked <= run.now.span_since(began), "{:?}", worked);
            before = worked;
        }
    }

    #[test]
    fn an_ended_run_starts_nothing(commands in commands()) {
        let run = history(commands);
        let mut ended = false;
        for event in &run.events {
            match event {
                RunEvent::RunFailed(_) | RunEvent::RunCompleted(_) | RunEvent::RunCancelled(_) => {
                    prop_assert!(!ended);
                    ended = true;
                }
                // Only failed runs go on, by somebody's word.
                RunEvent::RunReopened(_) => ended = false,
                RunEvent::StepStarted(_) => prop_assert!(!ended),
                _ => {}
            }
        }
    }

    #[test]
    fn deciding_twice_gives_the_same_events(commands in commands(), last in command()) {
        let run = history(commands);
        let context = DecisionContext { now: run.now, actor: "tester".parse().unwrap() };
        let decide = || Run::decide(&run.state, last.clone(), &context, run.state.seq.offset_by(1));
        prop_assert_eq!(decide(), decide());
    }

    #[test]
    fn folding_the_events_again_gives_the_same_state(commands in commands()) {
        let run = history(commands);
        let mut state = RunState::default();
        // Times are part of the state only where events were folded with them: all of one instant.
        for (index, event) in run.events.iter().enumerate() {
            let seq = Seq(index as u64 + 1);
            Run::evolve(&mut state, RecordedEvent { seq, time: Timestamp(1_000), event });
        }
        prop_assert_eq!(state.phase, run.state.phase);
        prop_assert_eq!(state.spent, run.state.spent);
        prop_assert_eq!(state.steps.len(), run.state.steps.len());
        // How long a run stood still or waited, and so its deadline, is a matter of times.
        let stood = |event: &RunEvent| {
            matches!(
                event,
                RunEvent::RunPaused(_)
                    | RunEvent::RunReopened(_)
                    | RunEvent::TimerSet(_)
                    | RunEvent::SignalAwaited(_)
                    | RunEvent::StepAsked(_)
                    | RunEvent::MapExpanded(_)
                    | RunEvent::StepCompleted(_)
                    | RunEvent::StepFailed(_)
                    | RunEvent::StepSkipped(_)
            )
        };
        if !run.events.iter().any(stood) {
            prop_assert_eq!(Run::next_wake(&state), Run::next_wake(&run.state));
        }
    }

    #[test]
    fn evolve_is_total(commands in commands(), order in any::<u64>()) {
        let run = history(commands);
        let mut events = run.events;
        let rotate = usize::try_from(order).unwrap_or(0) % events.len().max(1);
        events.rotate_left(rotate);
        if order % 2 == 0 {
            events.reverse();
        }
        let mut state = RunState::default();
        for event in &events {
            Run::evolve(&mut state, RecordedEvent { seq: Seq(1), time: Timestamp(0), event });
            Run::next_wake(&state);
        }
    }
}
