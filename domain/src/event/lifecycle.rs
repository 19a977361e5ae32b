//! Events by which people and programs steer a run, version 1: pause, signals, decisions, forks.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::decider::Fingerprint;
use crate::failure::PlatformText;
use crate::id::{ActorId, GraphId, GraphVersion, NodeId, RunId, SignalName, StepId};
use crate::payload::PayloadRef;
use crate::run::{Budget, Resolution};
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

/// `run.paused.v1`: no further step starts; those under way are finished and recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Why, in the words of who paused: only in events of before; else words of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// The same, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
    /// Whether it is paused because a run that it belongs to is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
}

/// `run.resumed.v1`: steps start again. The time of the pause does not count against the budget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Whether it goes on because a run that it belongs to does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
    /// Whether another pause goes on: its own, or that of a run that it belongs to.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stays_paused: bool,
    /// How long it stood still: open questions, signals and sleeps end that much later. Absent
    /// while another pause goes on, and in events of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood: Option<Span>,
}

/// `run.reopened.v1`: a failed run, or one that was cancelled with the run that it belongs to, goes
/// on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reopened {
    /// The steps that get another series of tries.
    pub steps: Vec<StepId>,
    /// How often it has gone on after its end, this time included; absent in events of before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reopenings: u32,
    /// How long it stood still: open questions, signals and sleeps end that much later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood: Option<Span>,
    /// Whether `budget.wall` is counted anew from here, since it was used up.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restarts_wall: bool,
    /// What it may spend in all from here on, by the run that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// `run.amended.v1`: the run may spend something else from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amended {
    /// What it may spend in all.
    pub budget: Budget,
    /// Why, in the words of who amended: only in events of before; else words of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// The same, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
}

/// `run.signal.awaited.v1`: a step waits for an outside event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalAwaited {
    /// The step that waits.
    pub step: StepId,
    /// The name of the event.
    pub signal: SignalName,
    /// When the step stops waiting, and fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// `run.signal.received.v1`: an outside event. It goes to the first step that waits for its name;
/// if none does, it is kept for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalReceived {
    /// Its identity: the same one again changes nothing.
    pub id: Uuid,
    /// Its name.
    pub signal: SignalName,
    /// What it carries, as JSON.
    pub payload: PayloadRef,
}

/// `run.step.asked.v1`: somebody must decide what becomes of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepAsked {
    /// The step.
    pub step: StepId,
    /// The try in question.
    pub attempt: u32,
    /// True when nobody knows what came of the try, false when it failed.
    pub unknown: bool,
}

/// `run.step.resolved.v1`: the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResolved {
    /// The step.
    pub step: StepId,
    /// The try in question.
    pub attempt: u32,
    /// What becomes of it.
    pub resolution: Resolution,
    /// What the step yielded, when it is taken for completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadRef>,
    /// Who decided.
    pub by: ActorId,
    /// Why, in that person's words: only in events of before; else words of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// The same, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
}

/// `run.step.skipped.v1`: the run goes on without a step that failed, by decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSkipped {
    /// The step.
    pub step: StepId,
    /// Its last try.
    pub attempt: u32,
    /// Other nodes that will never run because of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<NodeId>,
}

/// `run.checkpoint.saved.v1`: somebody marked this point of the run. The state itself is a cache
/// beside the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSaved {
    /// What the mark is for: only in events of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<PlatformText>,
    /// The same, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_at: Option<PayloadRef>,
}

/// `run.imported.v1`: all that stands before it was written elsewhere and came as a file. It is
/// history: nothing follows, and nothing of it is this log's own doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Who imported it.
    pub by: ActorId,
    /// SHA-256 of the file, as hexadecimal digits.
    pub file_hash: String,
    /// The fingerprint of the key that signed the file; absent when it was not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// `run.forked.v1`: a run whose history up to here is a part of another one's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// The run that it begins as.
    pub parent: RunId,
    /// The last event of it that counts here; the end of a commit.
    pub seq: Seq,
    /// The hash of that commit's record, as hexadecimal digits.
    pub hash: String,
    /// The fingerprint of the state there.
    pub fold: Fingerprint,
    /// The graph.
    pub graph: GraphId,
    /// The version from here on.
    pub version: GraphVersion,
    /// Other inputs, when they were changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<PayloadRef>,
    /// What the fork itself may spend.
    pub budget: Budget,
    /// What was changed, in short, as `model`, `nodes.summary.prompt`, `inputs.doc`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// BLAKE3 of the request, so that a retry is recognised.
    pub request_hash: String,
    /// Whether the parent was imported: whatever its questions were answered with and has had no
    /// consequence yet, they are asked anew.
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
