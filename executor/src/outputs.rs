//! What the steps of a run yielded, opened from the log's payloads when a template needs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::event::run::Failure;
use convergio_domain::expr::{NodeView, Scope};
use convergio_domain::graph::manifest::{Node, OnError};
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{Ancestor, RunState, StepStatus, lineage};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{EventLog, LogError};
use serde_json::Value;

use crate::graphs::CompiledGraph;

/// Values of one run, kept while the run is in memory.
pub(crate) struct Outputs {
    log: Arc<dyn EventLog>,
    stream: StreamKey,
    /// The runs that the history begins in.
    lineage: Vec<Ancestor>,
    values: BTreeMap<PayloadRef, Arc<Value>>,
}

/// Why a value cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Failure(Failure),
}

impl Outputs {
    pub(crate) fn new(log: Arc<dyn EventLog>, stream: StreamKey, lineage: Vec<Ancestor>) -> Self {
        Self { log, stream, lineage, values: BTreeMap::new() }
    }

    /// Keeps a value that this run just wrote, so that it need not be read again.
    pub(crate) fn keep(&mut self, reference: PayloadRef, value: Arc<Value>) {
        self.values.insert(lineage::own(&self.lineage, reference), value);
    }

    /// What the templates of a node may see: the inputs, and the nodes that it waits for.
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

    async fn view(
        &mut self,
        state: &RunState,
        graph: &CompiledGraph,
        node: &Node,
        extra: &Extra,
    ) -> Result<NodeView, OutputError> {
        let mut node = node;
        let mut step = StepId::node(node.id.clone());
        // A fallback's output stands for the failed node's. The parser refuses circles.
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
            return self.items(state, &step.node, width, extra).await.map(Some);
        }
        match known.output {
            Some(reference) => self.recall(reference).await.map(Some),
            None => Ok(None),
        }
    }

    /// The output of a map: the list of its items' outputs.
    async fn items(
        &mut self,
        state: &RunState,
        node: &NodeId,
        width: u32,
        extra: &Extra,
    ) -> Result<Arc<Value>, OutputError> {
        let mut list = Vec::with_capacity(width as usize);
        for item in 0..width {
            let step = StepId::item(node.clone(), item);
            let stored = state.steps.get(&step).and_then(|step| step.output);
            let value = match (extra.value(&step), stored) {
                (Some(value), _) => value,
                (None, Some(reference)) => self.recall(reference).await?,
                (None, None) => Arc::new(Value::Null),
            };
            list.push(Value::clone(&value));
        }
        Ok(Arc::new(Value::Array(list)))
    }

    /// A value of this run's own.
    pub(crate) async fn open(&mut self, own: PayloadRef) -> Result<Arc<Value>, OutputError> {
        self.recall(lineage::own(&self.lineage, own)).await
    }

    /// A value of the history.
    pub(crate) async fn recall(
        &mut self,
        reference: PayloadRef,
    ) -> Result<Arc<Value>, OutputError> {
        if let Some(value) = self.values.get(&reference) {
            return Ok(Arc::clone(value));
        }
        let (stream, place) = lineage::locate(&self.lineage, &self.stream, reference);
        let bytes = match self.log.payload(&stream, place).await? {
            Some(bytes) => bytes,
            None => self.read_again(&stream, place, reference).await?,
        };
        let value = Arc::new(decode(&bytes, reference).map_err(OutputError::Failure)?);
        self.values.insert(reference, Arc::clone(&value));
        Ok(value)
    }
}

impl Outputs {
    /// A payload that was not there: it was erased, unless the log did not have its record yet.
    async fn read_again(
        &self,
        stream: &StreamKey,
        place: PayloadRef,
        reference: PayloadRef,
    ) -> Result<Bytes, OutputError> {
        let head = self.log.head(stream).await?;
        if head.is_none_or(|head| head.seq < place.seq) {
            let reason = format!("{stream} has no event {} yet", place.seq);
            return Err(LogError::Unavailable(reason).into());
        }
        let bytes = self.log.payload(stream, place).await?;
        bytes.ok_or_else(|| OutputError::Failure(erased(reference)))
    }
}

fn decode(bytes: &Bytes, reference: PayloadRef) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure {
        code: "internal".into(),
        message: format!("payload {reference} is not JSON: {error}"),
        retryable: false,
    })
}

fn erased(reference: PayloadRef) -> Failure {
    Failure {
        code: "payload.erased".into(),
        message: format!("payload {reference} was erased: the run cannot go on without it"),
        retryable: false,
    }
}

/// Outcomes that are about to be written and are not in the state yet.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    outcomes: BTreeMap<StepId, (&'static str, Option<Arc<Value>>)>,
}

impl Extra {
    /// Notes an outcome.
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

/// The status as conditions and templates see it.
fn status_name(status: &StepStatus) -> &'static str {
    match status {
        StepStatus::Completed => "completed",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
        _ => "pending",
    }
}
