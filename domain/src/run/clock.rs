//! The time of a run: what counts against `budget.wall` and `budget.deadline`, and how waits move
//! when the run stands still.

use serde::{Deserialize, Serialize};

use super::fingerprint::Part;
use super::state::{ApprovalState, Phase, RunState, Step, StepStatus};
use crate::id::{ApprovalId, StepId};
use crate::time::{Span, Timestamp};

/// What is known of a run's time besides its creation and its pauses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clock {
    /// When the last event was recorded.
    pub(super) last_event: Timestamp,
    /// How long nothing of the run could go on, because all of it waited for people, signals,
    /// time or runs within it. What runs within worked meanwhile is taken off again.
    pub(super) idle_ms: u64,
}

impl Step {
    /// Whether something of the step could go on without anybody from outside.
    pub(super) fn is_active(&self) -> bool {
        match &self.status {
            StepStatus::Scheduled { .. } | StepStatus::Unknown => true,
            StepStatus::Started { .. } => !self.is_parked(),
            StepStatus::Awaiting { received, .. } => received.is_some(),
            StepStatus::Undecided { decision, .. } => decision.is_some(),
            _ => false,
        }
    }
}

impl RunState {
    /// Whether all of the run waits: for people, signals, time, or runs within it.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Running && !self.paused && self.active == 0 && !self.steps.is_empty()
    }

    /// Notes the time of an event before it is folded.
    pub(super) fn advance_clock(&mut self, now: Timestamp) {
        if self.is_idle() {
            let passed_ms = now.since(self.clock.last_event).0;
            self.clock.idle_ms = self.clock.idle_ms.saturating_add(passed_ms);
        }
        self.clock.last_event = now;
    }

    /// How long the run has been idle until `now`.
    fn idle_until(&self, now: Timestamp) -> Span {
        let passed = if self.is_idle() { now.since(self.clock.last_event) } else { Span(0) };
        add(Span(self.clock.idle_ms), passed)
    }

    /// How long the run was paused, or failed and not yet reopened, until `now`.
    fn stood_until(&self, now: Timestamp) -> Span {
        let passed = self.stopped.map_or(Span(0), |since| now.since(since));
        add(self.stood, passed)
    }

    /// How long the run has worked until `now`: the time that counts against `budget.wall`.
    pub fn active_time(&self, now: Timestamp) -> Span {
        let is_over = self.phase.is_ended();
        let now = if is_over { now.min(self.clock.last_event) } else { now };
        let out = add(self.idle_until(now), self.stood_until(now));
        Span(now.since(self.created).0.saturating_sub(out.0))
    }

    /// What is left of `budget.wall`; `None` without such a limit.
    pub fn wall_left(&self, now: Timestamp) -> Option<Span> {
        let used = self.active_time(now);
        self.budget.wall.map(|wall| Span(wall.0.saturating_sub(used.0)))
    }

    /// When `budget.deadline` is over, counted from the creation whatever happens.
    pub fn calendar_deadline(&self) -> Option<Timestamp> {
        self.budget.deadline.map(|deadline| self.created.after(deadline))
    }

    /// When `budget.wall` is over; not known while the run is paused, or waits.
    pub fn wall_deadline(&self) -> Option<Timestamp> {
        let wall = self.budget.wall.filter(|_| !self.paused && !self.is_idle())?;
        let out = add(self.stood, Span(self.clock.idle_ms));
        Some(self.created.after(wall).after(out))
    }

    /// When the run must end at the latest, as far as that is known now.
    pub fn deadline(&self) -> Option<Timestamp> {
        let calendar = self.calendar_deadline().filter(|_| !self.paused);
        self.wall_deadline().into_iter().chain(calendar).min()
    }

    /// The time by which open waits are measured: it stands still while the run does.
    pub(super) fn wait_time(&self, now: Timestamp) -> Timestamp {
        self.stopped.unwrap_or(now)
    }

    /// Takes what a run within worked off the time in which this one only waited for it.
    pub(super) fn charge_time(&mut self, active_ms: u64, idle_at_begin_ms: u64) {
        let grown_ms = self.clock.idle_ms.saturating_sub(idle_at_begin_ms);
        self.clock.idle_ms -= grown_ms.min(active_ms);
    }

    /// Gives the run another `budget.wall` from now on.
    pub(super) fn restart_wall(&mut self, now: Timestamp) {
        let passed = now.since(self.created).0;
        self.stood = Span(passed.saturating_sub(self.clock.idle_ms));
    }

    /// Moves the ends of all open waits by the time that the run stood still.
    pub(super) fn shift_waits(&mut self, by: Span) {
        let is_open = |state: ApprovalState| state == ApprovalState::Open;
        let open: Vec<ApprovalId> = self
            .approvals
            .iter()
            .filter(|(_, asked)| is_open(asked.state) && asked.expires.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            if let Some(asked) = self.approvals.get_mut(&id) {
                asked.expires = asked.expires.map(|expires| expires.after(by));
                self.changed.insert(Part::Approval(id));
            }
        }
        let waiting: Vec<StepId> = self
            .steps
            .iter()
            .filter(|(_, step)| has_timer(step))
            .map(|(id, _)| id.clone())
            .collect();
        for id in waiting {
            self.change(&id, |step| shift_step(step, by));
        }
    }
}

fn has_timer(step: &Step) -> bool {
    let is_timed = matches!(
        step.status,
        StepStatus::Sleeping { .. } | StepStatus::Awaiting { expires: Some(_), received: None, .. }
    );
    is_timed || (step.turns.is_some() && !step.is_ended())
}

fn shift_step(step: &mut Step, by: Span) {
    match &mut step.status {
        StepStatus::Sleeping { due } => *due = due.after(by),
        StepStatus::Awaiting { expires: Some(expires), received: None, .. } => {
            *expires = expires.after(by);
        }
        _ => {}
    }
    if let Some(turns) = step.turns.as_deref_mut() {
        turns.began = turns.began.after(by);
    }
}

fn add(one: Span, other: Span) -> Span {
    Span(one.0.saturating_add(other.0))
}
