//! The clock of a run: which time counts against `budget.wall` and `budget.deadline`, and how open
//! waits are extended by a pause.

use super::state::{ApprovalState, FingerprintPart, RunPhase, RunState};
use super::step::{RunStep, StepStatus};
use crate::id::{ApprovalId, StepId};
use crate::time::{Span, Timestamp};

impl RunState {
    /// True if all of the run waits for people, signals, timers or child runs.
    pub fn is_idle(&self) -> bool {
        self.phase == RunPhase::Running
            && !self.paused
            && self.active_steps == 0
            && !self.steps.is_empty()
    }

    /// Books the time since the last event, before the next event is folded.
    pub(super) fn advance_clock(&mut self, now: Timestamp) {
        // The state before this event tells whether the time since the last one was idle.
        if self.is_idle() {
            let passed_ms = now.span_since(self.clock.last_event).0;
            self.clock.idle_ms = self.clock.idle_ms.saturating_add(passed_ms);
        }
        self.clock.last_event = now;
    }

    /// Returns the idle time until `now`.
    fn idle_time(&self, now: Timestamp) -> Span {
        let passed = if self.is_idle() { now.span_since(self.clock.last_event) } else { Span(0) };
        add_spans(Span(self.clock.idle_ms), passed)
    }

    /// Returns the time until `now` in which the run was paused, or had ended before it was
    /// reopened.
    fn paused_time(&self, now: Timestamp) -> Span {
        let passed = self.stopped.map_or(Span(0), |since| now.span_since(since));
        add_spans(self.stood, passed)
    }

    /// Returns the active time until `now`, which counts against `budget.wall`.
    pub fn active_time(&self, now: Timestamp) -> Span {
        let is_over = self.phase.is_ended();
        // The clock of an ended run stops at its last event.
        let now = if is_over { now.min(self.clock.last_event) } else { now };
        let uncounted = add_spans(self.idle_time(now), self.paused_time(now));
        Span(now.span_since(self.created).0.saturating_sub(uncounted.0))
    }

    /// Returns the rest of `budget.wall`; `None` without that limit.
    pub fn remaining_wall_time(&self, now: Timestamp) -> Option<Span> {
        let used = self.active_time(now);
        self.budget.wall.map(|wall| Span(wall.0.saturating_sub(used.0)))
    }

    /// Returns the end of `budget.deadline`, which counts from creation without interruption.
    pub fn calendar_deadline(&self) -> Option<Timestamp> {
        self.budget.deadline.map(|deadline| self.created.add_span(deadline))
    }

    /// Returns the end of `budget.wall`; `None` while the run is paused or idle, since that time
    /// does not count.
    pub fn wall_deadline(&self) -> Option<Timestamp> {
        let wall = self.budget.wall.filter(|_| !self.paused && !self.is_idle())?;
        let uncounted = add_spans(self.stood, Span(self.clock.idle_ms));
        Some(self.created.add_span(wall).add_span(uncounted))
    }

    /// Returns the earliest time at which a budget limit ends the run, as far as it is known.
    pub fn earliest_deadline(&self) -> Option<Timestamp> {
        let calendar = self.calendar_deadline().filter(|_| !self.paused);
        self.wall_deadline().into_iter().chain(calendar).min()
    }

    /// Returns the time by which open waits expire: it stands still during a pause.
    pub(super) fn wait_reference_time(&self, now: Timestamp) -> Timestamp {
        self.stopped.unwrap_or(now)
    }

    /// Deducts a child's active time from the idle time in which this run waited for it. The
    /// deduction is bounded by the idle time since the child began.
    pub(super) fn deduct_child_time(&mut self, active_ms: u64, idle_at_begin_ms: u64) {
        let grown_ms = self.clock.idle_ms.saturating_sub(idle_at_begin_ms);
        self.clock.idle_ms -= grown_ms.min(active_ms);
    }

    /// Restarts `budget.wall` in full at `now`.
    pub(super) fn restart_wall_budget(&mut self, now: Timestamp) {
        let passed = now.span_since(self.created).0;
        // All time so far becomes pause, except the idle time, which is uncounted already.
        self.stood = Span(passed.saturating_sub(self.clock.idle_ms));
    }

    /// Extends all open waits by the length of a pause.
    pub(super) fn extend_waits(&mut self, by: Span) {
        let is_open = |state: ApprovalState| state == ApprovalState::Open;
        let open: Vec<ApprovalId> = self
            .approvals
            .iter()
            .filter(|(_, asked)| is_open(asked.state) && asked.expires.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            if let Some(approval) = self.approvals.get_mut(&id) {
                approval.expires = approval.expires.map(|expires| expires.add_span(by));
                self.changed_parts.insert(FingerprintPart::Approval(id));
            }
        }
        let waiting: Vec<StepId> = self
            .steps
            .iter()
            .filter(|(_, step)| has_open_wait(step))
            .map(|(id, _)| id.clone())
            .collect();
        for id in waiting {
            self.update_step(&id, |step| extend_step_wait(step, by));
        }
    }
}

/// True if the step has a wait that a pause extends.
fn has_open_wait(step: &RunStep) -> bool {
    let is_timed = matches!(
        step.status,
        StepStatus::Sleeping { .. } | StepStatus::Awaiting { expires: Some(_), received: None, .. }
    );
    is_timed || (step.turns.is_some() && !step.is_ended())
}

/// Extends the waits of one step.
fn extend_step_wait(step: &mut RunStep, by: Span) {
    match &mut step.status {
        StepStatus::Sleeping { due } => *due = due.add_span(by),
        StepStatus::Awaiting { expires: Some(expires), received: None, .. } => {
            *expires = expires.add_span(by);
        }
        _ => {}
    }
    if let Some(turns) = step.turns.as_deref_mut() {
        // The time limit of an agent counts from its beginning.
        turns.began = turns.began.add_span(by);
    }
}

/// Adds two spans; saturates at the maximum.
fn add_spans(one: Span, other: Span) -> Span {
    Span(one.0.saturating_add(other.0))
}
