//! Runs that came as files: history that nothing follows, and that can be forked.

use convergio_domain::decider::{Decider, DecisionContext, RecordedEvent, Wake};
use convergio_domain::id::{ApprovalId, GraphId, GraphVersion, RunId};
use convergio_domain::payload::PayloadSlot;
use convergio_domain::run::event::{RunEvent, RunImported};
use convergio_domain::run::{
    AnswerApproval, Budget, FamilyCommand, ForkRun, Resolution, ResolveStep, Run, RunCommand,
    RunRejection, SendSignal, StepIntent, StepStatus, check_signal,
};
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use uuid::Uuid;

use crate::history::{History, advance, create, start, starts, step};

const APPROVAL: ApprovalId = ApprovalId(Uuid::from_u128(5));

fn signal() -> SendSignal {
    let signal = "pay".parse().expect("a name");
    SendSignal { id: Uuid::from_u128(9), name: signal, payload: PayloadSlot(0) }
}

fn answer() -> RunCommand {
    RunCommand::Answer(AnswerApproval {
        approval: APPROVAL,
        content_hash: "abc".into(),
        granted: true,
        reason: None,
        roles: vec!["teacher".into()],
    })
}

/// A run that asks a person and has a step under way.
fn asking() -> History {
    let mut run = History::created(Budget::default());
    let ask = StepIntent::RequestApproval {
        approval: APPROVAL,
        role: "teacher".into(),
        content: PayloadSlot(0),
        content_hash: "abc".into(),
        expires: None,
    };
    let starts = vec![start("ok", ask), start("a", StepIntent::Compute)];
    let command = convergio_domain::run::AdvanceRun { starts, ..advance() };
    run.when(RunCommand::Advance(command)).expect("they start");
    run
}

/// What an import adds to a history.
fn mark(run: &mut History) {
    let event = RunEvent::RunImported(RunImported {
        by: "ann".parse().expect("a name"),
        file_hash: "ab".into(),
        signer: None,
    });
    let seq = run.state.seq.offset_by(1);
    Run::evolve(&mut run.state, RecordedEvent { seq, time: Timestamp(2_000), event: &event });
}

#[test]
fn nothing_is_added_to_an_imported_run() {
    let mut run = asking();
    assert_eq!(Run::next_wake(&run.state), Wake::Now);
    mark(&mut run);
    assert_eq!(Run::next_wake(&run.state), Wake::Done);
    let resolve =
        ResolveStep { step: step("a"), resolution: Resolution::Retry, output: None, reason: None };
    let commands = [
        starts(&["b"]),
        answer(),
        RunCommand::Create(create("request", Budget::default())),
        RunCommand::Pause { reason: None },
        RunCommand::Resume,
        RunCommand::Cancel { reason: None },
        RunCommand::Retry { steps: Vec::new() },
        RunCommand::Migrate { to: GraphVersion::from_manifest(b"other") },
        RunCommand::Signal(signal()),
        RunCommand::Resolve(resolve),
        RunCommand::Mark { label: None },
        RunCommand::ChildrenCreated(Vec::new()),
        RunCommand::ParentTold,
    ];
    for command in commands {
        assert_eq!(run.when(command.clone()), Err(RunRejection::Imported), "{command:?}");
    }
    let unwanted = check_signal(&run.state, &signal(), &[signal().name]);
    assert_eq!(unwanted, Err(RunRejection::Imported));
    assert!(RunRejection::Imported.to_string().contains("fork it"));
    // A run that says that this one is within it cannot do anything to it.
    for command in [FamilyCommand::Cancel, FamilyCommand::Pause, FamilyCommand::Resume] {
        assert_eq!(run.when(RunCommand::Inherit(command)), Ok(Vec::new()));
    }
}

#[test]
fn the_mark_is_a_part_of_the_state_that_is_kept_and_printed() {
    let mut run = asking();
    let before = run.state.refresh_fingerprint();
    mark(&mut run);
    let after = run.state.refresh_fingerprint();
    assert_ne!(before, after);
    let snapshot = Run::encode_snapshot(&run.state).expect("written");
    let mut read = Run::decode_snapshot(&snapshot).expect("read");
    assert!(read.is_imported);
    assert_eq!(read.refresh_fingerprint(), after);
}

/// The fork of a run as it stands.
fn forked(run: &mut History, of_import: bool) -> convergio_domain::run::RunState {
    let command = ForkRun {
        parent: RunId(Uuid::from_u128(77)),
        seq: run.state.seq,
        hash: "ab".into(),
        fingerprint: run.state.refresh_fingerprint(),
        graph: GraphId(Uuid::from_u128(1)),
        version: GraphVersion::from_manifest(b"{}"),
        input: None,
        budget: Budget::default(),
        changes: Vec::new(),
        request_hash: "fork".into(),
        is_parent_imported: of_import,
    };
    let context = DecisionContext { now: Timestamp(7_000), actor: "ann".parse().expect("a name") };
    let none = convergio_domain::run::RunState::default();
    let events = Run::decide(&none, RunCommand::Fork(command), &context, Seq(1)).expect("new");
    let mut state = run.state.clone();
    Run::evolve(&mut state, RecordedEvent { seq: Seq(1), time: context.now, event: &events[0] });
    state
}

#[test]
fn a_fork_of_an_imported_run_goes_on_and_asks_what_a_file_says_was_answered() {
    let mut run = asking();
    run.when(answer()).expect("a planted answer that nothing came of yet");
    let own = forked(&mut run, false);
    assert_eq!(own.steps[&step("ok")].status, StepStatus::Asking { approval: APPROVAL });
    mark(&mut run);
    let state = forked(&mut run, true);
    assert!(!state.is_imported);
    assert_eq!(Run::next_wake(&state), Wake::Now);
    assert_eq!(state.steps[&step("ok")].status, StepStatus::Scheduled { due: None });
    assert_eq!(state.steps[&step("a")].status, StepStatus::Scheduled { due: None });
}
