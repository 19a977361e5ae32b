//! Commands to a run, with their contents.

use uuid::Uuid;

use super::advance_command::AdvanceRun;
use super::values::{Budget, Resolution, RunOrigin};
use crate::chat::Privacy;
use crate::failure::{FailureReport, PlatformText};
use crate::fingerprint::Fingerprint;
use crate::id::{AgentId, ApprovalId, GraphId, GraphVersion, RunId, SignalName, StepId};
use crate::money::Money;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::stream::Seq;
use crate::time::Span;

/// Maximum number of external events that a run receives.
pub const SIGNALS_LIMIT: usize = 10_000;

/// A command to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunCommand {
    /// Creates the run for a graph version.
    Create(CreateRun),
    /// Records the work of an executor and its next intents.
    Advance(AdvanceRun),
    /// Answers an approval request.
    Answer(AnswerApproval),
    /// Records that child runs exist.
    ChildrenCreated(Vec<RunId>),
    /// Records the end of a child run.
    ChildEnded(ChildReport),
    /// Records that the parent run knows of this run's end.
    ParentTold,
    /// Continues with another version of the run's graph. The kernel has checked before that the
    /// version fits the state.
    Migrate {
        /// Graph version from now on.
        to: GraphVersion,
    },
    /// Ends a running run; a person asks for it.
    Cancel {
        /// Reason of the person, if one was given.
        reason: Option<CommandReason>,
    },
    /// Lets no further step start.
    Pause {
        /// Reason of the person, if one was given.
        reason: Option<CommandReason>,
    },
    /// Ends a pause of the run itself.
    Resume,
    /// Reopens a failed run with a new series of attempts.
    Retry {
        /// Steps whose failure ended the run, and the map nodes of those that are items.
        steps: Vec<StepId>,
    },
    /// Follows a pause, resumption or cancellation of the parent run.
    Inherit(FamilyCommand),
    /// Reopens an ended child run because its parent continues.
    Reopen(ReopenRun),
    /// Changes the budget or graph version, and reopens the run if it has failed.
    Amend(AmendRun),
    /// Delivers an external event.
    Signal(SendSignal),
    /// Decides what becomes of a failed or lost step.
    Resolve(ResolveStep),
    /// Marks this point of the run with a checkpoint.
    Mark {
        /// Label of the checkpoint, if one was given.
        label: Option<CommandReason>,
    },
    /// Creates the run as a fork of another one.
    Fork(ForkRun),
}

/// Command content: creates a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRun {
    /// Graph that the run executes.
    pub graph: GraphId,
    /// Graph version to which the run is pinned.
    pub version: GraphVersion,
    /// Inputs of the run, a JSON object.
    pub input: PayloadSlot,
    /// Budget of the run, including its child runs.
    pub budget: Budget,
    /// Farthest that the run's conversations may travel.
    pub privacy: Privacy,
    /// BLAKE3 of the request, by which a retry of the request is recognised.
    pub request_hash: String,
    /// Parent and agent of the run.
    pub provenance: Provenance,
}

/// Reason that accompanies a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandReason {
    /// Text of the platform, which the event contains.
    Platform(PlatformText),
    /// Text of a person, which is sealed as a payload.
    Sealed(PayloadSlot),
}

impl CommandReason {
    /// Returns the two event fields of a reason: the platform's text, or the position of the
    /// person's payload.
    pub(super) fn event_fields(
        reason: Option<Self>,
        first: Seq,
    ) -> (Option<PlatformText>, Option<PayloadRef>) {
        match reason {
            None => (None, None),
            Some(Self::Platform(text)) => (Some(text), None),
            Some(Self::Sealed(slot)) => (None, Some(slot.to_payload_ref(first))),
        }
    }
}

/// Command content: answers an approval request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerApproval {
    /// Id of the approval request.
    pub approval: ApprovalId,
    /// SHA-256 of the content that the person saw.
    pub content_hash: String,
    /// True to grant, false to deny.
    pub granted: bool,
    /// Reason of the person, if one was given.
    pub reason: Option<CommandReason>,
    /// Roles of the person, one of which must be that of the request.
    pub roles: Vec<String>,
}

/// Properties that a run takes over from its creator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Parent run, if this is a child run.
    pub origin: Option<RunOrigin>,
    /// Agent that the run executes, if any.
    pub agent: Option<AgentId>,
}

/// Command content: a child run reports its end to its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildReport {
    /// Id of the child run.
    pub child: RunId,
    /// Failure or cancellation; `None` if it completed.
    pub error: Option<FailureReport>,
    /// Output of the child run, as a payload of the commit.
    pub output: Option<PayloadSlot>,
    /// Tokens used by the child run and its descendants, over all its reopenings.
    pub tokens: u64,
    /// Cost of the child run and its descendants, over all its reopenings.
    pub cost: Money,
    /// Number of times it had been reopened before this end.
    pub reopenings: u32,
    /// Active time of the child run, in milliseconds.
    pub active_ms: Option<u64>,
    /// True if it was cancelled only because an ancestor ended.
    pub inherited: bool,
}

/// Command that a run passes on to its child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyCommand {
    /// End, because the parent has ended.
    Cancel,
    /// Start no further step, because the parent is paused.
    Pause,
    /// End the inherited pause.
    Resume,
}

/// Command content: reopens an ended child run, because its parent continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReopenRun {
    /// Number of reopenings that the run will have had. A run that has had as many ignores the
    /// command.
    pub reopenings: u32,
    /// Failed steps that ended the run, by its graph.
    pub steps: Vec<StepId>,
    /// Total budget of the run, including what it has spent.
    pub budget: Budget,
    /// Graph version with which the run continues.
    pub version: GraphVersion,
}

/// Command: changes the budget or the graph version of a run that is running or has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmendRun {
    /// New limits; limits that are `None` stay.
    pub limits: NewLimits,
    /// New graph version. The kernel has checked before that it fits the state.
    pub version: Option<GraphVersion>,
    /// Failed steps that ended the run, by its graph; they get a new series of attempts.
    pub steps: Vec<StepId>,
    /// Reason of the amendment, if one was given.
    pub reason: Option<CommandReason>,
}

/// Budget limits that replace those of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewLimits {
    /// Maximum tokens, input and output together.
    pub tokens: Option<u64>,
    /// Maximum cost, in the currency of the prices.
    pub cost: Option<Money>,
    /// Maximum active time of the run.
    pub wall: Option<Span>,
    /// Maximum time from creation to end.
    pub deadline: Option<Span>,
}

impl NewLimits {
    /// Returns the budget with these limits replaced.
    pub(super) fn apply_to(self, budget: Budget) -> Budget {
        Budget {
            tokens: self.tokens.or(budget.tokens),
            cost: self.cost.or(budget.cost),
            wall: self.wall.or(budget.wall),
            deadline: self.deadline.or(budget.deadline),
        }
    }
}

/// Command content: delivers an external event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendSignal {
    /// Id chosen by the sender; a second event with the same id has no effect.
    pub id: Uuid,
    /// Name of the event, by which steps wait for it.
    pub name: SignalName,
    /// Content of the event, as JSON.
    pub payload: PayloadSlot,
}

/// Command content: decides what becomes of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveStep {
    /// Step to decide about.
    pub step: StepId,
    /// Decision about the step.
    pub resolution: Resolution,
    /// Output of the step, if the decision is that it completed.
    pub output: Option<PayloadSlot>,
    /// Reason of the person, if one was given.
    pub reason: Option<CommandReason>,
}

/// Command content: creates a run that inherits another run's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkRun {
    /// Run whose history is inherited.
    pub parent: RunId,
    /// Last inherited event; always the end of a commit.
    pub seq: Seq,
    /// Hash of that commit's record, as hexadecimal digits.
    pub hash: String,
    /// Fingerprint of the parent's state after that event.
    pub fingerprint: Fingerprint,
    /// Graph that the fork executes.
    pub graph: GraphId,
    /// Graph version from here on.
    pub version: GraphVersion,
    /// Changed inputs; `None` keeps the parent's.
    pub input: Option<PayloadSlot>,
    /// Budget of the fork itself.
    pub budget: Budget,
    /// Paths of the changes, as `model` or `nodes.summary.prompt`.
    pub changes: Vec<String>,
    /// BLAKE3 of the request, by which a retry of the request is recognised.
    pub request_hash: String,
    /// True if the parent was imported from a file.
    pub is_parent_imported: bool,
}
