//! Results of replays in the API's form.

use convergio_domain::run::RunPhase;
use convergio_domain::stream::StreamKey;
use convergio_executor::replay::Divergence;
use convergio_schemas::wire::{DivergenceView, ReplayReport, ReplayedStep};

use crate::run_replay::ReplayOutcome;

/// A divergence in one line.
pub(crate) fn divergence_text(found: &Divergence) -> String {
    let step = found.step.as_ref().map_or_else(|| "the run".to_owned(), ToString::to_string);
    let Divergence { seq, aspect: what, recorded, computed, .. } = found;
    format!("event {seq}, {step}: {what}: written `{recorded}`, computed `{computed}`")
}

/// Report of a replay in the API's form. `rows` is the number of rows that were compared too.
pub fn replay_report(run: &StreamKey, done: ReplayOutcome, rows: Option<u64>) -> ReplayReport {
    let ReplayOutcome { mut replay, divergence: diverges, .. } = done;
    let step = |(step, status): (String, &str)| ReplayedStep { step, status: status.into() };
    let diverges = diverges.map(|found| DivergenceView {
        seq: found.seq.0,
        step: found.step.map(|step| step.to_string()),
        what: found.aspect.into(),
        recorded: found.recorded,
        computed: found.computed,
    });
    ReplayReport {
        run: run.id.to_string(),
        seq: replay.state.seq.0,
        status: phase_name(replay.state.phase).into(),
        fingerprint: replay.state.refresh_fingerprint().to_string(),
        commits: replay.commits,
        decisions: replay.decisions,
        unknown: replay.skipped_decisions,
        rows,
        steps: replay.list_steps().into_iter().map(step).collect(),
        diverges,
    }
}

fn phase_name(phase: RunPhase) -> &'static str {
    match phase {
        RunPhase::New | RunPhase::Running => "running",
        RunPhase::Completed => "completed",
        RunPhase::Failed => "failed",
        RunPhase::Cancelled => "cancelled",
    }
}
