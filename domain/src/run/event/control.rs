//! Payloads of events that control a run from outside, version 1: pause, retry, amendment, signals,
//! decisions, imports and forks.
//!
//! The commands behind them are in `run/command.rs`; their rules are in `run/control.rs`,
//! `run/amend.rs` and `run/family.rs`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failure::PlatformText;
use crate::fingerprint::Fingerprint;
use crate::id::{ActorId, GraphId, GraphVersion, NodeId, RunId, SignalName, StepId};
use crate::payload::PayloadRef;
use crate::run::{Budget, Resolution};
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

/// `run.paused.v1`: no further step starts. Steps that are under way finish and are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPaused {
    /// Reason in platform text; in events of older versions, the person's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// Reason in the person's words, as a sealed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
    /// True if the run is paused because its parent run is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
}

/// `run.resumed.v1`: steps start again. The time of the pause does not count against the budget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResumed {
    /// True if the pause of the parent run ends, false if the run's own pause does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
    /// True if the run stays paused for the other cause: its own pause or its parent's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stays_paused: bool,
    /// Length of the pause; open approvals, signals and sleeps are extended by it. Absent while the
    /// other pause continues, and in events of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood: Option<Span>,
}

/// `run.reopened.v1`: a run continues that had failed, or that was cancelled together with its
/// parent run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReopened {
    /// Steps that get a new series of attempts.
    pub steps: Vec<StepId>,
    /// Number of times the run has been reopened, including this one; absent in events of older
    /// versions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reopenings: u32,
    /// Time since the run ended; open approvals, signals and sleeps are extended by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood: Option<Span>,
    /// True if `budget.wall` restarts in full, because it had been used up.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restarts_wall: bool,
    /// New total budget, set by the parent run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// `run.amended.v1`: the run's budget changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAmended {
    /// New total budget, including what has been spent.
    pub budget: Budget,
    /// Reason in platform text; in events of older versions, the person's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// Reason in the person's words, as a sealed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
}

/// `run.signal.awaited.v1`: a step waits for an external event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalAwaited {
    /// Step that waits.
    pub step: StepId,
    /// Name of the awaited event.
    pub signal: SignalName,
    /// Time at which the step gives up waiting and fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// `run.signal.received.v1`: an external event arrived. The first step that waits for its name
/// consumes it; without such a step it is queued for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalReceived {
    /// Id chosen by the sender; a second event with the same id has no effect.
    pub id: Uuid,
    /// Name of the event, by which steps wait for it.
    pub signal: SignalName,
    /// Content of the event, as JSON.
    pub payload: PayloadRef,
}

/// `run.step.asked.v1`: a person must decide what becomes of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepAsked {
    /// Step that waits for the decision.
    pub step: StepId,
    /// Attempt that failed or was lost.
    pub attempt: u32,
    /// True if the attempt's outcome is unknown, false if it failed.
    pub unknown: bool,
}

/// `run.step.resolved.v1`: a person decided what becomes of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResolved {
    /// Step that was decided about.
    pub step: StepId,
    /// Attempt that failed or was lost.
    pub attempt: u32,
    /// Decision about the step.
    pub resolution: Resolution,
    /// Output of the step, if the decision is that it completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadRef>,
    /// Actor that decided.
    pub by: ActorId,
    /// Reason in platform text; in events of older versions, the person's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// Reason in the person's words, as a sealed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
}

/// `run.step.skipped.v1`: the run continues without a failed step, by decision of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSkipped {
    /// Step that the run does without.
    pub step: StepId,
    /// Last attempt of the step.
    pub attempt: u32,
    /// Further nodes that will never run because of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<NodeId>,
}

/// `run.checkpoint.saved.v1`: a caller marked this point of the run. The state itself is not in the
/// event; snapshots are a cache beside the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSaved {
    /// Label in platform text; in events of older versions, the person's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<PlatformText>,
    /// Label in the person's words, as a sealed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_at: Option<PayloadRef>,
}

/// `run.imported.v1`: all earlier events of the stream were read from a run file. The run is
/// read-only history: no event follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunImported {
    /// Actor that imported the file.
    pub by: ActorId,
    /// SHA-256 of the file, as hexadecimal digits.
    pub file_hash: String,
    /// Fingerprint of the key that signed the file; absent if it was not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// `run.forked.v1`: the run starts with a prefix of another run's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunForked {
    /// Run whose history is inherited.
    pub parent: RunId,
    /// Last inherited event; always the end of a commit.
    pub seq: Seq,
    /// Hash of that commit's record, as hexadecimal digits.
    pub hash: String,
    /// Fingerprint of the parent's state after that event.
    pub fold: Fingerprint,
    /// Graph that the fork executes.
    pub graph: GraphId,
    /// Graph version from here on; differs from the parent's if nodes were changed.
    pub version: GraphVersion,
    /// Changed inputs of the run; absent if the parent's are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<PayloadRef>,
    /// Budget of the fork itself; the parent's spending does not count.
    pub budget: Budget,
    /// Paths of the changes, as `model`, `nodes.summary.prompt` or `inputs.doc`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// BLAKE3 of the request, by which a retry of the request is recognised.
    pub request_hash: String,
    /// True if the parent was imported. Approvals whose answer has had no effect yet are then
    /// requested anew.
    #[serde(default, skip_serializing_if = "is_false")]
    pub of_import: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
