//! Where the steps of a run stand, and the run's counts of them: both move together.
//!
//! Nothing comes any more of a step that had not ended when its run did: it is abandoned. Where it
//! stood is kept, since a run may be reopened.

use convergio_domain::id::StepId;
use convergio_domain::stream::StreamKey;
use sqlx::AnyConnection;

use super::held::{HeldRun, HeldStep};
use crate::rows::{RunRow, StepRow};

/// The status of a step that had not ended when its run did.
const ABANDONED: &str = "abandoned";

impl HeldRun {
    /// Moves a step to a status; it gets a row at its first event.
    pub(super) async fn set_status(
        &mut self,
        to: &mut AnyConnection,
        (stream, step): (&StreamKey, &StepId),
        first_seq: i64,
        status: &str,
    ) -> sqlx::Result<()> {
        let held = self.step(to, stream, step).await?;
        let is_new = held.row.is_none();
        if is_new {
            *held = HeldStep { row: Some(new_row(step)), first_seq, is_changed: true };
            self.change(|run| run.steps_total += 1);
        }
        let name = step.to_string();
        self.move_steps(std::iter::once(name), |_| Some(status.to_owned()));
        Ok(())
    }

    /// The run has ended: whatever is open is abandoned.
    pub(super) async fn abandon_steps(
        &mut self,
        to: &mut AnyConnection,
        stream: &StreamKey,
    ) -> sqlx::Result<()> {
        self.load_unfinished_steps(to, stream).await?;
        let names: Vec<String> = self.steps.keys().cloned().collect();
        // An open status in a run that has ended is that of an abandoned step.
        self.move_steps(names, |row| is_open(&row.status).then(|| row.status.clone()));
        Ok(())
    }

    /// The run goes on: what was abandoned stands where it stood.
    pub(super) async fn resume_steps(
        &mut self,
        to: &mut AnyConnection,
        stream: &StreamKey,
    ) -> sqlx::Result<()> {
        self.load_unfinished_steps(to, stream).await?;
        let names: Vec<String> = self.steps.keys().cloned().collect();
        self.move_steps(names, |row| row.resume_status.clone());
        Ok(())
    }

    /// Moves steps that are held to the status that `next` tells, if any.
    fn move_steps(
        &mut self,
        names: impl IntoIterator<Item = String>,
        next: impl Fn(&StepRow) -> Option<String>,
    ) {
        for name in names {
            let Some(step) = self.steps.get_mut(&name) else { continue };
            let Some(row) = &mut step.row else { continue };
            let Some(status) = next(row) else { continue };
            move_step(self.row.as_mut(), row, &status);
            (step.is_changed, self.is_changed) = (true, true);
        }
    }
}

fn move_step(mut run: Option<&mut RunRow>, step: &mut StepRow, status: &str) {
    let has_ended = run.as_ref().is_some_and(|run| run.ended_ms.is_some());
    let is_abandoned = has_ended && is_open(status);
    let new = if is_abandoned { ABANDONED } else { status };
    if let Some(run) = &mut run {
        count(run, &step.status, -1);
        count(run, new, 1);
    }
    step.resume_status = is_abandoned.then(|| status.to_owned());
    new.clone_into(&mut step.status);
}

/// Adds to the run's count of steps in this status.
fn count(run: &mut RunRow, status: &str, by: i64) {
    match status {
        "completed" | "skipped" => run.steps_done += by,
        ABANDONED => run.steps_abandoned += by,
        _ => {}
    }
}

/// Whether a step in this status has not come to its end.
fn is_open(status: &str) -> bool {
    !matches!(status, "completed" | "failed" | "skipped" | ABANDONED)
}

/// The row of a step of which nothing is known; no status yet.
fn new_row(step: &StepId) -> StepRow {
    StepRow {
        step: step.to_string(),
        node: step.node.to_string(),
        item: step.item.map_or(-1, i64::from),
        kind: "tool".to_owned(),
        status: String::new(),
        resume_status: None,
        attempt: 0,
        started_ms: None,
        ended_ms: None,
        provider: None,
        model: None,
        tokens_in: 0,
        tokens_out: 0,
        cost: "0".to_owned(),
        error_code: None,
        error_message: None,
        error_detail: None,
        output: None,
    }
}
