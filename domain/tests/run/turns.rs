//! Agents' turns and runs within runs: what is allowed when, and what holds whatever is asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{
    History, advance, completed, failed, model_call, outcome, outcomes, start, step,
};
use convergio_domain::billing::{Meter, Usage};
use convergio_domain::decider::{Decider, RecordedEvent, Wake};
use convergio_domain::failure::FailureReport;
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::money::Money;
use convergio_domain::payload::PayloadSlot;
use convergio_domain::platform_text;
use convergio_domain::run::event::{RunEvent, RunForked};
use convergio_domain::run::{
    AdvanceRun, Budget, CallReport, ChildIntent, ChildReport, Provenance, Run, RunCommand,
    RunOrigin, RunPhase, RunRejection, RunState, StepIntent, StepResult, StepStatus,
    ToolCallNumber, ToolCallResult, ToolOutcome, TurnAnswer, TurnIntent, TurnUpdate,
};
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use uuid::Uuid;

fn report(tokens: u64) -> CallReport {
    CallReport {
        provider: "local".into(),
        model: "m".into(),
        finish: Some("tool_calls".into()),
        duration_ms: 5,
        first_token_ms: None,
        usage: Some(Usage([(Meter::InFresh, tokens)].into())),
        confirmed: true,
        service_tier: None,
        charge: None,
        provider_cost: None,
        fallback: None,
        retry_after: None,
    }
}

fn at(turn: u32, call: u32) -> ToolCallNumber {
    ToolCallNumber { turn, call }
}

fn turn(number: u32, tokens: u64) -> StepIntent {
    let mut intent = model_call(tokens);
    if let StepIntent::CallModel { turn, .. } = &mut intent {
        *turn = number;
    }
    intent
}

fn child(id: u128, at: Option<ToolCallNumber>, tokens: u64) -> StepIntent {
    StepIntent::CreateChild(ChildIntent {
        tool_call: at,
        child: RunId(Uuid::from_u128(id)),
        graph: GraphId(Uuid::from_u128(1)),
        version: GraphVersion::from_manifest(b"{}"),
        input: PayloadSlot(0),
        manifest: None,
        budget: Budget { tokens: Some(tokens), ..Budget::UNBOUND },
        privacy: Default::default(),
        agent: None,
    })
}

fn tool(call: ToolCallNumber) -> TurnIntent {
    TurnIntent::Tool { tool_call: call, name: "math.eval".into() }
}

fn told(call: ToolCallNumber) -> ToolCallResult {
    ToolCallResult { tool_call: call, outcome: ToolOutcome::Completed, result: PayloadSlot(0) }
}

fn moved(change: impl FnOnce(&mut TurnUpdate)) -> RunCommand {
    let mut moved = TurnUpdate::new(step("a"), 1);
    change(&mut moved);
    RunCommand::Advance(AdvanceRun { turn_updates: vec![moved], ..advance() })
}

fn answered(next: Vec<TurnIntent>) -> RunCommand {
    moved(|moved| {
        moved.answer = Some(TurnAnswer { call: report(30), answer: PayloadSlot(0) });
        moved.intents = next;
    })
}

fn ended(id: u128, tokens: u64) -> RunCommand {
    RunCommand::ChildEnded(ChildReport {
        child: RunId(Uuid::from_u128(id)),
        error: None,
        output: Some(PayloadSlot(0)),
        tokens,
        cost: Money::ZERO,
        reopenings: 0,
        active_ms: None,
        inherited: false,
    })
}

/// An agent that has asked its model.
fn asked() -> History {
    let mut run = History::created(Budget { tokens: Some(1_000), ..Budget::default() });
    let starts = vec![start("a", turn(1, 100))];
    run.when(RunCommand::Advance(AdvanceRun { starts, ..advance() })).expect("the agent begins");
    run
}

#[test]
fn a_turn_is_answered_its_tools_are_called_and_the_model_is_asked_again() {
    let mut run = asked();
    let types = run.types(answered(vec![tool(at(1, 0)), tool(at(1, 1))]));
    let expected = [
        "run.model_call.completed.v1",
        "run.usage.recorded.v1",
        "run.tool_call.intended.v1",
        "run.tool_call.intended.v1",
    ];
    assert_eq!(types, expected);
    assert_eq!((run.state.spent.tokens, run.state.spent.reserved_tokens), (30, 0));
    assert_eq!(
        run.types(moved(|m| m.results = vec![told(at(1, 0))])),
        ["run.tool_call.completed.v1"]
    );
    let again = run.when(moved(|m| m.results = vec![told(at(1, 0))]));
    assert_eq!(again, Err(RunRejection::ToolCallEnded(step("a"))));
    let early = run.when(moved(|m| m.intents = vec![TurnIntent::Begin(turn(2, 10))]));
    assert_eq!(early, Err(RunRejection::TurnOpen(step("a"))), "a tool has not answered");
    let types = run.types(moved(|m| {
        m.results = vec![told(at(1, 1))];
        m.intents = vec![TurnIntent::Begin(turn(2, 10))];
    }));
    assert_eq!(types, ["run.tool_call.completed.v1", "run.model_call.intended.v1"]);
    let mut last = outcome("a", 1, completed());
    last.call = Some(report(5));
    run.when(outcomes(vec![last])).unwrap();
    assert_eq!(run.state.spent.tokens, 35);
}

/// The state of a fork that begins here.
fn forked(parent: &History, change: Option<&str>) -> RunState {
    let mut state = parent.state.clone();
    let event = RunEvent::RunForked(RunForked {
        parent: RunId(Uuid::from_u128(9)),
        seq: state.seq,
        hash: String::new(),
        fold: state.refresh_fingerprint(),
        graph: GraphId(Uuid::from_u128(1)),
        version: GraphVersion::from_manifest(b"{}"),
        input: None,
        budget: Budget::default(),
        changes: change.map(str::to_owned).into_iter().collect(),
        request_hash: String::new(),
        of_import: false,
    });
    let time = Timestamp(parent.now.0 + 1);
    Run::evolve(&mut state, RecordedEvent { seq: Seq(1), time, event: &event });
    state
}

#[test]
fn a_fork_goes_on_after_the_last_answer_that_waits_for_no_run_of_the_parent() {
    let mut run = asked();
    run.when(answered(vec![tool(at(1, 0))])).unwrap();
    run.when(moved(|m| {
        m.results = vec![told(at(1, 0))];
        m.intents = vec![TurnIntent::Begin(turn(2, 10))];
    }))
    .unwrap();
    let kept = |state: &RunState| {
        let turns = state.steps[&step("a")].turns.as_deref();
        turns.map(|turns| (turns.last_turn(), turns.began))
    };
    let fork = forked(&run, None);
    assert_eq!(kept(&fork), Some((1, Timestamp(run.now.0 + 1))), "the question was under way");
    assert_eq!(fork.steps[&step("a")].status, StepStatus::Scheduled { due: None });
    let call = TurnIntent::Begin(child(7, Some(at(2, 0)), 10));
    run.when(answered(vec![tool(at(2, 0)), call])).unwrap();
    let mut fork = forked(&run, Some("nodes.a.model"));
    assert_eq!(kept(&fork).map(|(last, _)| last), Some(1), "the second turn is asked again");
    assert!(fork.children.is_empty() && fork.steps[&step("a")].awaits.is_empty());
    assert_eq!((fork.spent.tokens, fork.spent.reserved_tokens), (0, 0));
    for change in ["nodes.a.prompt", "inputs.text", "graph"] {
        assert_eq!(kept(&forked(&run, Some(change))), None, "{change}: it is asked something else");
    }
    let mut read = Run::decode_snapshot(&Run::encode_snapshot(&fork).unwrap()).unwrap();
    assert_eq!(read.refresh_fingerprint(), fork.refresh_fingerprint());
}

#[test]
fn what_was_answered_is_kept_over_tries() {
    let mut run = asked();
    run.when(answered(vec![tool(at(1, 0))])).unwrap();
    let unknown = StepResult::Unknown { retry_at: Some(run.now) };
    run.when(outcomes(vec![outcome("a", 1, unknown)])).unwrap();
    let starts = vec![start("a", StepIntent::Compute)];
    run.when(RunCommand::Advance(AdvanceRun { starts, ..advance() })).unwrap();
    let turns = run.state.steps[&step("a")].turns.as_deref().expect("turns");
    assert_eq!((turns.last_turn(), turns.is_computing()), (1, true));
    let mut second = TurnUpdate::new(step("a"), 2);
    second.results = vec![told(at(1, 0))];
    second.intents = vec![TurnIntent::Begin(turn(2, 10))];
    let command = RunCommand::Advance(AdvanceRun { turn_updates: vec![second], ..advance() });
    assert_eq!(run.types(command).len(), 2);
}

#[test]
fn a_turn_beyond_the_budget_ends_the_run() {
    let mut run = asked();
    let types = run.types(answered(vec![tool(at(1, 0))]));
    assert_eq!(types.len(), 3);
    let types = run.types(moved(|m| {
        m.results = vec![told(at(1, 0))];
        m.intents = vec![TurnIntent::Begin(turn(2, 971))];
    }));
    let expected = ["run.tool_call.completed.v1", "run.budget.exhausted.v1", "run.failed.v1"];
    assert_eq!(types, expected);
}

#[test]
fn a_step_that_only_waits_for_a_run_within_is_parked_until_it_ends() {
    let mut run = History::created(Budget { wall: None, ..Budget::default() });
    let starts = vec![start("a", child(9, None, 400))];
    run.when(RunCommand::Advance(AdvanceRun { starts, ..advance() })).unwrap();
    assert_eq!(run.state.spent.reserved_tokens, 400);
    assert_eq!(Run::next_wake(&run.state), Wake::At(Timestamp(11_000)), "was it created?");
    let created = || RunCommand::ChildrenCreated(vec![RunId(Uuid::from_u128(9))]);
    assert_eq!(run.types(created()), ["run.child.created.v1"]);
    assert_eq!(run.when(created()), Ok(Vec::new()));
    assert_eq!(Run::next_wake(&run.state), Wake::Parked);
    assert_eq!(run.types(ended(9, 120)), ["run.child.ended.v1"]);
    assert_eq!(Run::next_wake(&run.state), Wake::Now);
    assert_eq!((run.state.spent.tokens, run.state.spent.reserved_tokens), (120, 0));
    assert_eq!(run.when(ended(9, 120)), Ok(Vec::new()), "told twice, counted once");
    let nobody = RunId(Uuid::from_u128(8));
    assert_eq!(run.when(ended(8, 1)), Err(RunRejection::NoSuchChild(nobody)));
    let output = run.state.children[&RunId(Uuid::from_u128(9))].ended.clone().unwrap().output;
    let result = StepResult::Yielded { output };
    run.when(outcomes(vec![outcome("a", 1, result)])).unwrap();
    assert_eq!(run.state.steps[&step("a")].output, output);
}

#[test]
fn an_agent_waits_for_its_tools_and_its_runs_together() {
    let mut run = asked();
    run.when(answered(vec![
        tool(at(1, 0)),
        tool(at(1, 1)),
        TurnIntent::Begin(child(9, Some(at(1, 1)), 50)),
    ]))
    .unwrap();
    assert_eq!(Run::next_wake(&run.state), Wake::Now, "a tool computes");
    run.when(moved(|m| m.results = vec![told(at(1, 0))])).unwrap();
    assert!(matches!(Run::next_wake(&run.state), Wake::At(_)), "only its run is under way");
    run.when(ended(9, 20)).unwrap();
    assert_eq!(Run::next_wake(&run.state), Wake::Now);
}

#[test]
fn a_run_that_has_ended_stays_awake_until_all_who_must_know_do() {
    let origin = RunOrigin { run: RunId(Uuid::from_u128(5)), step: step("x"), depth: 1 };
    let mut run = History { now: Timestamp(1_000), ..History::default() };
    let mut create = crate::history::create("r", Budget::default());
    create.provenance = Provenance { origin: Some(origin), ..Provenance::default() };
    run.when(RunCommand::Create(create)).unwrap();
    assert_eq!(run.when(RunCommand::ParentTold), Err(RunRejection::NotEnded));
    let starts = vec![start("a", child(9, None, 400))];
    run.when(RunCommand::Advance(AdvanceRun { starts, ..advance() })).unwrap();
    run.when(RunCommand::Cancel { reason: None }).unwrap();
    assert_eq!(Run::next_wake(&run.state), Wake::Now);
    run.when(ended(9, 10)).unwrap();
    assert_eq!(run.state.spent.tokens, 10, "what it cost counts after the end too");
    assert_eq!(Run::next_wake(&run.state), Wake::Now, "who it belongs to does not know");
    assert_eq!(run.types(RunCommand::ParentTold), ["run.parent.told.v1"]);
    assert_eq!(Run::next_wake(&run.state), Wake::Done);
}

fn outcome_of_tool() -> impl Strategy<Value = ToolOutcome> {
    let error = FailureReport::new("tool.invalid", platform_text!("no"));
    prop_oneof![
        Just(ToolOutcome::Completed),
        Just(ToolOutcome::Failed(error)),
        Just(ToolOutcome::Denied { name: "hash.sha256".into() }),
    ]
}

fn a_move() -> impl Strategy<Value = TurnUpdate> {
    let call = || (0..3_u32, 0..3_u32).prop_map(|(turn, call)| at(turn, call));
    let told = (call(), outcome_of_tool()).prop_map(|(at, outcome)| ToolCallResult {
        tool_call: at,
        outcome,
        result: PayloadSlot(0),
    });
    let next = prop_oneof![
        3 => call().prop_map(tool),
        2 => (1..4_u32, 1..90_u64)
            .prop_map(|(number, tokens)| TurnIntent::Begin(turn(number, tokens))),
        2 => (1..6_u128, call(), 1..90_u64)
            .prop_map(|(id, at, tokens)| TurnIntent::Begin(child(id, Some(at), tokens))),
    ];
    let told = prop::collection::vec(told, 0..3);
    let next = prop::collection::vec(next, 0..3);
    let answer = (0..2_u8, 1..90_u64);
    (prop::sample::select(&["a", "b"][..]), 1..3_u32, answer, told, next).prop_map(
        |(id, attempt, (is_answered, tokens), told, next)| {
            let call = report(tokens);
            let answered =
                (is_answered == 1).then_some(TurnAnswer { call, answer: PayloadSlot(0) });
            TurnUpdate {
                answer: answered,
                results: told,
                intents: next,
                ..TurnUpdate::new(step(id), attempt)
            }
        },
    )
}

fn command() -> impl Strategy<Value = RunCommand> {
    let name = || prop::sample::select(&["a", "b"][..]);
    let begun = prop_oneof![
        (name(), 1..90_u64).prop_map(|(id, tokens)| start(id, turn(1, tokens))),
        (name(), 1..6_u128, 1..90_u64).prop_map(|(id, run, n)| start(id, child(run, None, n))),
        name().prop_map(|id| start(id, StepIntent::Compute)),
    ];
    let begun = prop::collection::vec(begun, 1..3);
    let begun = begun.prop_map(|starts| RunCommand::Advance(AdvanceRun { starts, ..advance() }));
    let lost = StepResult::Unknown { retry_at: Some(Timestamp(0)) };
    let result = prop_oneof![Just(completed()), Just(failed(Some(Timestamp(0)))), Just(lost)];
    let over = (name(), 1..3_u32, result).prop_map(|(id, n, r)| outcomes(vec![outcome(id, n, r)]));
    let updates = prop::collection::vec(a_move(), 1..3);
    let updated = updates
        .prop_map(|turn_updates| RunCommand::Advance(AdvanceRun { turn_updates, ..advance() }));
    prop_oneof![
        6 => updated,
        3 => begun,
        2 => over,
        2 => (1..6_u128).prop_map(|id| ended(id, 1)),
        1 => Just(RunCommand::ParentTold),
    ]
}

fn history(commands: Vec<RunCommand>) -> History {
    let mut run = History::created(Budget { tokens: Some(200), ..Budget::default() });
    for command in commands {
        let _refused_is_fine = run.when(command);
    }
    run
}

fn commands() -> impl Strategy<Value = Vec<RunCommand>> {
    prop::collection::vec(command(), 0..60)
}

proptest! {
    #[test]
    fn a_tool_call_completes_once_and_only_after_its_intent(commands in commands()) {
        let run = history(commands);
        let mut intended = BTreeSet::new();
        let mut over = BTreeSet::new();
        for event in &run.events {
            match event {
                RunEvent::ToolCallIntended(e) => {
                    prop_assert!(intended.insert((e.step.clone(), e.tool_call)), "intended once");
                }
                RunEvent::ToolCallCompleted(e) => {
                    prop_assert!(intended.contains(&(e.step.clone(), e.tool_call)));
                    prop_assert!(over.insert((e.step.clone(), e.tool_call)), "over once");
                }
                RunEvent::ToolCallFailed(e) => {
                    prop_assert!(over.insert((e.step.clone(), e.tool_call)), "over once");
                }
                RunEvent::ToolCallDenied(e) => {
                    prop_assert!(over.insert((e.step.clone(), e.tool_call)), "over once");
                }
                _ => {}
            }
        }
    }

    #[test]
    fn turns_are_answered_in_order_and_once(commands in commands()) {
        let run = history(commands);
        let mut last = BTreeMap::new();
        for event in &run.events {
            if let RunEvent::ModelCallCompleted(e) = event && e.answer.is_some() {
                let before = last.insert(e.step.clone(), e.turn).unwrap_or(0);
                prop_assert_eq!(e.turn, before + 1);
            }
        }
    }

    #[test]
    fn what_turns_and_runs_within_hold_is_within_the_budget(commands in commands()) {
        let run = history(commands);
        let held: u64 = run.state.steps.values().filter_map(|s| s.call.as_ref())
            .map(|call| call.reserved_tokens).sum();
        let within: u64 = run.state.open_children().filter_map(|(_, c)| c.budget.tokens).sum();
        prop_assert_eq!(run.state.spent.reserved_tokens, held + within);
        let settled: u64 = run.events.iter().map(|event| match event {
            RunEvent::UsageRecorded(usage) => usage.usage.total_tokens(),
            RunEvent::ChildEnded(ended) => ended.tokens,
            _ => 0,
        }).sum();
        prop_assert_eq!(run.state.spent.tokens, settled);
    }

    #[test]
    fn folding_again_in_any_order_is_total_and_in_order_is_the_same(commands in commands()) {
        let run = history(commands);
        let fold = |events: &mut dyn Iterator<Item = &RunEvent>| {
            let mut state = RunState::default();
            for (index, event) in events.enumerate() {
                let seq = Seq(index as u64 + 1);
                Run::evolve(&mut state, RecordedEvent { seq, time: Timestamp(1_000), event });
                Run::next_wake(&state);
            }
            state
        };
        let mut again = fold(&mut run.events.iter());
        let mut state = run.state.clone();
        prop_assert_eq!(again.refresh_fingerprint(), state.refresh_fingerprint());
        prop_assert_eq!(again, state);
        fold(&mut run.events.iter().rev());
    }

    #[test]
    fn a_running_run_with_something_to_do_is_awake(commands in commands()) {
        let run = history(commands);
        let is_exposed = run.state.steps.values().any(|step| {
            matches!(step.status, StepStatus::Started { .. }) && step.has_work_at_risk()
        });
        if run.state.phase == RunPhase::Running && is_exposed {
            prop_assert_eq!(Run::next_wake(&run.state), Wake::Now);
        }
    }
}
