//! The command by which an executor reports its work, with the reports and intents that it carries.

use super::fallback::Fallback;
use super::routing::{CandidateTableRef, RouterDecision};
use super::values::{Budget, ToolCallNumber};
use crate::billing::{Charge, Meter, Usage};
use crate::chat::Privacy;
use crate::failure::FailureReport;
use crate::id::{
    AgentId, ApprovalId, ExecutorId, GraphId, GraphVersion, NodeId, RunId, SignalName, StepId,
};
use crate::money::Money;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::time::{Span, Timestamp};

/// Command content: an executor's work since its last report and its next intents, as one commit.
/// The kernel's scheduler has computed `ready_steps`, `skipped` and `end` before, so that the
/// domain does not depend on the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvanceRun {
    /// Executor process that reports.
    pub executor: ExecutorId,
    /// Progress within steps that continue, at most one update a step.
    pub turn_updates: Vec<TurnUpdate>,
    /// Outcomes of attempts, in the order in which the scheduler received them.
    pub outcomes: Vec<StepOutcome>,
    /// Outcomes of steps without effect, which begin and end in this commit: branches, empty maps,
    /// and steps whose arguments cannot be built. Their `attempt` is the one that would have
    /// started.
    pub instant_outcomes: Vec<StepOutcome>,
    /// Steps that became ready. Those that do not start in this commit are recorded as scheduled.
    pub ready_steps: Vec<StepId>,
    /// Steps that start in this commit.
    pub starts: Vec<StepStart>,
    /// End of the run, if the scheduler reports it.
    pub end: Option<RunOutcome>,
}

impl AdvanceRun {
    /// Creates a report without work or intents.
    pub fn new(executor: ExecutorId) -> Self {
        Self {
            executor,
            turn_updates: Vec::new(),
            outcomes: Vec::new(),
            instant_outcomes: Vec::new(),
            ready_steps: Vec::new(),
            starts: Vec::new(),
            end: None,
        }
    }
}

/// Outcome of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOutcome {
    /// Step that was attempted.
    pub step: StepId,
    /// Number of the attempt.
    pub attempt: u32,
    /// Result of the attempt, and what follows from it.
    pub result: StepResult,
    /// Model call that the attempt made, if any.
    pub call: Option<CallReport>,
    /// Nodes that will never run because of the outcome.
    pub skipped: Vec<NodeId>,
}

/// Result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// The step succeeded with a new output, or without one.
    Completed {
        /// Output of the step, as a payload of this commit.
        output: Option<PayloadSlot>,
        /// Index of the case that a branch took.
        case: Option<u32>,
    },
    /// The step succeeded with an output that is in the log already.
    Yielded {
        /// Output of the step, as a payload of an earlier commit.
        output: Option<PayloadRef>,
    },
    /// The attempt failed, with another one to follow or not.
    Failed {
        /// Failure of the attempt.
        error: FailureReport,
        /// Start of the next attempt; `None` if the step has failed for good.
        retry_at: Option<Timestamp>,
    },
    /// The executor died during the attempt.
    Unknown {
        /// Start of the next attempt; `None` if the step has failed for good.
        retry_at: Option<Timestamp>,
    },
    /// The attempt failed, and a person must decide what becomes of the step.
    FailedAsking {
        /// Failure of the attempt.
        error: FailureReport,
    },
    /// The executor died, and a person must decide what becomes of the step.
    UnknownAsking,
    /// By decision of a person, another attempt starts now.
    Retried,
    /// By decision of a person, the run continues without the step.
    Skipped,
}

impl StepResult {
    /// True if the executor died, so that the effects of the attempt are unknown.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::UnknownAsking)
    }
}

/// Report of a finished model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReport {
    /// Configured name of the provider.
    pub provider: String,
    /// Model that answered; for a failed call, the model that was called.
    pub model: String,
    /// Reason why generation stopped; `None` for a failed call.
    pub finish: Option<String>,
    /// Milliseconds from the request to the last byte.
    pub duration_ms: u64,
    /// Milliseconds from the request to the first token.
    pub first_token_ms: Option<u64>,
    /// Quantities in disjoint classes; `None` if nothing was used.
    pub usage: Option<Usage>,
    /// False if the quantities are an estimate.
    pub confirmed: bool,
    /// Service tier reported by the provider, if it is not the default one.
    pub service_tier: Option<String>,
    /// Cost by the price book; `None` if the model has no price.
    pub charge: Option<Charge>,
    /// Cost reported by the provider, in US dollars.
    pub provider_cost: Option<Money>,
    /// Model that the step must not call again, if a failed call is followed by one to another
    /// model.
    pub fallback: Option<Fallback>,
    /// Wait that the provider asked for after a failed call. Not recorded itself: it is part of the
    /// next attempt's due time.
    pub retry_after: Option<Span>,
}

impl CallReport {
    /// A report of nothing but that the call was made.
    pub fn unconfirmed(provider: &str, model: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
            finish: None,
            duration_ms: 0,
            first_token_ms: None,
            usage: None,
            confirmed: false,
            service_tier: None,
            charge: None,
            provider_cost: None,
            fallback: None,
            retry_after: None,
        }
    }
}

/// Start of a step, with its intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepStart {
    /// Step that starts in this commit.
    pub step: StepId,
    /// Effect that the step is about to have.
    pub intent: StepIntent,
}

/// Effect that a step is about to have. It is committed before the effect, so that a crash leaves a
/// trace of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepIntent {
    /// A pure computation, which can be repeated at will.
    Compute,
    /// A call to a model.
    CallModel {
        /// Turn of the agent, from 1; 0 for an agent without tools.
        turn: u32,
        /// Configured name of the provider.
        provider: String,
        /// Model id in the provider's spelling.
        model: String,
        /// Reason of the router for its choice.
        route: String,
        /// Input of the router's choice.
        routing: Option<Box<RouterDecision<CandidateTableRef>>>,
        /// Name of the API key, never the key itself.
        key: Option<String>,
        /// Request fields that the provider does not support.
        left_out: Vec<String>,
        /// Request exactly as it is sent.
        prompt: PayloadSlot,
        /// Worst case of tokens, held against the budget.
        reserved_tokens: u64,
        /// Worst case of cost; `None` if the model has no price.
        reserved_cost: Option<Money>,
        /// Estimated input tokens of the request.
        estimated_tokens: Option<u64>,
        /// Meter of the estimate, for calls that are no chat.
        estimated_meter: Option<Meter>,
        /// Maximum output tokens, where the budget and not the caller limits them.
        output_limit: Option<u32>,
        /// Key by which the provider recognises a repeated call.
        idempotency_key: Option<String>,
    },
    /// A tool call before an agent's first turn.
    CallTool {
        /// Turn and number of the tool call.
        tool_call: ToolCallNumber,
        /// Name of the tool, as the agent sees it.
        name: String,
    },
    /// A call of a tool that is not pure and is the whole step.
    RunTool(ToolIntent),
    /// Creation of a child run.
    CreateChild(ChildIntent),
    /// Reopening of a child run that had ended.
    ReopenChild(ChildReopening),
    /// Expansion of a map; `ready_steps` of the command holds its first items.
    ExpandMap {
        /// Number of items of the map.
        width: u32,
        /// Maximum number of items in flight at once.
        max_parallel: u32,
    },
    /// A wait until a time.
    Sleep {
        /// Time at which the sleep ends.
        due: Timestamp,
    },
    /// A wait for an external event.
    AwaitSignal {
        /// Name of the awaited event.
        signal: SignalName,
        /// Time at which the step gives up waiting and fails.
        expires: Option<Timestamp>,
    },
    /// A request for a person's approval.
    RequestApproval {
        /// Id of the approval request.
        approval: ApprovalId,
        /// Role that may answer; `owner` may always.
        role: String,
        /// Content to approve, exactly as shown to the person.
        content: PayloadSlot,
        /// SHA-256 of that content.
        content_hash: String,
        /// Time after which no answer is accepted.
        expires: Option<Timestamp>,
    },
}

/// Intent to call a tool that leaves a trace beside its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolIntent {
    /// Name of the tool.
    pub name: String,
    /// Arguments exactly as the tool gets them, as JSON.
    pub arguments: PayloadSlot,
    /// Key under which the tool recognises a repeated call; `None` if it does not.
    pub idempotency_key: Option<String>,
}

/// Intent to create a child run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildIntent {
    /// Tool call that the child run answers; `None` if it is the whole step.
    pub tool_call: Option<ToolCallNumber>,
    /// Id of the child run.
    pub child: RunId,
    /// Graph that the child run executes.
    pub graph: GraphId,
    /// Graph version to which it is pinned.
    pub version: GraphVersion,
    /// Inputs of the child run.
    pub input: PayloadSlot,
    /// Canonical manifest, if the graph has to be registered first.
    pub manifest: Option<PayloadSlot>,
    /// Budget of the child run, held against this run's budget.
    pub budget: Budget,
    /// Farthest that the child run's prompts may travel.
    pub privacy: Privacy,
    /// Agent that the child run executes, if any.
    pub agent: Option<AgentId>,
}

/// Intent to reopen a child run that had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildReopening {
    /// Id of the child run.
    pub child: RunId,
    /// Graph version with which it continues, if it changes.
    pub version: Option<GraphVersion>,
    /// Total budget of the child run, including what it has spent.
    pub budget: Budget,
}

/// Progress of an agent within its step since the last commit, and its next intents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnUpdate {
    /// Step of the agent.
    pub step: StepId,
    /// Attempt of that step that is under way.
    pub attempt: u32,
    /// Answer of the turn in flight, if it has arrived and another turn follows.
    pub answer: Option<TurnAnswer>,
    /// Results of tool calls of the current turn.
    pub results: Vec<ToolCallResult>,
    /// Intents that are recorded now.
    pub intents: Vec<TurnIntent>,
}

/// Answer of a turn's model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnAnswer {
    /// Report of the model call.
    pub call: CallReport,
    /// Whole reply, a [`crate::chat::ChatReply`].
    pub answer: PayloadSlot,
}

/// Result of a tool call. A call that fails or is denied may lack an intent: nothing was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCallResult {
    /// Turn and number of the tool call.
    pub tool_call: ToolCallNumber,
    /// Success or failure of the call.
    pub outcome: ToolOutcome,
    /// Result shown to the model, as JSON.
    pub result: PayloadSlot,
}

/// Success or failure of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolOutcome {
    /// The tool returned a result.
    Completed,
    /// The tool failed, or the call was invalid and nothing was called.
    Failed(FailureReport),
    /// The agent lacks permission for this tool.
    Denied {
        /// Name of the tool that the model asked for.
        name: String,
    },
}

/// Intent of an agent within its step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnIntent {
    /// A tool call that starts now.
    Tool {
        /// Turn and number of the tool call.
        tool_call: ToolCallNumber,
        /// Name of the tool, as the agent sees it.
        name: String,
    },
    /// A tool call whose child run waits, since the run has its maximum of open child runs.
    QueuedTool {
        /// Turn and number of the tool call.
        tool_call: ToolCallNumber,
        /// Name of the tool, as the agent sees it.
        name: String,
    },
    /// A model call or a child run.
    Begin(StepIntent),
}

impl TurnUpdate {
    /// Creates an update without results or intents.
    pub fn new(step: StepId, attempt: u32) -> Self {
        Self { step, attempt, answer: None, results: Vec::new(), intents: Vec::new() }
    }
}

/// End of a run, as the scheduler reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOutcome {
    /// All steps are done.
    Completed {
        /// Output of the run; `None` if the manifest names none.
        output: Option<PayloadSlot>,
    },
    /// A failure ended the run.
    Failed {
        /// Step whose failure ended the run; `None` if its output or budget did.
        step: Option<StepId>,
        /// Failure that ended the run.
        error: FailureReport,
    },
}
