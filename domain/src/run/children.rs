//! Runs within a run: what is known of them, and what their end means.

use serde::{Deserialize, Serialize};

use super::fingerprint::Part;
use super::rejection::Rejection;
use super::state::{Budget, Phase, RunState, Spent};
use super::turns::{CallNo, ToolState};
use crate::chat::Privacy;
use crate::event::run::Failure;
use crate::event::{Event, turn};
use crate::failure::FailureReport;
use crate::id::{AgentId, GraphId, GraphVersion, RunId, StepId};
use crate::money::Money;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::request::derived_uuid;
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

/// Runs within runs within runs at most.
pub const DEPTH_LIMIT: u32 = 4;
/// Runs that one run may have within it at once.
pub const WIDTH_LIMIT: usize = 64;

/// When somebody looks whether a run within was created, if it has not ended before.
const LOOK: Span = Span::seconds(10);

/// The run that another one belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The run.
    pub run: RunId,
    /// Its step that waits.
    pub step: StepId,
    /// How many runs this one is within.
    pub depth: u32,
}

/// What a run takes over from who created it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The run that it belongs to.
    pub origin: Option<Origin>,
    /// The agent that it is a run of.
    pub agent: Option<AgentId>,
}

/// A run within this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The step that waits for it.
    pub step: StepId,
    /// The try of that step.
    pub attempt: u32,
    /// The tool call that it answers.
    pub at: Option<CallNo>,
    /// Its graph.
    pub graph: GraphId,
    /// The pinned version.
    pub version: GraphVersion,
    /// Its inputs.
    pub input: PayloadRef,
    /// The manifest, when the graph is to be registered first.
    pub manifest: Option<PayloadRef>,
    /// What it may spend.
    pub budget: Budget,
    /// Where its prompts may travel.
    pub privacy: Privacy,
    /// The agent that it is a run of.
    pub agent: Option<AgentId>,
    /// When somebody looks whether it exists; absent once that is known.
    pub look: Option<Timestamp>,
    /// What came of it; absent while it is under way.
    pub ended: Option<ChildOutcome>,
    /// How often it went on after an end, as far as is known here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reopenings: u32,
    /// The version of its graph by which it is to go on after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopened_version: Option<GraphVersion>,
    /// Its part of the run's fingerprint, as last printed.
    #[serde(skip)]
    pub(super) print: u64,
}

/// What came of a run within this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildOutcome {
    /// Why it yielded nothing; absent when it completed.
    pub error: Option<Failure>,
    /// What it yielded.
    pub output: Option<PayloadRef>,
    /// Whether it was cancelled only because this run, or one that this one belongs to, ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
}

impl ChildOutcome {
    /// Whether the run may go on: it failed, or was cancelled only because this one ended.
    pub fn is_reopenable(&self) -> bool {
        self.error.as_ref().is_some_and(|error| self.inherited || error.code != "run.cancelled")
    }
}

/// Tells a run what came of one within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildReport {
    /// The run within.
    pub child: RunId,
    /// Why it yielded nothing; absent when it completed.
    pub error: Option<FailureReport>,
    /// What it yielded.
    pub output: Option<PayloadSlot>,
    /// Tokens that it and the runs within it used.
    pub tokens: u64,
    /// Money that they cost.
    pub cost: Money,
    /// How often it had gone on after an end before this one.
    pub reopenings: u32,
    /// How long it worked, in milliseconds.
    pub active_ms: Option<u64>,
    /// Whether it was cancelled only because a run that it belongs to ended.
    pub inherited: bool,
}

/// The id of a run within a run: the same step, try and call, the same run.
pub fn child_run_id(run: RunId, step: &StepId, attempt: u32, at: Option<CallNo>) -> RunId {
    let call = at.map_or_else(String::new, |at| format!("{}.{}", at.turn, at.call));
    let parts = ["child/v1", &run.to_string(), &step.to_string(), &attempt.to_string(), &call];
    RunId(derived_uuid(&parts))
}

impl RunState {
    /// Runs within this one that are under way.
    pub fn open_children(&self) -> impl Iterator<Item = (&RunId, &Child)> {
        self.children.iter().filter(|(_, child)| child.ended.is_none())
    }

    /// How many runs this one is within.
    pub fn depth(&self) -> u32 {
        self.origin.as_ref().map_or(0, |origin| origin.depth)
    }

    /// Whether something remains to be done for other runs: those within it are not all over, or
    /// the one that it belongs to does not know of its end.
    pub fn owes(&self) -> bool {
        self.open_children().next().is_some()
            || (self.phase.is_ended() && self.origin.is_some() && !self.told)
    }

    /// What is left of the budget for runs within this one, in `shares` equal parts, when so much
    /// is spent and held. A limit that this run does not have does not bind them.
    pub fn share(&self, spent: Spent, shares: u64, now: Timestamp) -> Budget {
        let shares = shares.max(1);
        let Spent { tokens, reserved_tokens, cost, reserved_cost } = spent;
        let used = tokens.saturating_add(reserved_tokens);
        let money = |limit: Money| {
            let left = limit.scaled() - (cost + reserved_cost).scaled();
            Money::from_scaled(left.max(0) / i128::from(shares))
        };
        Budget {
            tokens: self.budget.tokens.map(|limit| limit.saturating_sub(used) / shares),
            cost: self.budget.cost.map(money),
            wall: self.wall_left(now),
            deadline: self.calendar_deadline().map(|deadline| deadline.since(now)),
        }
    }

    /// When somebody must look whether a run within this one was created.
    pub fn next_look(&self) -> Option<Timestamp> {
        self.open_children().filter_map(|(_, child)| child.look).min()
    }

    pub(super) fn note_child(&mut self, event: &turn::ChildCreated) {
        if let Some(child) = self.children.get_mut(&event.child) {
            child.look = None;
            self.changed.insert(Part::Child(event.child));
        }
    }

    pub(super) fn intend_child(&mut self, event: &turn::ChildIntended, at: Timestamp) {
        if self.children.contains_key(&event.child) {
            return;
        }
        self.spent.hold_tokens(event.budget.tokens.unwrap_or(0));
        self.spent.reserved_cost += event.budget.cost.unwrap_or_default();
        if let Some(at) = event.at {
            self.set_tool(&event.step, at, ToolState::Child(event.child));
        }
        self.change(&event.step, |step| {
            step.awaits.insert(event.child);
            if event.at.is_none() {
                step.child = Some(event.child);
            }
        });
        self.changed.insert(Part::Child(event.child));
        self.children.insert(event.child, Child::new(event, at));
        self.open_account(event.child);
    }

    pub(super) fn end_child(&mut self, event: &turn::ChildEnded) {
        let Some(child) = self.children.get(&event.child) else { return };
        if !child.takes_end(event.reopenings) {
            return;
        }
        let (step, budget, is_held) = (child.step.clone(), child.budget, child.ended.is_none());
        if is_held {
            let (tokens, cost) = self.child_hold(event.child, budget);
            self.spent.release_amounts(tokens, cost);
        }
        let (error, output, inherited) = (event.error.clone(), event.output, event.inherited);
        if let Some(child) = self.children.get_mut(&event.child) {
            child.ended = Some(ChildOutcome { error, output, inherited });
            child.reopenings = event.reopenings;
        }
        self.changed.insert(Part::Child(event.child));
        self.change(&step, |step| {
            step.awaits.remove(&event.child);
        });
        self.charge_child(event);
    }
}

impl Child {
    fn new(event: &turn::ChildIntended, at: Timestamp) -> Self {
        Self {
            step: event.step.clone(),
            attempt: event.attempt,
            at: event.at,
            graph: event.graph,
            version: event.version.clone(),
            input: event.input,
            manifest: event.manifest,
            budget: event.budget,
            privacy: event.privacy,
            agent: event.agent,
            look: Some(at.after(LOOK)),
            ended: None,
            reopenings: 0,
            reopened_version: None,
            print: 0,
        }
    }

    /// Whether an end that is told is news: of a run that is waited for, or that went on since.
    fn takes_end(&self, reopenings: u32) -> bool {
        match self.ended {
            Some(_) => reopenings > self.reopenings,
            None => reopenings >= self.reopenings,
        }
    }
}

/// A run within tells of its end. Told twice changes nothing; told after it went on, it counts
/// anew, and a run that failed by the failure of it goes on.
pub(super) fn child_ended(
    state: &RunState,
    report: ChildReport,
    next: Seq,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    if state.phase == Phase::New {
        return Err(Rejection::NotFound);
    }
    let child = state.children.get(&report.child).ok_or(Rejection::NoSuchChild(report.child))?;
    if !child.takes_end(report.reopenings) {
        return Ok(Vec::new());
    }
    let ended = turn::ChildEnded {
        child: report.child,
        error: report.error.map(|error| error.at(next)),
        output: report.output.map(|slot| slot.at(next)),
        tokens: report.tokens,
        cost: report.cost,
        reopenings: report.reopenings,
        active_ms: report.active_ms,
        inherited: report.inherited,
    };
    let (reopened, revived) = (state.reopened_late(&ended), state.revived_by(&ended, now));
    Ok([Event::ChildEnded(ended)].into_iter().chain(reopened).chain(revived).collect())
}

/// Runs within exist.
pub(super) fn children_created(state: &RunState, children: &[RunId]) -> Vec<Event> {
    let is_news =
        |child: &&RunId| state.children.get(child).is_some_and(|known| known.look.is_some());
    let created = |child: &RunId| Event::ChildCreated(turn::ChildCreated { child: *child });
    children.iter().filter(is_news).map(created).collect()
}

/// The run that this one belongs to has been told of its end.
pub(super) fn parent_told(state: &RunState) -> Result<Vec<Event>, Rejection> {
    if !state.phase.is_ended() {
        return Err(Rejection::NotEnded);
    }
    let is_due = state.origin.is_some() && !state.told;
    Ok(is_due.then_some(Event::ParentTold(turn::ParentTold {})).into_iter().collect())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
