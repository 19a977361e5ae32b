//! The runs that are recorded here; others come from `convergio runs export`.

use std::sync::Arc;

use convergio_domain::run::RunCommand;
use convergio_eventstore::run_file;
use futures_util::TryStreamExt;
use serde_json::json;
use tokio::sync::Notify;

use crate::graphs;
use crate::platform::{Model, Platform};
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
}

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
    ]
}

async fn play(plot: Plot, manifest: &str) -> Platform {
    let platform = Platform::new(manifest, &json!({"text": "text"})).await;
    let asked = Arc::new(Notify::new());
    if let Plot::Crashed = plot {
        let dead = platform.executor(Model::Hangs, &asked).await;
        asked.notified().await;
        // Like a dead process, it writes no more: its question is never answered.
        std::mem::forget(dead);
    }
    let model = match plot {
        Plot::Busy => Model::BusyOnce,
        Plot::Chosen => Model::Pair,
        _ => Model::Answers,
    };
    let executor = platform.executor(model, &asked).await;
    match plot {
        Plot::Granted => platform.answer(true).await,
        Plot::Denied => platform.answer(false).await,
        Plot::Cancelled => {
            platform.until(|state| !state.approvals.is_empty()).await;
            platform.tell(RunCommand::Cancel { reason: Some("enough".into()) }).await;
        }
        Plot::Moved => {
            platform.until(|state| !state.approvals.is_empty()).await;
            let to = platform.register(&(manifest.to_owned() + graphs::MORE)).await;
            platform.tell(RunCommand::Migrate { to }).await;
            platform.answer(true).await;
        }
        Plot::None | Plot::Busy | Plot::Chosen | Plot::Crashed => {}
    }
    platform.until(|state| state.phase.is_ended()).await;
    executor.shutdown().await.expect("the log works");
    platform
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
        let file = run_file::export(platform.repository.clone(), platform.run.clone(), true).await;
        let pieces: Vec<_> =
            file.expect("readable").expect("a run").try_collect().await.expect("readable");
        std::fs::write(&path, pieces.concat()).expect("writable");
        println!("recorded {}", path.display());
    }
}
