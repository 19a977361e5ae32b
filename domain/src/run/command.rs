//! What may be asked of a run.

use super::amend::AmendRun;
use super::children::{ChildReport, Lineage};
use super::family::{ChildReopening, FamilyCommand, ReopenRun};
use super::moves::Move;
use super::turns::CallNo;
use crate::chat::Privacy;
use crate::failure::{FailureReport, PlatformText};
use crate::id::{
    AgentId, ApprovalId, ExecutorId, GraphId, GraphVersion, NodeId, RunId, SignalName, StepId,
};
use crate::metering::{Charge, Meter, Usage};
use crate::money::Money;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::run::{Budget, Fallback, ForkRun, Resolve, Routing, Signal, Table};
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

/// A command to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunCommand {
    /// Begin a run.
    Create(CreateRun),
    /// Record what an executor did and is about to do.
    Advance(Advance),
    /// Answer a question.
    Answer(Answer),
    /// Note that runs within this one exist.
    ChildrenCreated(Vec<RunId>),
    /// Take in what came of a run within this one.
    ChildEnded(ChildReport),
    /// Note that the run that this one belongs to knows of its end.
    ParentTold,
    /// Go on by another version of the run's graph. Whether the version fits the state was found
    /// before, by the kernel.
    Migrate {
        /// The version.
        to: GraphVersion,
    },
    /// End the run before its time.
    Cancel {
        /// Why.
        reason: Option<Reason>,
    },
    /// Start no further step.
    Pause {
        /// Why.
        reason: Option<Reason>,
    },
    /// Go on after a pause.
    Resume,
    /// Go on after a failure, with another series of tries.
    Retry {
        /// Every step whose failure ended the run, and the maps of those that are items.
        steps: Vec<StepId>,
    },
    /// Do as a run that this one belongs to does.
    Inherit(FamilyCommand),
    /// Go on after an end, because the run that it belongs to does.
    Reopen(ReopenRun),
    /// Get another budget or another version of the graph, and go on after a failure.
    Amend(AmendRun),
    /// Take in an outside event.
    Signal(Signal),
    /// Decide what becomes of a step.
    Resolve(Resolve),
    /// Mark this point of the run.
    Mark {
        /// What for.
        label: Option<Reason>,
    },
    /// Begin a run as a part of another one's history.
    Fork(ForkRun),
}

/// Begins a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRun {
    /// The graph.
    pub graph: GraphId,
    /// Its version.
    pub version: GraphVersion,
    /// The inputs.
    pub input: PayloadSlot,
    /// What the run may spend.
    pub budget: Budget,
    /// Where its conversations may travel at most.
    pub privacy: Privacy,
    /// BLAKE3 of the request.
    pub request_hash: String,
    /// What it takes over from who creates it.
    pub lineage: Lineage,
}

/// What an executor did since it last wrote, and what it is about to do: one commit. The kernel's
/// scheduler has answered before: `ready`, `skipped` and `end` are its words, so that the domain
/// needs no kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Who.
    pub executor: ExecutorId,
    /// What happened within steps that go on, at most one move a step.
    pub moves: Vec<Move>,
    /// Outcomes, in the order in which they were given to the scheduler.
    pub outcomes: Vec<Outcome>,
    /// Steps that begin and end in this commit, because they have no effect: branches, empty maps,
    /// and steps whose arguments cannot be built. Their `attempt` is the one that would have
    /// started.
    pub instant: Vec<Outcome>,
    /// Steps that the scheduler made ready and that are still to be done.
    pub ready: Vec<StepId>,
    /// Steps that are started here.
    pub starts: Vec<Start>,
    /// The end of the run, when the scheduler says so.
    pub end: Option<End>,
}

impl Advance {
    /// Of an executor that did nothing so far and is about to do nothing.
    pub fn empty(executor: ExecutorId) -> Self {
        Self {
            executor,
            moves: Vec::new(),
            outcomes: Vec::new(),
            instant: Vec::new(),
            ready: Vec::new(),
            starts: Vec::new(),
            end: None,
        }
    }
}

/// The outcome of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// What came of it.
    pub result: StepResult,
    /// The model call that was made, if one was.
    pub call: Option<CallReport>,
    /// Nodes that will never run because of it.
    pub skipped: Vec<NodeId>,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// It succeeded.
    Completed {
        /// What it yielded.
        output: Option<PayloadSlot>,
        /// The case that a branch took.
        case: Option<u32>,
    },
    /// It yields what is in the log already.
    Yielded {
        /// What it yields.
        output: Option<PayloadRef>,
    },
    /// It failed; another try starts at `retry_at`, or none if that is absent.
    Failed {
        /// Why.
        error: FailureReport,
        /// Start of the next try.
        retry_at: Option<Timestamp>,
    },
    /// Its executor died. Another try starts at `retry_at`, or the step fails if that is absent.
    Unknown {
        /// Start of the next try.
        retry_at: Option<Timestamp>,
    },
    /// It failed, and somebody must decide what becomes of the step.
    FailedAsking {
        /// Why.
        error: FailureReport,
    },
    /// Its executor died, and somebody must decide what becomes of the step.
    UnknownAsking,
    /// By decision, another try starts now.
    Retried,
    /// By decision, the run goes on without it.
    Skipped,
}

impl StepResult {
    /// Whether nobody knows what was done.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::UnknownAsking)
    }
}

/// What a finished model call told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReport {
    /// The provider's name.
    pub provider: String,
    /// The model that answered; for a failed call, the model asked.
    pub model: String,
    /// Why the model stopped; absent for a failed call.
    pub finish: Option<String>,
    /// Milliseconds from the request to the last byte.
    pub duration_ms: u64,
    /// Milliseconds to the first token.
    pub first_token_ms: Option<u64>,
    /// Quantities in disjoint classes; absent when nothing was used.
    pub usage: Option<Usage>,
    /// False when the quantities are our estimate.
    pub confirmed: bool,
    /// The tier that served the call, by the provider's word, when it is not the usual one.
    pub service_tier: Option<String>,
    /// The cost; absent when the model has no price.
    pub charge: Option<Charge>,
    /// The cost by the provider's own word, in US dollars.
    pub provider_cost: Option<Money>,
    /// Who is not asked again, when a failed call is followed by one to somebody else.
    pub fallback: Option<Fallback>,
    /// How long the provider asks to be left alone, after a failed call. It is not written down:
    /// the next try's due time tells it.
    pub retry_after: Option<Span>,
}

/// A step that is about to be performed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The step.
    pub step: StepId,
    /// What will be done.
    pub intent: Intent,
}

/// What a started step is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// A pure computation: may be repeated at will.
    Compute,
    /// A model call.
    CallModel {
        /// The agent's turn, from 1; 0 for an agent without tools.
        turn: u32,
        /// The provider's name.
        provider: String,
        /// The model.
        model: String,
        /// Why the router chose it.
        route: String,
        /// What it was chosen from.
        routing: Option<Box<Routing<Table>>>,
        /// The name of the key.
        key: Option<String>,
        /// What the provider does not take.
        left_out: Vec<String>,
        /// The exact request.
        prompt: PayloadSlot,
        /// Worst case of tokens.
        reserved_tokens: u64,
        /// Worst case of money, when the model has a price.
        reserved_cost: Option<Money>,
        /// Tokens that are sent, as estimated.
        estimated_tokens: Option<u64>,
        /// What the estimate counts, for a call that is no chat.
        estimated_meter: Option<Meter>,
        /// Most tokens of the answer, where the budget and not the caller set it.
        output_limit: Option<u32>,
        /// What the provider recognises the call by, should it be sent again.
        idempotency_key: Option<String>,
    },
    /// A tool call before an agent's first turn.
    CallTool {
        /// Which call.
        at: CallNo,
        /// The tool's name.
        name: String,
    },
    /// A run within this one.
    Child(ChildIntent),
    /// A run within this one that had ended and goes on.
    ReopenChild(ChildReopening),
    /// Becomes this many items; `ready` of the command holds the first of them.
    Expand {
        /// How many.
        width: u32,
        /// How many at once.
        max_parallel: u32,
    },
    /// Waits.
    Sleep {
        /// Until when.
        due: Timestamp,
    },
    /// Waits for an outside event.
    Await {
        /// Its name.
        signal: SignalName,
        /// When the step stops waiting.
        expires: Option<Timestamp>,
    },
    /// Asks a person.
    Ask {
        /// The question.
        approval: ApprovalId,
        /// Who may answer.
        role: String,
        /// What is shown.
        content: PayloadSlot,
        /// SHA-256 of it.
        content_hash: String,
        /// When the question lapses.
        expires: Option<Timestamp>,
    },
}

/// A run that is about to be created within this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildIntent {
    /// The tool call that it answers.
    pub at: Option<CallNo>,
    /// The run.
    pub child: RunId,
    /// Its graph.
    pub graph: GraphId,
    /// The pinned version.
    pub version: GraphVersion,
    /// Its inputs.
    pub input: PayloadSlot,
    /// The canonical manifest, when the graph is to be registered first.
    pub manifest: Option<PayloadSlot>,
    /// What it may spend.
    pub budget: Budget,
    /// Where its prompts may travel.
    pub privacy: Privacy,
    /// The agent that it is a run of.
    pub agent: Option<AgentId>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All is done.
    Completed {
        /// What the run yields.
        output: Option<PayloadSlot>,
    },
    /// A failure ended it.
    Failed {
        /// The step that decided it.
        step: Option<StepId>,
        /// Why.
        error: FailureReport,
    },
}

/// Why somebody asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// In words of the platform.
    Platform(PlatformText),
    /// In a person's words: they are sealed.
    Sealed(PayloadSlot),
}

impl Reason {
    /// As an event has it: words of the platform, and where the person's lie.
    pub(super) fn written(
        reason: Option<Self>,
        first: Seq,
    ) -> (Option<PlatformText>, Option<PayloadRef>) {
        match reason {
            None => (None, None),
            Some(Self::Platform(text)) => (Some(text), None),
            Some(Self::Sealed(slot)) => (None, Some(slot.at(first))),
        }
    }
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub approval: ApprovalId,
    /// SHA-256 of the content that the person saw.
    pub content_hash: String,
    /// Yes or no.
    pub granted: bool,
    /// Why.
    pub reason: Option<Reason>,
    /// The roles of who answers.
    pub roles: Vec<String>,
}
