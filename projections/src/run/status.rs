//! Status of the steps of a run, and the run's counts of them: both change together.
//!
//! A step that had not ended when its run did is *abandoned*: no further event concerns it. Its
//! earlier status is kept in `resume_status`, since the run may be reopened.

use convergio_domain::id::StepId;
use convergio_domain::stream::StreamKey;
use sqlx::AnyConnection;

use super::row_cache::{CachedRun, CachedStep};
use super::rows::{RunRow, StepRow};

/// The status of a step that had not ended when its run did.
const ABANDONED: &str = "abandoned";

impl CachedRun {
    /// Sets the status of a step; its first event inserts its row.
    pub(super) async fn set_status(
        &mut self,
        connection: &mut AnyConnection,
        (stream, step): (&StreamKey, &StepId),
        first_seq: i64,
        status: &str,
    ) -> sqlx::Result<()> {
        let cached_step = self.load_step(connection, stream, step).await?;
        let is_new = cached_step.row.is_none();
        if is_new {
            *cached_step = CachedStep { row: Some(new_row(step)), first_seq, is_changed: true };
            self.change_row(|run| run.steps_total += 1);
        }
        let name = step.to_string();
        self.move_steps(std::iter::once(name), |_| Some(status.to_owned()));
        Ok(())
    }

    /// Marks every open step as abandoned, after the run has ended.
    pub(super) async fn abandon_steps(
        &mut self,
        connection: &mut AnyConnection,
        stream: &StreamKey,
    ) -> sqlx::Result<()> {
        self.load_unfinished_steps(connection, stream).await?;
        // Names are copied because moving steps borrows the map mutably.
        let names: Vec<String> = self.steps.keys().cloned().collect();
        // `move_step` turns an open status in an ended run into `abandoned`.
        self.move_steps(names, |row| is_open(&row.status).then(|| row.status.clone()));
        Ok(())
    }

    /// Returns abandoned steps to their earlier status, after the run was reopened.
    pub(super) async fn resume_steps(
        &mut self,
        connection: &mut AnyConnection,
        stream: &StreamKey,
    ) -> sqlx::Result<()> {
        self.load_unfinished_steps(connection, stream).await?;
        let names: Vec<String> = self.steps.keys().cloned().collect();
        self.move_steps(names, |row| row.resume_status.clone());
        Ok(())
    }

    /// Moves cached steps to the status that `next_status` returns; `None` leaves a step as it is.
    fn move_steps(
        &mut self,
        names: impl IntoIterator<Item = String>,
        next_status: impl Fn(&StepRow) -> Option<String>,
    ) {
        for name in names {
            let Some(step) = self.steps.get_mut(&name) else { continue };
            let Some(row) = &mut step.row else { continue };
            let Some(status) = next_status(row) else { continue };
            move_step(self.row.as_mut(), row, &status);
            (step.is_changed, self.is_changed) = (true, true);
        }
    }
}

/// Sets a step's status and adjusts the run's counts by the difference.
fn move_step(mut run: Option<&mut RunRow>, step: &mut StepRow, status: &str) {
    let has_ended = run.as_ref().is_some_and(|run| run.ended_ms.is_some());
    let is_abandoned = has_ended && is_open(status);
    let new = if is_abandoned { ABANDONED } else { status };
    if let Some(run) = &mut run {
        adjust_step_count(run, &step.status, -1);
        adjust_step_count(run, new, 1);
    }
    step.resume_status = is_abandoned.then(|| status.to_owned());
    new.clone_into(&mut step.status);
}

/// Adds `by` to the run's count of steps in this status, if it is counted.
fn adjust_step_count(run: &mut RunRow, status: &str, by: i64) {
    match status {
        "completed" | "skipped" => run.steps_done += by,
        ABANDONED => run.steps_abandoned += by,
        _ => {}
    }
}

/// True if a step in this status has not ended.
fn is_open(status: &str) -> bool {
    !matches!(status, "completed" | "failed" | "skipped" | ABANDONED)
}

/// The row of a step without any event. Its kind is `tool` until an event says otherwise, since a
/// tool step has no event of its own kind.
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
