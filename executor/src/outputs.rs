//! Outputs of a run's steps, loaded from the log's payloads when a template needs them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::expr::{ExprScope, NodeView};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{GraphNode, OnError};
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::{Ancestor, RunState, StepStatus, lineage};
use convergio_domain::stream::StreamKey;
use convergio_evaluation::EvaluationJob;
use convergio_eventstore::{EventLog, LogError};
use serde_json::Value;

use crate::graphs::CompiledGraph;
use crate::large_values::{LargeValueGate, LargeValuePermit, is_large, run_off_async_threads};

/// Step outputs and inputs of one run, cached while the run is in memory.
pub(crate) struct StepOutputs {
    log: Arc<dyn EventLog>,
    stream: StreamKey,
    /// Runs of which this one is a fork: payloads of the inherited history are in their streams.
    lineage: Vec<Ancestor>,
    values: StepValueCache,
    /// Outputs of recently completed maps, assembled into lists; the newest first.
    map_outputs: VecDeque<(NodeId, Arc<Value>)>,
    large_value_gate: Arc<LargeValueGate>,
    /// Permit held while large values are cached.
    large_value_permit: Option<LargeValuePermit>,
}

/// Maximum bytes of cached values: their text plus [`VALUE_OVERHEAD_BYTES`] each.
const CACHED_VALUES_BYTES: usize = 16 << 20;
/// Bytes that a cached value is counted with besides its text.
const VALUE_OVERHEAD_BYTES: usize = 64;
/// Maximum assembled map outputs in the cache.
const CACHED_MAP_OUTPUTS: usize = 2;
/// Maximum bytes of all item outputs of a map that a template may read at once.
pub(crate) const MAP_OUTPUT_BYTES_LIMIT: usize = 64 << 20;

/// Values by their place in the log, up to [`CACHED_VALUES_BYTES`]; the oldest payloads are evicted
/// first.
#[derive(Default)]
struct StepValueCache {
    values: BTreeMap<PayloadRef, (Arc<Value>, usize)>,
    bytes: usize,
}

impl StepValueCache {
    fn get(&self, reference: PayloadRef) -> Option<(Arc<Value>, usize)> {
        self.values.get(&reference).map(|(value, bytes)| (Arc::clone(value), *bytes))
    }

    fn insert(&mut self, reference: PayloadRef, value: Arc<Value>, bytes: usize) {
        let replaced = self.values.insert(reference, (value, bytes));
        self.bytes += bytes + VALUE_OVERHEAD_BYTES;
        self.bytes -= replaced.map_or(0, |(_, bytes)| bytes + VALUE_OVERHEAD_BYTES);
        // The newest value stays even if it alone exceeds the limit: the caller is about to use it.
        while self.bytes > CACHED_VALUES_BYTES && self.values.len() > 1 {
            let Some((_, (_, bytes))) = self.values.pop_first() else { break };
            self.bytes -= bytes + VALUE_OVERHEAD_BYTES;
        }
    }
}

/// Error of loading a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Failure(UnsealedFailure),
    /// The value needs an evaluation that runs outside of the actor; the plan is made again after
    /// it.
    #[error("an evaluation is under way")]
    Evaluation(Box<EvaluationJob>),
}

impl StepOutputs {
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        stream: StreamKey,
        lineage: Vec<Ancestor>,
        large_value_gate: Arc<LargeValueGate>,
    ) -> Self {
        let (values, map_outputs) = (StepValueCache::default(), VecDeque::new());
        Self {
            log,
            stream,
            lineage,
            values,
            map_outputs,
            large_value_gate,
            large_value_permit: None,
        }
    }

    /// Waits until another run waits for the permit that this run holds; forever if it holds none.
    pub(crate) fn wait_for_contention(&self) -> impl Future<Output = ()> + use<> {
        let gate = self.large_value_permit.is_some().then(|| Arc::clone(&self.large_value_gate));
        async move {
            match gate {
                Some(room) => room.wait_for_waiters().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Drops cached values and the permit if another run waits for it. Returns whether it did.
    pub(crate) fn release_if_contended(&mut self) -> bool {
        let is_contended = self.large_value_permit.is_some() && self.large_value_gate.has_waiters();
        if is_contended {
            (self.values, self.map_outputs) = (StepValueCache::default(), VecDeque::new());
            self.large_value_permit = None;
        }
        is_contended
    }

    /// Caches a value of `bytes` bytes that this run just wrote, so that it need not be read again.
    pub(crate) fn cache_own_value(
        &mut self,
        reference: PayloadRef,
        value: Arc<Value>,
        bytes: usize,
    ) {
        self.values.insert(lineage::history_reference(&self.lineage, reference), value, bytes);
    }

    /// Builds the template scope of a node: the run's inputs and the outputs of `needs`.
    pub(crate) async fn build_scope(
        &mut self,
        state: &RunState,
        graph: &CompiledGraph,
        needs: &[NodeId],
        uncommitted: &UncommittedOutcomes,
    ) -> Result<ExprScope, OutputError> {
        let inputs = match state.input {
            Some(reference) => self.load_value(reference).await?,
            None => Arc::new(Value::Null),
        };
        let mut nodes = BTreeMap::new();
        for id in needs {
            if let Some(node) = graph.find_node(id) {
                nodes.insert(id.clone(), self.node_view(state, graph, node, uncommitted).await?);
            }
        }
        Ok(ExprScope { inputs, nodes, item: None })
    }

    /// Returns the status and output of a node as templates see them.
    async fn node_view(
        &mut self,
        state: &RunState,
        graph: &CompiledGraph,
        node: &GraphNode,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<NodeView, OutputError> {
        let mut node = node;
        let mut step = StepId::for_node(node.id.clone());
        // The output of a fallback node stands for the failed node's. The manifest parser rejects
        // cycles.
        while let OnError::Fallback(other) = &node.on_error {
            let is_failed = uncommitted.step_status(state, &step) == Some("failed");
            match graph.find_node(other) {
                Some(next) if is_failed => node = next,
                _ => break,
            }
            step = StepId::for_node(node.id.clone());
        }
        let status = uncommitted.step_status(state, &step).unwrap_or("pending");
        let output = match status {
            "completed" => self.step_output(state, &step, uncommitted).await?,
            _ => None,
        };
        Ok(NodeView { status, output })
    }

    /// Loads the output of a completed step; `None` if it has none.
    async fn step_output(
        &mut self,
        state: &RunState,
        step: &StepId,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<Option<Arc<Value>>, OutputError> {
        if let Some(value) = uncommitted.outcome_value(step) {
            return Ok(Some(value));
        }
        let Some(known_step) = state.steps.get(step) else { return Ok(None) };
        if let Some((width, _)) = known_step.map {
            let is_over = known_step.status == StepStatus::Completed;
            return self
                .map_output(state, &step.node, (width, is_over), uncommitted)
                .await
                .map(Some);
        }
        match known_step.output {
            Some(reference) => self.load_value(reference).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns the output of a map. Once the map is over, its list is assembled once and cached.
    async fn map_output(
        &mut self,
        state: &RunState,
        node: &NodeId,
        (width, is_over): (u32, bool),
        uncommitted: &UncommittedOutcomes,
    ) -> Result<Arc<Value>, OutputError> {
        let cached = self.map_outputs.iter().find(|(other, _)| other == node);
        // While the map runs, its list grows with each item, so it is not cached.
        if let Some((_, list)) = cached.filter(|_| is_over) {
            return Ok(Arc::clone(list));
        }
        let list = self.collect_item_outputs(state, node, width, uncommitted).await?;
        if is_over {
            self.map_outputs.truncate(CACHED_MAP_OUTPUTS - 1);
            self.map_outputs.push_front((node.clone(), Arc::clone(&list)));
        }
        Ok(list)
    }

    /// Assembles the outputs of a map's items; `null` for items without one.
    async fn collect_item_outputs(
        &mut self,
        state: &RunState,
        node: &NodeId,
        width: u32,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<Arc<Value>, OutputError> {
        let mut list = Vec::with_capacity(width as usize);
        let mut total_bytes = 0;
        for item in 0..width {
            let step = StepId::for_map_item(node.clone(), item);
            let stored_output = state.steps.get(&step).and_then(|step| step.output);
            let (value, bytes) = match (uncommitted.outcome_value(&step), stored_output) {
                // Outputs of the commit in preparation have no log payload; the commit's own limit
                // bounds them.
                (Some(value), _) => (value, 0),
                (None, Some(reference)) => self.load_sized_value(reference).await?,
                (None, None) => (Arc::new(Value::Null), 0),
            };
            total_bytes += bytes;
            // Checked while the list grows: the sum must not be in memory first.
            if total_bytes > MAP_OUTPUT_BYTES_LIMIT {
                return Err(OutputError::Failure(oversized_map_output(node)));
            }
            list.push(Value::clone(&value));
        }
        Ok(Arc::new(Value::Array(list)))
    }

    /// Loads a value by its place in this run's own stream.
    pub(crate) async fn load_own_value(
        &mut self,
        own: PayloadRef,
    ) -> Result<Arc<Value>, OutputError> {
        self.load_value(lineage::history_reference(&self.lineage, own)).await
    }

    /// Loads a value by its place in the history, which may begin in another run's stream.
    pub(crate) async fn load_value(
        &mut self,
        reference: PayloadRef,
    ) -> Result<Arc<Value>, OutputError> {
        self.load_sized_value(reference).await.map(|(value, _)| value)
    }

    /// Loads a value of the history, and the bytes of its text.
    async fn load_sized_value(
        &mut self,
        reference: PayloadRef,
    ) -> Result<(Arc<Value>, usize), OutputError> {
        if let Some(cached) = self.values.get(reference) {
            return Ok(cached);
        }
        // A fork reads the history of its ancestors from their streams.
        let (stream, stored_at) = lineage::locate_payload(&self.lineage, &self.stream, reference);
        let bytes = match self.log.read_payload(&stream, stored_at).await? {
            Some(bytes) => bytes,
            None => self.reread_payload(&stream, stored_at, reference).await?,
        };
        // Before parsing: the permit must be held when the memory is taken.
        if self.large_value_permit.is_none()
            && run_off_async_threads(bytes.len(), || is_large(&bytes))
        {
            self.large_value_permit = self.large_value_gate.acquire_permit().await;
        }
        let decoded = run_off_async_threads(bytes.len(), || decode_json(&bytes, reference));
        let value = Arc::new(decoded.map_err(OutputError::Failure)?);
        self.values.insert(reference, Arc::clone(&value), bytes.len());
        Ok((value, bytes.len()))
    }
}

impl StepOutputs {
    /// Reads a payload once more that was missing. It was erased, unless the log had not caught up
    /// to its record; then the error is transient.
    async fn reread_payload(
        &self,
        stream: &StreamKey,
        stored_at: PayloadRef,
        reference: PayloadRef,
    ) -> Result<Bytes, OutputError> {
        // The head tells an erased payload from a record that this reader does not see yet.
        let head = self.log.stream_head(stream).await?;
        if head.is_none_or(|head| head.seq < stored_at.seq) {
            let reason = format!("{stream} has no event {} yet", stored_at.seq);
            return Err(LogError::Unavailable(reason).into());
        }
        let bytes = self.log.read_payload(stream, stored_at).await?;
        bytes.ok_or_else(|| OutputError::Failure(erased_payload(reference)))
    }
}

fn decode_json(bytes: &Bytes, reference: PayloadRef) -> Result<Value, UnsealedFailure> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = platform_text!("payload {} is not JSON", reference);
        UnsealedFailure::new("internal", message).with_cause(error)
    })
}

fn oversized_map_output(node: &NodeId) -> UnsealedFailure {
    let message = platform_text!(
        "the outputs of `{}` have more than {} bytes together: let its items yield less",
        node,
        MAP_OUTPUT_BYTES_LIMIT
    );
    UnsealedFailure::new("request.too_large", message)
}

fn erased_payload(reference: PayloadRef) -> UnsealedFailure {
    let message =
        platform_text!("payload {} was erased: the run cannot go on without it", reference);
    UnsealedFailure::new("payload.erased", message)
}

/// Outcomes in the commit in preparation, which the folded state does not have yet.
#[derive(Debug, Default)]
pub(crate) struct UncommittedOutcomes {
    outcomes: BTreeMap<StepId, (&'static str, Option<Arc<Value>>)>,
}

impl UncommittedOutcomes {
    /// Records the outcome of a step, with its output if it has one.
    pub(crate) fn record_outcome(
        &mut self,
        step: StepId,
        status: &'static str,
        value: Option<Arc<Value>>,
    ) {
        self.outcomes.insert(step, (status, value));
    }

    fn outcome_value(&self, step: &StepId) -> Option<Arc<Value>> {
        self.outcomes.get(step).and_then(|(_, value)| value.clone())
    }

    fn step_status(&self, state: &RunState, step: &StepId) -> Option<&'static str> {
        let recorded = self.outcomes.get(step).map(|(status, _)| *status);
        recorded.or_else(|| state.steps.get(step).map(|step| status_name(&step.status)))
    }
}

/// Names a status as conditions and templates see it.
fn status_name(status: &StepStatus) -> &'static str {
    match status {
        StepStatus::Completed => "completed",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
        _ => "pending",
    }
}
