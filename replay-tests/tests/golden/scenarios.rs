//! The runs that are recorded here; others come from `convergio runs export`.

use std::sync::Arc;

use convergio_domain::failure::PlatformText;
use convergio_domain::platform_text;
use convergio_domain::run::{AmendRun, CommandReason, NewLimits, Resolution, RunCommand, RunPhase};
use convergio_eventstore::run_file;
use futures_util::TryStreamExt;
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::graphs;
use crate::platform::{Line, Model, Platform};
use crate::recorded::folder;

/// What happens to a run besides an executor's work.
#[derive(Clone, Copy)]
enum Plot {
    None,
    Busy,
    /// Its model is chosen from two.
    Chosen,
    Granted,
    Denied,
    /// Cancelled while it asks.
    Cancelled,
    /// Its first executor dies during a question to the model.
    Crashed,
    /// Moved to another version while it asks, then granted.
    Moved,
    /// Marked, paused and resumed while it asks, then granted.
    Paused,
    /// Paused under an idempotency key, twice; resumed in between. Then granted.
    Repeated,
    /// An outside event comes.
    Signalled,
    /// Fails, and goes on.
    Reopened,
    /// A run within it fails, and goes on when this one gets a larger budget.
    Repaired,
    /// A failed step is skipped by decision.
    Decided,
    /// The outcome of a question that was lost is told.
    Reconciled,
    /// The model answers as written.
    Says(&'static [Line]),
    /// A run of `inner` within it.
    Nesting,
    /// The run within such a one.
    Nested,
    /// An agent runs another one; the run of that one.
    Spawned,
    /// An agent runs another one twice at once, and there is a place for one.
    Queued,
    /// Begins as another run, and goes on with other inputs.
    Forked,
}

/// A good call, one that the tool refuses, and one of a tool that the agent does not have.
const TURNS: &[Line] = &[
    Line::Calls(&[("math-eval", r#"{"expression": "6 * 7"}"#), ("math-eval", "{}")]),
    Line::Calls(&[("hash-sha256", r#"{"text": "x"}"#)]),
    Line::Text("it is 42"),
];
const PLAN: &[Line] = &[Line::Text("I cannot"), Line::Text(graphs::PROPOSAL)];
const SPAWNING: &[Line] = &[
    Line::Calls(&[("agent-tutor", r#"{"message": "what is a run?"}"#)]),
    Line::Text("an execution"),
    Line::Text("done"),
];

const QUEUING: &[Line] = &[
    Line::Calls(&[
        ("agent-tutor", r#"{"message": "what is a run?"}"#),
        ("agent-tutor", r#"{"message": "what is a step?"}"#),
    ]),
    Line::Text("an execution"),
    Line::Text("a part of it"),
    Line::Text("done"),
];

fn scenarios() -> Vec<(&'static str, Plot, String)> {
    let agent =
        |name: &str, budget: &str| graphs::AGENT.replace("NAME", name).replace("BUDGET", budget);
    let asking = |name: &str| graphs::ASKING.replace("NAME", name);
    vec![
        ("tool", Plot::None, graphs::TOOL.into()),
        ("branch", Plot::None, graphs::BRANCH.into()),
        ("map", Plot::None, graphs::MAP.into()),
        ("map-agent", Plot::None, graphs::MAP_AGENT.into()),
        ("agent", Plot::None, agent("agent", "{tokens: 1000}")),
        ("agent-busy", Plot::Busy, agent("agent-busy", "{tokens: 1000}")),
        ("agent-crashed", Plot::Crashed, agent("agent-crashed", "{tokens: 1000}")),
        ("agent-chosen", Plot::Chosen, agent("agent-chosen", "{tokens: 1000}")),
        ("budget", Plot::None, agent("budget", "{tokens: 10}")),
        ("approval-granted", Plot::Granted, asking("approval-granted")),
        ("approval-denied", Plot::Denied, asking("approval-denied")),
        ("cancelled", Plot::Cancelled, asking("cancelled")),
        ("migrated", Plot::Moved, asking("migrated")),
        ("sleep", Plot::None, graphs::SLEEP.into()),
        ("failed", Plot::None, graphs::FAILED.into()),
        ("skip", Plot::None, graphs::SKIP.into()),
        ("fallback", Plot::None, graphs::FALLBACK.into()),
        ("paused", Plot::Paused, asking("paused")),
        ("repeated", Plot::Repeated, asking("repeated")),
        ("signal", Plot::Signalled, graphs::SIGNAL.into()),
        ("reopened", Plot::Reopened, graphs::REOPENED.into()),
        ("repaired", Plot::Repaired, graphs::REPAIRED.into()),
        ("decided", Plot::Decided, graphs::DECIDED.into()),
        ("reconciled", Plot::Reconciled, graphs::RECONCILED.into()),
        ("turns", Plot::Says(TURNS), graphs::TURNS.into()),
        ("plan", Plot::Says(PLAN), graphs::PLAN.into()),
        ("sub-run", Plot::Nesting, graphs::OUTER.into()),
        ("sub-run-inner", Plot::Nested, graphs::OUTER.into()),
        ("spawned", Plot::Spawned, graphs::SPAWNING.into()),
        ("queued", Plot::Queued, graphs::SPAWNING.replace("name: spawning", "name: queued")),
        ("memory", Plot::None, graphs::MEMORY.into()),
        // `memory` is of a time when no tool node had an intent.
        ("tool-effect", Plot::None, graphs::MEMORY.replace("name: memory", "name: tool-effect")),
        ("forked", Plot::Forked, graphs::LINE.into()),
    ]
}

fn model(plot: Plot) -> Model {
    match plot {
        Plot::Busy | Plot::Reopened | Plot::Repaired => Model::BusyOnce,
        Plot::Says(lines) => Model::Says(lines),
        Plot::Spawned => Model::Says(SPAWNING),
        Plot::Queued => Model::Says(QUEUING),
        Plot::Chosen => Model::Pair,
        _ => Model::Answers,
    }
}

async fn play(plot: Plot, manifest: &str) -> Platform {
    let mut platform = Platform::new(manifest, &json!({"text": "text", "end": "!"})).await;
    let asked = Arc::new(Notify::new());
    match plot {
        Plot::Crashed | Plot::Reconciled => {
            let dead = platform.executor(Model::Hangs, &asked).await;
            asked.notified().await;
            // Like a dead process, it writes no more: its question is never answered.
            std::mem::forget(dead);
        }
        Plot::Nesting | Plot::Nested => drop(platform.register(graphs::INNER).await),
        Plot::Spawned | Plot::Queued => platform.define("tutor", graphs::TUTOR).await,
        Plot::Repaired => drop(platform.register(graphs::INNER_ASKING).await),
        _ => {}
    }
    let executor = platform.executor(model(plot), &asked).await;
    act(plot, manifest, &mut platform).await;
    platform.until(|state| state.phase.is_ended()).await;
    executor.shut_down().await.expect("the log works");
    platform
}

#[expect(clippy::unnecessary_wraps, reason = "commands take a reason that may be absent")]
fn because(text: PlatformText) -> Option<CommandReason> {
    Some(CommandReason::Platform(text))
}

/// What happens while the executor works.
async fn act(plot: Plot, manifest: &str, platform: &mut Platform) {
    match plot {
        Plot::Granted => platform.answer(true).await,
        Plot::Denied => platform.answer(false).await,
        Plot::Cancelled => {
            platform.until(|state| !state.approvals.is_empty()).await;
            platform.tell(RunCommand::Cancel { reason: because(platform_text!("enough")) }).await;
        }
        Plot::Moved => {
            platform.until(|state| !state.approvals.is_empty()).await;
            let to = platform.register(&(manifest.to_owned() + graphs::MORE)).await;
            platform.tell(RunCommand::Migrate { to }).await;
            platform.answer(true).await;
        }
        Plot::Paused => {
            platform.until(|state| !state.approvals.is_empty()).await;
            platform.tell(RunCommand::Mark { label: because(platform_text!("asked")) }).await;
            platform.tell(RunCommand::Pause { reason: because(platform_text!("lunch")) }).await;
            platform.tell(RunCommand::Resume).await;
            platform.answer(true).await;
        }
        Plot::Repeated => {
            platform.until(|state| !state.approvals.is_empty()).await;
            let pause = || RunCommand::Pause { reason: because(platform_text!("lunch")) };
            platform.ask(Uuid::from_u128(1), pause()).await;
            platform.tell(RunCommand::Resume).await;
            platform.ask(Uuid::from_u128(1), pause()).await;
            platform.answer(true).await;
        }
        Plot::Signalled => {
            platform.until(|state| !state.steps.is_empty()).await;
            platform.signal("payment", &json!({"by": "Ann"})).await;
        }
        Plot::Reopened => {
            platform.until(|state| state.phase == RunPhase::Failed).await;
            let steps = vec!["asks".parse().expect("a step")];
            platform.tell(RunCommand::Retry { steps }).await;
        }
        Plot::Repaired => {
            platform.until(|state| state.phase == RunPhase::Failed).await;
            let limits = NewLimits { tokens: Some(2_000), ..NewLimits::default() };
            let (steps, reason) =
                (vec!["sub".parse().expect("a step")], because(platform_text!("more")));
            let amend = AmendRun { limits, version: None, steps, reason };
            platform.tell(RunCommand::Amend(amend)).await;
        }
        Plot::Decided => platform.resolve("fails", Resolution::Skip, None).await,
        Plot::Reconciled => {
            platform.resolve("asks", Resolution::Completed, Some(&json!("as found"))).await;
        }
        Plot::Nested | Plot::Spawned => platform.enter_child().await,
        Plot::Forked => {
            platform.until(|state| state.phase.is_ended()).await;
            platform.fork_after("a", &json!({"text": "other", "end": "?"})).await;
        }
        Plot::None
        | Plot::Busy
        | Plot::Chosen
        | Plot::Crashed
        | Plot::Says(_)
        | Plot::Nesting
        | Plot::Queued => {}
    }
}

/// Does nothing unless it is asked to record.
#[tokio::test]
async fn scenarios_are_recorded_when_asked_for() {
    let Ok(asked) = std::env::var("CONVERGIO_RECORD") else { return };
    for (name, plot, manifest) in scenarios() {
        let path = folder().join(format!("{name}.jsonl"));
        let is_new = asked == "new" && !path.exists();
        if asked != name && !is_new {
            continue;
        }
        let platform = play(plot, &manifest).await;
        let file =
            run_file::export_run(platform.repository.clone(), platform.run.clone(), true).await;
        let pieces: Vec<_> =
            file.expect("readable").expect("a run").try_collect().await.expect("readable");
        std::fs::write(&path, pieces.concat()).expect("writable");
        println!("recorded {}", path.display());
    }
}
