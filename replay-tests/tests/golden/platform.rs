//! A log, an executor and a scripted model server, to record runs with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use convergio_application::{Caller, NewRun, UseCases};
use convergio_domain::agent::{AgentCommand, AgentNoun, agent_id};
use convergio_domain::billing::PriceBook;
use convergio_domain::decider::DecisionContext;
use convergio_domain::event::Event;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{ExecutorId, GraphVersion, RunId, StepId, TenantId};
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::memory::{RecalledMemory, Subject};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::platform_text;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{
    AnswerApproval, CommandReason, ForkRun, Resolution, ResolveStep, Run, RunCommand, RunState,
    SendSignal, StepStatus,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{LiveHub, MemoryLog, Payload, Repository, SystemClock};
use convergio_executor::catalog::ModelCatalog;
use convergio_executor::memory::{MemoryPort, MemorySearch};
use convergio_executor::provider::ProviderConfig;
use convergio_executor::{Executor, ExecutorConfig, tool};
use convergio_projections::MemoryIndexes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

/// What the model server does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    Answers,
    /// Is busy at its first question.
    BusyOnce,
    Hangs,
    /// There are two to choose from.
    Pair,
    /// Answers as written.
    Says(&'static [Line]),
}

/// What a scripted model answers.
#[derive(PartialEq, Eq)]
pub(crate) enum Line {
    Text(&'static str),
    /// Calls of tools, by their names and arguments.
    Calls(&'static [(&'static str, &'static str)]),
}

impl Line {
    fn message(&self) -> Value {
        let calls = match self {
            Self::Text(text) => return json!({"role": "assistant", "content": text}),
            Self::Calls(calls) => calls,
        };
        let calls = calls.iter().enumerate().map(|(number, (name, arguments))| {
            json!({"id": format!("c{number}"), "type": "function",
                "function": {"name": name, "arguments": arguments}})
        });
        json!({"role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>()})
    }
}

/// The memories of a log, for an executor.
struct Remembered(MemoryIndexes);

#[async_trait]
impl MemorySearch for Remembered {
    async fn recall_memories(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        question: &str,
        now: Timestamp,
        budget_tokens: u32,
    ) -> Result<Vec<RecalledMemory>, UnsealedFailure> {
        let found = self.0.recall_memories(tenant, subject, question, now, budget_tokens).await;
        Ok(found.expect("readable"))
    }
}

struct Server {
    model: Model,
    questions: AtomicUsize,
    asked: Arc<Notify>,
}

async fn chat(State(server): State<Arc<Server>>, Json(request): Json<Value>) -> Response {
    let before = server.questions.fetch_add(1, Ordering::SeqCst);
    server.asked.notify_one();
    match server.model {
        Model::Hangs => std::future::pending().await,
        Model::BusyOnce if before == 0 => (StatusCode::SERVICE_UNAVAILABLE, "busy").into_response(),
        Model::Says(lines) => answer(&lines[before].message()),
        _ => {
            let messages = request["messages"].as_array().expect("messages").len();
            let text = format!("an answer to {messages} messages");
            answer(&json!({"role": "assistant", "content": text}))
        }
    }
}

fn answer(message: &Value) -> Response {
    let finish = if message["tool_calls"].is_array() { "tool_calls" } else { "stop" };
    let choice = json!({"index": 0, "finish_reason": finish, "message": message});
    let usage = json!({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17});
    Json(json!({"model": "tiny", "choices": [choice], "usage": usage})).into_response()
}

/// What records a run.
pub(crate) struct Platform {
    pub(crate) repository: Repository,
    pub(crate) run: StreamKey,
}

pub(crate) fn tenant() -> TenantId {
    "default".parse().expect("a name")
}

fn caller() -> Caller {
    Caller::new(tenant(), "owner".parse().expect("a name"))
}

fn parse(manifest: &str) -> Graph {
    graph::parse_manifest(manifest, &tool::builtin_catalog()).expect("valid").graph
}

fn payload(bytes: Vec<u8>, purpose: PayloadPurpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: bytes.into(), media_type, purpose, subject: None }
}

impl Platform {
    /// A log with one run that nobody works on.
    pub(crate) async fn new(manifest: &str, inputs: &Value) -> Self {
        let repository = Repository::new(Arc::new(MemoryLog::new()), Arc::new(SystemClock));
        let (use_cases, caller) = (UseCases::new(&repository), caller());
        let graph = parse(manifest);
        let registered = use_cases.register_graph(&caller, &graph).await;
        let (id, version) = registered.expect("new");
        let new_run = NewRun {
            budget: graph.budget,
            request_hash: "golden".into(),
            ..NewRun::of_version(id, version, inputs.to_string())
        };
        let run = use_cases.create_run(&caller, new_run).await.expect("new").stream;
        Self { repository, run }
    }

    /// Registers a further version.
    pub(crate) async fn register(&self, manifest: &str) -> GraphVersion {
        let use_cases = UseCases::new(&self.repository);
        use_cases.register_graph(&caller(), &parse(manifest)).await.expect("new").1
    }

    fn context(&self) -> DecisionContext {
        let now = self.repository.clock().now();
        DecisionContext { now, actor: caller().actor }
    }

    /// Defines an agent whose runs are runs of a manifest.
    pub(crate) async fn define(&self, name: &str, manifest: &str) {
        let version = self.register(manifest).await;
        let graph = parse(manifest);
        let graph = graph::graph_id(&tenant(), &graph.name);
        let definition = PayloadSlot(0);
        let define = AgentCommand::Define { name: name.into(), graph, version, definition };
        let payloads = vec![payload(b"{}".to_vec(), PayloadPurpose::Manifest)];
        let command = |_: &_, _| (define.clone(), payloads.clone());
        let stream = StreamKey::for_agent(tenant(), agent_id(&tenant(), name));
        let context = self.context();
        self.repository.execute::<AgentNoun>(&stream, &context, command).await.expect("new");
    }

    /// The end of the commit that completes a step.
    async fn after(&self, step: &str) -> Seq {
        let records = self.repository.event_log().read_stream(&self.run, Seq(0), 1000).await;
        let completes = |event: &Event| match event {
            Event::Run(RunEvent::StepCompleted(done)) => done.step.to_string() == step,
            _ => false,
        };
        let records = records.expect("readable");
        let record = records.iter().find(|record| record.body.events.iter().any(completes));
        record.expect("it completed").last_seq()
    }

    /// Begins a run with the history of this one up to the end of a step, and goes on with it.
    pub(crate) async fn fork_after(&mut self, step: &str, inputs: &Value) {
        let at = self.after(step).await;
        let loaded = self.repository.load_at::<Run>(&self.run, at, true).await;
        let mut loaded = loaded.expect("readable").expect("it has the event");
        let head = loaded.head.expect("it has events");
        let (graph, version) = loaded.state.graph.clone().expect("created");
        let fork = ForkRun {
            parent: RunId(self.run.id),
            seq: head.seq,
            hash: head.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            fingerprint: loaded.state.refresh_fingerprint(),
            graph,
            version,
            input: Some(PayloadSlot(0)),
            budget: loaded.state.budget,
            changes: vec!["inputs.end".into()],
            request_hash: "golden".into(),
            is_parent_imported: false,
        };
        self.run = StreamKey::for_run(tenant(), RunId(Uuid::now_v7()));
        let input = payload(inputs.to_string().into_bytes(), PayloadPurpose::Input);
        self.tell_with(RunCommand::Fork(fork), vec![input]).await;
    }

    /// Goes on with the run within this one.
    pub(crate) async fn enter_child(&mut self) {
        let state = self.until(|state| state.phase.is_ended()).await;
        let child = *state.children.keys().next().expect("one");
        self.run = StreamKey::for_run(tenant(), child);
        self.until(|state| state.told).await;
    }

    /// Something that happens outside.
    pub(crate) async fn signal(&self, name: &str, carried: &Value) {
        let signal = name.parse().expect("a name");
        let signal = SendSignal { id: Uuid::now_v7(), name: signal, payload: PayloadSlot(0) };
        let carried = payload(carried.to_string().into_bytes(), PayloadPurpose::Signal);
        self.tell_with(RunCommand::Signal(signal), vec![carried]).await;
    }

    /// Decides about a step as soon as it waits for that.
    pub(crate) async fn resolve(&self, step: &str, resolution: Resolution, yields: Option<&Value>) {
        let step: StepId = step.parse().expect("a step");
        let waits = |state: &RunState| {
            let step = state.steps.get(&step);
            step.is_some_and(|step| matches!(step.status, StepStatus::Undecided { .. }))
        };
        self.until(waits).await;
        let output = yields.map(|_| PayloadSlot(0));
        let outputs =
            yields.map(|yields| payload(yields.to_string().into_bytes(), PayloadPurpose::Output));
        let reason = Some(CommandReason::Platform(platform_text!("looked up")));
        let resolve = ResolveStep { step, resolution, output, reason };
        self.tell_with(RunCommand::Resolve(resolve), outputs.into_iter().collect()).await;
    }

    /// A command from outside.
    pub(crate) async fn tell(&self, command: RunCommand) {
        self.tell_with(command, Vec::new()).await;
    }

    /// A command of a request under an idempotency key.
    pub(crate) async fn ask(&self, request: Uuid, command: RunCommand) {
        let command = RequestedCommand { request: Some(request), command };
        let commands = |_: &_, _| (command.clone(), Vec::new());
        let done = self
            .repository
            .execute::<IdempotentNoun<Run>>(&self.run, &self.context(), commands)
            .await;
        done.expect("the run takes it");
    }

    async fn tell_with(&self, command: RunCommand, payloads: Vec<Payload>) {
        let commands = |_: &_, _| (command.clone(), payloads.clone());
        let told = self.repository.execute::<Run>(&self.run, &self.context(), commands).await;
        told.expect("the run takes it");
    }

    /// An executor at work, beside a model server; its questions are told to `asked`.
    pub(crate) async fn executor(&self, model: Model, asked: &Arc<Notify>) -> Executor {
        let (questions, asked) = (AtomicUsize::new(0), Arc::clone(asked));
        let server = Arc::new(Server { model, questions, asked });
        let list = get(async || Json(json!({"data": [{"id": "tiny"}]})));
        let app = axum::Router::new().route("/v1/chat/completions", post(chat));
        let app = app.route("/v1/models", list).with_state(server);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let prices = json!([{"provider": "local", "model": "*", "from_ms": 0, "currency": "USD",
            "per_token": {"in_fresh": "0.000001", "out_text": "0.000002"}}]);
        let prices = Arc::new(PriceBook::parse_book(&prices.to_string()).expect("a book"));
        let mut providers = vec![ProviderConfig::for_local_model("local", &url, "tiny")];
        if model == Model::Pair {
            providers.push(ProviderConfig::for_local_model("spare", &url, "tiny"));
        }
        let models = ModelCatalog::new(providers, Arc::clone(&prices)).expect("valid");
        let mut config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
        let memories = Remembered(MemoryIndexes::new(self.repository.event_log()));
        config.memory = MemoryPort(Some(Arc::new(memories)));
        config.child_runs_per_run = 1;
        let repository = self.repository.clone();
        Executor::start(config, repository, Arc::new(models), LiveHub::new(), prices)
    }

    /// Waits until the run is as described.
    pub(crate) async fn until(&self, is: impl Fn(&RunState) -> bool) -> RunState {
        let mut tail = self.repository.event_log().tail_all(convergio_eventstore::Position::START);
        loop {
            let state = self.repository.load::<Run>(&self.run).await.expect("readable").state;
            if is(&state) {
                return state;
            }
            tail.next().await.expect("the log goes on").expect("readable");
        }
    }

    /// Answers the one question of the run.
    pub(crate) async fn answer(&self, granted: bool) {
        let state = self.until(|state| !state.approvals.is_empty()).await;
        let (id, asked) = state.approvals.iter().next().expect("one question");
        let content_hash = asked.content_hash.clone();
        let reason = Some(CommandReason::Platform(platform_text!("as agreed")));
        let roles = vec!["owner".into()];
        let answer = AnswerApproval { approval: *id, content_hash, granted, reason, roles };
        self.tell(RunCommand::Answer(answer)).await;
    }
}
