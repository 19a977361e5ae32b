//! Outputs of a run's steps, loaded from the log's payloads when a template needs them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::expr::{NodeView, Scope};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{Node, OnError};
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::{Ancestor, RunState, StepStatus, lineage};
use convergio_domain::stream::StreamKey;
use convergio_evaluation::Job;
use convergio_eventstore::{EventLog, LogError};
use serde_json::Value;

use crate::graphs::CompiledGraph;
use crate::value_room::{ValuePlace, ValueRoom, is_large, work_apart};

/// Step outputs and inputs of one run, cached while the run is in memory.
pub(crate) struct Outputs {
    log: Arc<dyn EventLog>,
    stream: StreamKey,
    /// Runs of which this one is a fork: payloads of the inherited history are in their streams.
    lineage: Vec<Ancestor>,
    values: ValueCache,
    /// Outputs of recently completed maps, assembled into lists; the newest first.
    lists: VecDeque<(NodeId, Arc<Value>)>,
    room: Arc<ValueRoom>,
    /// Permit held while large values are cached.
    place: Option<ValuePlace>,
}

/// Maximum bytes of cached values: their text plus [`VALUE_OVERHEAD_BYTES`] each.
const KEPT_BYTES: usize = 16 << 20;
/// Bytes that a cached value is counted with besides its text.
const VALUE_BYTES: usize = 64;
/// Maximum assembled map outputs in the cache.
const KEPT_LISTS: usize = 2;
/// Maximum bytes of all item outputs of a map that a template may read at once.
pub(crate) const LIST_BYTES: usize = 64 << 20;

/// Values by their place in the log, up to [`CACHED_VALUES_BYTES`]; the oldest payloads are evicted
/// first.
#[derive(Default)]
struct ValueCache {
    values: BTreeMap<PayloadRef, (Arc<Value>, usize)>,
    bytes: usize,
}

impl ValueCache {
    fn get(&self, reference: PayloadRef) -> Option<(Arc<Value>, usize)> {
        self.values.get(&reference).map(|(value, bytes)| (Arc::clone(value), *bytes))
    }

    fn insert(&mut self, reference: PayloadRef, value: Arc<Value>, bytes: usize) {
        let replaced = self.values.insert(reference, (value, bytes));
        self.bytes += bytes + VALUE_BYTES;
        self.bytes -= replaced.map_or(0, |(_, bytes)| bytes + VALUE_BYTES);
        // The newest value stays even if it alone exceeds the limit: the caller is about to use it.
        while self.bytes > KEPT_BYTES && self.values.len() > 1 {
            let Some((_, (_, bytes))) = self.values.pop_first() else { break };
            self.bytes -= bytes + VALUE_BYTES;
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
    Evaluation(Box<Job>),
}

impl Outputs {
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        stream: StreamKey,
        lineage: Vec<Ancestor>,
        room: Arc<ValueRoom>,
    ) -> Self {
        let (values, lists) = (ValueCache::default(), VecDeque::new());
        Self { log, stream, lineage, values, lists, room, place: None }
    }

    /// Waits until another run waits for the permit that this run holds; forever if it holds none.
    pub(crate) fn wanted(&self) -> impl Future<Output = ()> + use<> {
        let room = self.place.is_some().then(|| Arc::clone(&self.room));
        async move {
            match room {
                Some(room) => room.wanted().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Drops cached values and the permit if another run waits for it. Returns whether it did.
    pub(crate) fn make_room(&mut self) -> bool {
        let is_asked = self.place.is_some() && self.room.is_wanted();
        if is_asked {
            (self.values, self.lists) = (ValueCache::default(), VecDeque::new());
            self.place = None;
        }
        is_asked
    }

    /// Caches a value of `bytes` bytes that this run just wrote, so that it need not be read again.
    pub(crate) fn keep(&mut self, reference: PayloadRef, value: Arc<Value>, bytes: usize) {
        self.values.insert(lineage::own(&self.lineage, reference), value, bytes);
    }

    /// Builds the template scope of a node: the run's inputs and the outputs of `needs`.
    pub(crate) async fn scope(
        &mut self,
        state: &RunState,
        graph: &CompiledGraph,
        needs: &[NodeId],
        extra: &Extra,
    ) -> Result<Scope, OutputError> {
        let inputs = match state.input {
            Some(reference) => self.recall(reference).await?,
            None => Arc::new(Value::Null),
        };
        let mut nodes = BTreeMap::new();
        for id in needs {
            if let Some(node) = graph.find_node(id) {
                nodes.insert(id.clone(), self.view(state, graph, node, extra).await?);
            }
        }
        Ok(Scope { inputs, nodes, item: None })
    }

    /// Returns the status and output of a node as templates see them.
    async fn view(
        &mut self,
        state: &RunState,
        graph: &CompiledGraph,
        node: &Node,
        extra: &Extra,
    ) -> Result<NodeView, OutputError> {
        let mut node = node;
        let mut step = StepId::node(node.id.clone());
        // The output of a fallback node stands for the failed node's. The manifest parser rejects
        // cycles.
        while let OnError::Fallback(other) = &node.on_error {
            let failed = extra.status(state, &step) == Some("failed");
            match graph.find_node(other) {
                Some(next) if failed => node = next,
                _ => break,
            }
            step = StepId::node(node.id.clone());
        }
        let status = extra.status(state, &step).unwrap_or("pending");
        let output = match status {
            "completed" => self.output(state, &step, extra).await?,
            _ => None,
        };
        Ok(NodeView { status, output })
    }

    /// Loads the output of a completed step; `None` if it has none.
    async fn output(
        &mut self,
        state: &RunState,
        step: &StepId,
        extra: &Extra,
    ) -> Result<Option<Arc<Value>>, OutputError> {
        if let Some(value) = extra.value(step) {
            return Ok(Some(value));
        }
        let Some(known) = state.steps.get(step) else { return Ok(None) };
        if let Some((width, _)) = known.map {
            let is_over = known.status == StepStatus::Completed;
            return self.list(state, &step.node, (width, is_over), extra).await.map(Some);
        }
        match known.output {
            Some(reference) => self.recall(reference).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns the output of a map. Once the map is over, its list is assembled once and cached.
    async fn list(
        &mut self,
        state: &RunState,
        node: &NodeId,
        (width, is_over): (u32, bool),
        extra: &Extra,
    ) -> Result<Arc<Value>, OutputError> {
        let known = self.lists.iter().find(|(other, _)| other == node);
        // While the map runs, its list grows with each item, so it is not cached.
        if let Some((_, list)) = known.filter(|_| is_over) {
            return Ok(Arc::clone(list));
        }
        let list = self.items(state, node, width, extra).await?;
        if is_over {
            self.lists.truncate(KEPT_LISTS - 1);
            self.lists.push_front((node.clone(), Arc::clone(&list)));
        }
        Ok(list)
    }

    /// Assembles the outputs of a map's items; `null` for items without one.
    async fn items(
        &mut self,
        state: &RunState,
        node: &NodeId,
        width: u32,
        extra: &Extra,
    ) -> Result<Arc<Value>, OutputError> {
        let mut list = Vec::with_capacity(width as usize);
        let mut total_bytes = 0;
        for item in 0..width {
            let step = StepId::item(node.clone(), item);
            let stored = state.steps.get(&step).and_then(|step| step.output);
            let (value, bytes) = match (extra.value(&step), stored) {
                // Outputs of the commit in preparation have no log payload; the commit's own limit
                // bounds them.
                (Some(value), _) => (value, 0),
                (None, Some(reference)) => self.recall_sized(reference).await?,
                (None, None) => (Arc::new(Value::Null), 0),
            };
            total_bytes += bytes;
            // Checked while the list grows: the sum must not be in memory first.
            if total_bytes > LIST_BYTES {
                return Err(OutputError::Failure(too_long_a_list(node)));
            }
            list.push(Value::clone(&value));
        }
        Ok(Arc::new(Value::Array(list)))
    }

    /// Loads a value by its place in this run's own stream.
    pub(crate) async fn open(&mut self, own: PayloadRef) -> Result<Arc<Value>, OutputError> {
        self.recall(lineage::own(&self.lineage, own)).await
    }

    /// Loads a value by its place in the history, which may begin in another run's stream.
    pub(crate) async fn recall(
        &mut self,
        reference: PayloadRef,
    ) -> Result<Arc<Value>, OutputError> {
        self.recall_sized(reference).await.map(|(value, _)| value)
    }

    /// Loads a value of the history, and the bytes of its text.
    async fn recall_sized(
        &mut self,
        reference: PayloadRef,
    ) -> Result<(Arc<Value>, usize), OutputError> {
        if let Some(found) = self.values.get(reference) {
            return Ok(found);
        }
        // A fork reads the history of its ancestors from their streams.
        let (stream, place) = lineage::locate(&self.lineage, &self.stream, reference);
        let bytes = match self.log.payload(&stream, place).await? {
            Some(bytes) => bytes,
            None => self.read_again(&stream, place, reference).await?,
        };
        // Before parsing: the permit must be held when the memory is taken.
        if self.place.is_none() && work_apart(bytes.len(), || is_large(&bytes)) {
            self.place = self.room.take_place().await;
        }
        let decoded = work_apart(bytes.len(), || decode(&bytes, reference));
        let value = Arc::new(decoded.map_err(OutputError::Failure)?);
        self.values.insert(reference, Arc::clone(&value), bytes.len());
        Ok((value, bytes.len()))
    }
}

impl Outputs {
    /// Reads a payload once more that was missing. It was erased, unless the log had not caught up
    /// to its record; then the error is transient.
    async fn read_again(
        &self,
        stream: &StreamKey,
        place: PayloadRef,
        reference: PayloadRef,
    ) -> Result<Bytes, OutputError> {
        // The head tells an erased payload from a record that this reader does not see yet.
        let head = self.log.head(stream).await?;
        if head.is_none_or(|head| head.seq < place.seq) {
            let reason = format!("{stream} has no event {} yet", place.seq);
            return Err(LogError::Unavailable(reason).into());
        }
        let bytes = self.log.payload(stream, place).await?;
        bytes.ok_or_else(|| OutputError::Failure(erased(reference)))
    }
}

fn decode(bytes: &Bytes, reference: PayloadRef) -> Result<Value, UnsealedFailure> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = platform_text!("payload {} is not JSON", reference);
        UnsealedFailure::new("internal", message).with_cause(error)
    })
}

fn too_long_a_list(node: &NodeId) -> UnsealedFailure {
    let message = platform_text!(
        "the outputs of `{}` have more than {} bytes together: let its items yield less",
        node,
        LIST_BYTES
    );
    UnsealedFailure::new("request.too_large", message)
}

fn erased(reference: PayloadRef) -> UnsealedFailure {
    let message =
        platform_text!("payload {} was erased: the run cannot go on without it", reference);
    UnsealedFailure::new("payload.erased", message)
}

/// Outcomes in the commit in preparation, which the folded state does not have yet.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    outcomes: BTreeMap<StepId, (&'static str, Option<Arc<Value>>)>,
}

impl Extra {
    /// Records the outcome of a step, with its output if it has one.
    pub(crate) fn note(&mut self, step: StepId, status: &'static str, value: Option<Arc<Value>>) {
        self.outcomes.insert(step, (status, value));
    }

    fn value(&self, step: &StepId) -> Option<Arc<Value>> {
        self.outcomes.get(step).and_then(|(_, value)| value.clone())
    }

    fn status(&self, state: &RunState, step: &StepId) -> Option<&'static str> {
        let noted = self.outcomes.get(step).map(|(status, _)| *status);
        noted.or_else(|| state.steps.get(step).map(|step| status_name(&step.status)))
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
