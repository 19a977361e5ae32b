//! The planner of one commit: what the preparation of steps may see and touch.

use std::collections::BTreeMap;
use std::sync::Arc;

use convergio_domain::id::NodeId;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::Run;
use convergio_eventstore::LoadedStream;
use serde_json::Value;

use super::evaluations::OutsideEvaluations;
use crate::graphs::CompiledGraph;
use crate::outputs::StepOutputs;
use crate::plan::TableDigest;
use crate::services::SharedServices;

/// Values from which the steps of one run are prepared, kept while the run is in memory.
pub(crate) struct StepCaches {
    pub(crate) outputs: StepOutputs,
    /// Lists that `map` nodes iterate over, each rendered once.
    pub(crate) map_lists: BTreeMap<NodeId, Arc<Vec<Value>>>,
    /// Candidate tables that the log has, by digest; `None` until one is needed.
    pub(crate) candidate_tables: Option<Vec<(TableDigest, PayloadRef)>>,
    /// Results of evaluations outside of the actor, until a commit has used them.
    pub(crate) evaluations: OutsideEvaluations,
}

/// Prepares the steps of a run for one commit. It reads the folded run and fills the commit's plan;
/// the loop's own state, such as effects in flight, is out of its reach.
pub(crate) struct Planner<'a> {
    pub(crate) shared: &'a SharedServices,
    pub(crate) run: &'a LoadedStream<Run>,
    pub(crate) graph: &'a CompiledGraph,
    pub(crate) caches: &'a mut StepCaches,
}
