//! Data of the debug view: the state after each event, its difference from the state before, and
//! the payloads that belong to the event.

use std::collections::BTreeMap;

use convergio_domain::decider::{Decider, RecordedEvent};
use convergio_domain::event::Event;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{ActorId, StepId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{Run, RunPhase, RunState, StepStatus};
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use convergio_eventstore::run_file::RunFile;
use serde::Serialize;
use serde_json::{Value, json};

/// Distance of cached states in events. A state between two is folded from the one before.
const STATE_INTERVAL: usize = 256;

/// An event with its position in the run.
struct DebugEvent {
    seq: Seq,
    time: Timestamp,
    actor: ActorId,
    event: Event,
    /// Number of payloads of the commit; counted on the commit's first event only.
    payloads: u16,
}

/// The events of a run, to be stepped through.
pub(crate) struct DebugTimeline {
    file: RunFile,
    events: Vec<DebugEvent>,
    cached_states: Vec<RunState>,
}

/// Everything that the view shows of one event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DebugStep {
    pub(crate) seq: u64,
    pub(crate) time_ms: i64,
    pub(crate) actor: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Step or node that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<String>,
    pub(crate) data: Value,
    /// Phase of the run after the event.
    pub(crate) status: RunPhase,
    /// Differences of the state before and after the event.
    pub(crate) changes: Vec<StateChange>,
    /// Nodes of the graph with their status after the event.
    pub(crate) nodes: Vec<DebugNode>,
    pub(crate) tokens: u64,
    pub(crate) tokens_held: u64,
    pub(crate) cost: String,
    /// Payloads that the event refers to: prompts, answers, inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) texts: Vec<PayloadText>,
}

/// A value of the state that an event changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct StateChange {
    pub(crate) path: String,
    pub(crate) before: Value,
    pub(crate) after: Value,
}

/// Status of a node after an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DebugNode {
    pub(crate) node: String,
    pub(crate) status: &'static str,
    /// Completed and total items of a map under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) items: Option<(u32, u32)>,
    pub(crate) needs: Vec<String>,
}

/// A payload that an event refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PayloadText {
    pub(crate) what: &'static str,
    #[serde(rename = "ref")]
    pub(crate) reference: String,
    /// `None` if the payload was erased or is not in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

impl DebugTimeline {
    /// Folds the run once and caches every 256th state.
    pub(crate) fn new(file: RunFile) -> Self {
        let (mut events, mut cached_states) = (Vec::new(), Vec::new());
        // A fork's history begins in its parent.
        let mut state = file.inherited_state().unwrap_or_default();
        for record in &file.records {
            for (index, recorded) in record.recorded_events().enumerate() {
                if events.len() % STATE_INTERVAL == 0 {
                    cached_states.push(state.clone());
                }
                Run::fold_event(&mut state, recorded);
                let count = u16::try_from(record.body.payloads.len()).unwrap_or(u16::MAX);
                events.push(DebugEvent {
                    seq: recorded.seq,
                    time: recorded.time,
                    actor: record.body.actor.clone(),
                    event: recorded.event.clone(),
                    payloads: if index == 0 { count } else { 0 },
                });
            }
        }
        Self { file, events, cached_states }
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn run_id(&self) -> String {
        self.file.stream.id.to_string()
    }

    /// One line about an event for the list of events.
    pub(crate) fn event_line(&self, index: usize) -> String {
        let DebugEvent { seq, event, .. } = &self.events[index];
        let step = subject_step(event);
        let step = step.map_or_else(String::new, |step| format!("  {step}"));
        format!("{seq:>6}  {}{step}", event.type_name())
    }

    /// Index of the next event about a step, forward or backward from `from`.
    pub(crate) fn find_step_event(&self, from: usize, step: &str, forward: bool) -> Option<usize> {
        let about = |index: &usize| {
            subject_step(&self.events[*index].event).is_some_and(|found| found.to_string() == step)
        };
        match forward {
            true => (from + 1..self.len()).find(about),
            false => (0..from).rev().find(about),
        }
    }

    /// The state before an event.
    fn state_before(&self, index: usize) -> RunState {
        // At most 255 events are folded, however long the run is.
        let mut state = self.cached_states[index / STATE_INTERVAL].clone();
        for told in &self.events[index - index % STATE_INTERVAL..index] {
            evolve(&mut state, told);
        }
        state
    }

    /// Computes everything there is to show of an event.
    pub(crate) fn step_at(&self, index: usize) -> DebugStep {
        let debug_event = &self.events[index];
        let before = self.state_before(index);
        let mut after = before.clone();
        evolve(&mut after, debug_event);
        let data = serde_json::to_value(&debug_event.event).unwrap_or_default();
        DebugStep {
            seq: debug_event.seq.0,
            time_ms: debug_event.time.0,
            actor: debug_event.actor.to_string(),
            kind: debug_event.event.type_name(),
            step: subject_step(&debug_event.event).map(|step| step.to_string()),
            data: data["data"].clone(),
            status: after.phase,
            changes: state_changes(&before, &after, &debug_event.event),
            nodes: self.debug_nodes(&after),
            tokens: after.spent.tokens,
            tokens_held: after.spent.reserved_tokens,
            cost: after.spent.cost.to_string(),
            texts: self.payload_texts(debug_event, &data["data"]),
        }
    }

    /// Graph version that the run has in this state; a migration changes it.
    fn graph_of_state(&self, state: &RunState) -> Option<&Graph> {
        self.file.graphs.get(&state.graph.as_ref()?.1)
    }

    fn debug_nodes(&self, state: &RunState) -> Vec<DebugNode> {
        let nodes = self.graph_of_state(state).into_iter().flat_map(|graph| &graph.nodes);
        let node = |node: &convergio_domain::graph::manifest::GraphNode| {
            let id = StepId::for_node(node.id.clone());
            let step = state.steps.get(&id);
            let items = step.and_then(|step| step.map).map(|(width, _)| {
                let done = |item: &u32| {
                    let item = StepId::for_map_item(node.id.clone(), *item);
                    state.steps.get(&item).is_some_and(|step| step.status == StepStatus::Completed)
                };
                ((0..width).filter(done).count().try_into().unwrap_or(width), width)
            });
            DebugNode {
                node: node.id.to_string(),
                status: step.map_or("waiting", |step| match state.is_abandoned(step) {
                    true => "abandoned",
                    false => status_name(&step.status),
                }),
                items,
                needs: node.needs.iter().map(ToString::to_string).collect(),
            }
        };
        nodes.map(node).collect()
    }

    /// Payloads that an event names, and those of its commit if it is the commit's first event.
    fn payload_texts(&self, told: &DebugEvent, data: &Value) -> Vec<PayloadText> {
        let names = [
            ("input", "input"),
            ("prompt", "prompt"),
            ("output", "output"),
            ("content", "what is approved"),
            ("reason_at", "the reason"),
            ("label_at", "the label"),
        ];
        // A map removes doubles and keeps the order of payloads; a name found later says more and
        // wins.
        let mut texts: BTreeMap<PayloadRef, &'static str> = BTreeMap::new();
        for index in 0..told.payloads {
            texts.insert(PayloadRef { seq: told.seq, index }, "with the commit");
        }
        for (field, what) in names {
            let named = data[field].as_str().and_then(|text| text.parse().ok());
            texts.extend(named.map(|reference: PayloadRef| (reference, what)));
        }
        let detail = data["error"]["detail"].as_str().and_then(|text| text.parse().ok());
        texts.extend(detail.map(|reference: PayloadRef| (reference, "the failure in full")));
        let text = |(reference, what): (PayloadRef, &'static str)| {
            let bytes = self.file.payloads.get(&reference);
            let text = bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            PayloadText { what, reference: reference.to_string(), text }
        };
        texts.into_iter().map(text).collect()
    }
}

fn evolve(state: &mut RunState, told: &DebugEvent) {
    Run::fold_event(state, RecordedEvent { seq: told.seq, time: told.time, event: &told.event });
}

fn subject_step(event: &Event) -> Option<StepId> {
    event.as_run()?.subject_step()
}

/// Differences of two states. Only steps and approvals that the event may touch are compared: a run
/// may have thousands of steps.
fn state_changes(before: &RunState, after: &RunState, event: &Event) -> Vec<StateChange> {
    let mut changes = Vec::new();
    let (old, new) = (run_fields(before), run_fields(after));
    collect_changes(String::new(), &old, &new, &mut changes);
    let touched = |id: &StepId| before.steps.get(id) != after.steps.get(id);
    let mut steps: Vec<&StepId> = Vec::new();
    let named = subject_step(event);
    match &named {
        // An event that skips steps lists them in its data; any other touches its own step alone.
        Some(id) if skipped_count(event) == 0 => {
            steps.extend(after.steps.get_key_value(id).map(|(k, _)| k));
        }
        _ => steps.extend(after.steps.keys()),
    }
    for id in steps.into_iter().filter(|id| touched(id)) {
        let value = |state: &RunState| state.steps.get(id).map_or(Value::Null, |step| json!(step));
        collect_changes(format!("steps.{id}"), &value(before), &value(after), &mut changes);
    }
    for (id, approval) in &after.approvals {
        if before.approvals.get(id) != Some(approval) {
            let old = before.approvals.get(id).map_or(Value::Null, |old| json!(old));
            collect_changes(format!("approvals.{id}"), &old, &json!(approval), &mut changes);
        }
    }
    changes
}

fn skipped_count(event: &Event) -> usize {
    match event.as_run() {
        Some(RunEvent::StepCompleted(event)) => event.skipped.len(),
        Some(RunEvent::StepFailed(event)) => event.skipped.len(),
        _ => 0,
    }
}

/// Fields that a state has once, for comparison.
fn run_fields(state: &RunState) -> Value {
    json!({
        "status": state.phase,
        "graph": state.graph,
        "input": state.input,
        "budget": state.budget,
        "spent": state.spent,
        "output": state.output,
        "error": state.error,
    })
}

/// Collects differences: objects are compared field by field, other values as a whole.
fn collect_changes(path: String, before: &Value, after: &Value, changes: &mut Vec<StateChange>) {
    if before == after {
        return;
    }
    if let (Value::Object(old), Value::Object(new)) = (before, after)
        && old.keys().any(|key| new.contains_key(key))
    {
        let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let value = |of: &serde_json::Map<String, Value>| of.get(key).cloned();
            let (old, new) = (value(old).unwrap_or_default(), value(new).unwrap_or_default());
            collect_changes(path, &old, &new, changes);
        }
        return;
    }
    changes.push(StateChange { path, before: before.clone(), after: after.clone() });
}

fn status_name(status: &StepStatus) -> &'static str {
    match status {
        StepStatus::Scheduled { .. } => "scheduled",
        StepStatus::Started { .. } => "running",
        StepStatus::Unknown => "unknown",
        StepStatus::Sleeping { .. } => "sleeping",
        StepStatus::Asking { .. } => "asking",
        StepStatus::Awaiting { .. } => "awaiting",
        StepStatus::Undecided { .. } => "undecided",
        StepStatus::Expanded => "items",
        StepStatus::Completed => "done",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
    }
}
