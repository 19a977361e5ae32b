//! A replay in progress, and the difference that ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphVersion, NodeId, StepId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::RunState;
use convergio_domain::stream::Seq;
use convergio_kernel_c::{RunResult, Scheduler};

use crate::graphs::CompiledGraph;
use crate::step::CallVerdict;

/// Candidate tables and model answers by their place in the run's stream; `None` for one that is
/// not available.
pub(super) type ReplayPayloads = BTreeMap<PayloadRef, Option<Vec<u8>>>;

/// Verdicts on the calls of each step's last turn, with the number of that turn.
pub(super) type TurnVerdicts = BTreeMap<StepId, (u32, Vec<CallVerdict>)>;

/// A difference between the log and the recomputation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// Sequence number of the event that differs.
    pub seq: Seq,
    /// Step that the event is about, if it is about one.
    pub step: Option<StepId>,
    /// Aspect that differs, as `the state` or `the route`.
    pub aspect: &'static str,
    /// Value in the log.
    pub recorded: String,
    /// Value that the replay computed.
    pub computed: String,
}

/// A replay in progress, or finished.
pub struct Replay {
    pub(super) graph: CompiledGraph,
    /// True if one graph stands for all versions that the run had; migrations are then ignored.
    pub(super) is_fixed: bool,
    /// Version that the next migration moves to, offered by the caller.
    pub(super) offered_graph: Option<(GraphVersion, Graph)>,
    pub(super) scheduler: Option<Scheduler>,
    /// State after the events replayed so far.
    pub state: RunState,
    /// Steps that the kernel made ready and that the log has not scheduled yet.
    pub(super) unrecorded_ready: BTreeSet<StepId>,
    /// Case that a branch chose; its event precedes the completion of the branch.
    pub(super) pending_choice: Option<(NodeId, u32)>,
    pub(super) result: RunResult,
    pub(super) payloads: ReplayPayloads,
    pub(super) turn_verdicts: TurnVerdicts,
    /// Commits that were compared.
    pub commits: u64,
    /// Events that were folded.
    pub events: u64,
    /// Kernel decisions that were compared.
    pub decisions: u64,
    /// Decisions that were not recomputed because a payload they depend on is not available.
    pub skipped_decisions: u64,
}

pub(super) fn kernel_refusal(
    seq: Seq,
    step: Option<&StepId>,
    error: &dyn Display,
) -> Box<Divergence> {
    let (aspect, recorded) = ("the kernel's decision", "accepted".to_owned());
    let computed = format!("the kernel refuses it: {error}");
    Box::new(Divergence { seq, step: step.cloned(), aspect, recorded, computed })
}
