//! A log, an executor and a scripted model server, to record runs with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use convergio_domain::chat::Privacy;
use convergio_domain::decider::Context;
use convergio_domain::graph::{self, GraphNoun, Register};
use convergio_domain::id::{ExecutorId, GraphVersion, RunId, TenantId};
use convergio_domain::metering::PriceBook;
use convergio_domain::payload::{PayloadSlot, Purpose};
use convergio_domain::run::{Answer, CreateRun, Run, RunCommand, RunState};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{EventLog, LiveHub, MemoryLog, Payload, Repository, SystemClock};
use convergio_executor::model::{ModelCatalog, ProviderConfig};
use convergio_executor::{Executor, ExecutorConfig, tool};
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
        _ => {
            let messages = request["messages"].as_array().expect("messages").len();
            let text = format!("an answer to {messages} messages");
            let message = json!({"role": "assistant", "content": text});
            let choice = json!({"index": 0, "finish_reason": "stop", "message": message});
            let usage = json!({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17});
            Json(json!({"model": "tiny", "choices": [choice], "usage": usage})).into_response()
        }
    }
}

/// What records a run.
pub(crate) struct Platform {
    pub(crate) repository: Repository,
    pub(crate) run: StreamKey,
}

pub(crate) fn tenant() -> TenantId {
    "default".parse().expect("a name")
}

fn payload(bytes: Vec<u8>, purpose: Purpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: bytes.into(), media_type, purpose, subject: None }
}

impl Platform {
    /// A log with one run that nobody works on.
    pub(crate) async fn new(manifest: &str, inputs: &Value) -> Self {
        let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
        let repository = Repository::new(log, Arc::new(SystemClock));
        let run = StreamKey::run(tenant(), RunId(Uuid::now_v7()));
        let platform = Self { repository, run };
        let version = platform.register(manifest).await;
        let graph = graph::parse(manifest, &tool::catalog()).expect("valid").graph;
        let create = CreateRun {
            graph: graph::graph_id(&tenant(), &graph.name),
            version,
            input: PayloadSlot(0),
            budget: graph.budget,
            request_hash: "golden".into(),
            privacy: Privacy::Any,
            lineage: convergio_domain::run::Lineage::default(),
        };
        let input = payload(inputs.to_string().into_bytes(), Purpose::Input);
        platform.tell_with(RunCommand::Create(create), vec![input]).await;
        platform
    }

    /// Registers a further version.
    pub(crate) async fn register(&self, manifest: &str) -> GraphVersion {
        let graph = graph::parse(manifest, &tool::catalog()).expect("valid").graph;
        let register = Register {
            name: graph.name.clone(),
            version: graph.version(),
            nodes: u32::try_from(graph.nodes.len()).expect("few"),
            manifest: PayloadSlot(0),
            is_derived: false,
        };
        let payloads = vec![payload(graph.canonical(), Purpose::Manifest)];
        let command = |_: &_, _| (register.clone(), payloads.clone());
        let stream = StreamKey::graph(tenant(), graph::graph_id(&tenant(), &graph.name));
        let context = self.context();
        self.repository.execute::<GraphNoun>(&stream, &context, command).await.expect("new");
        register.version
    }

    fn context(&self) -> Context {
        let now = self.repository.clock().now();
        Context { now, actor: "owner".parse().expect("a name") }
    }

    /// A command from outside.
    pub(crate) async fn tell(&self, command: RunCommand) {
        self.tell_with(command, Vec::new()).await;
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
        let prices = Arc::new(PriceBook::parse(&prices.to_string()).expect("a book"));
        let mut providers = vec![ProviderConfig::local("local", &url, "tiny")];
        if model == Model::Pair {
            providers.push(ProviderConfig::local("spare", &url, "tiny"));
        }
        let models = ModelCatalog::new(providers, Arc::clone(&prices)).expect("valid");
        let config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
        let repository = self.repository.clone();
        Executor::start(config, repository, Arc::new(models), LiveHub::new(), prices)
    }

    /// Waits until the run is as described.
    pub(crate) async fn until(&self, is: impl Fn(&RunState) -> bool) -> RunState {
        let mut tail = self.repository.log().tail(convergio_eventstore::Position::START);
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
        let reason = Some("as agreed".into());
        let roles = vec!["owner".into()];
        let answer = Answer { approval: *id, content_hash, granted, reason, roles };
        self.tell(RunCommand::Answer(answer)).await;
    }
}
