//! A gateway on a memory log, with two tenants and no executor.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use convergio_application::{Caller, NewRun, UseCases};
use convergio_domain::decider::DecisionContext;
use convergio_domain::failure::FailureReport;
use convergio_domain::graph::{GraphNoun, ToolCatalog, ToolEffect, ToolSpec};
use convergio_domain::id::{ApprovalId, ExecutorId, GraphId, RunId, StepId, TenantId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::platform_text;
use convergio_domain::run::{
    AdvanceRun, Provenance, Run, RunCommand, RunOrigin, RunOutcome, StepIntent, StepOutcome,
    StepResult, StepStart,
};
use convergio_domain::stream::StreamKey;
use convergio_domain::token::{self, TokenHash};
use convergio_evaluation::Evaluator;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{
    HealthRegistry, LiveHub, LogWriter, MemoryLog, Payload, Repository, SystemClock,
};
use convergio_gateway::{
    CompatSettings, ConnectionLimits, Gateway, ServeOptions, TokenRegistration, TokenRegistry,
};
use convergio_projections::{MemoryIndexes, Projections};
use convergio_schemas::wire::{FleetRun, Verdict};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// A running gateway.
pub(crate) struct Api {
    pub(crate) url: String,
    pub(crate) repository: Repository,
    pub(crate) health: HealthRegistry,
    pub(crate) tokens: TokenRegistry,
    pub(crate) live: LiveHub,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
    _stop: watch::Sender<bool>,
    projector: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

/// The token of tenant one.
pub(crate) const TOKEN: &str = "cvg_one";
pub(crate) const MANIFEST: &str = r#"
name: tiny
inputs: {type: object, required: [text], properties: {text: {type: string}}}
nodes: [{id: a, tool: text.trim, with: {text: "{{ inputs.text }}"}}]
"#;

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a name")
}

/// The stream of a run of tenant one.
pub(crate) fn run_stream(run: &str) -> StreamKey {
    let run: RunId = run.parse().expect("a run");
    StreamKey::for_run(tenant("one"), run)
}

fn token(token: &str, of: &str, role: &str) -> TokenRegistration {
    let (actor, roles) = (role.parse().expect("a name"), vec![role.to_owned()]);
    TokenRegistration { hash: TokenHash::from_token(token), tenant: tenant(of), actor, roles }
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::within(ConnectionLimits::default()).await
    }

    pub(crate) async fn within(limits: ConnectionLimits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::on(Arc::new(MemoryLog::new()), folder, limits).await
    }

    /// On a log in files, which takes its time: requests at once meet there. As many as there are
    /// may come at once, from one address.
    pub(crate) async fn in_files() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log =
            EmbeddedLog::open(&EmbeddedConfig::new(folder.path().join("log"))).expect("opens");
        let limits = ConnectionLimits { max_connections: 1 << 14, ..ConnectionLimits::default() };
        Self::on(Arc::new(log), folder, limits).await
    }

    /// Where a request gives up waiting for its turn to write at once.
    pub(crate) async fn impatient() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let repository = Repository::new(Arc::new(MemoryLog::new()), Arc::new(SystemClock))
            .with_write_timeout(Duration::from_millis(20));
        Self::with(repository, folder, ServeOptions::default()).await
    }

    /// Serves the connections of authenticated callers on a runtime of their own.
    pub(crate) async fn with_work_runtime(work_runtime: Handle, limits: ConnectionLimits) -> Self {
        let repository = Repository::new(Arc::new(MemoryLog::new()), Arc::new(SystemClock));
        let options = ServeOptions { limits, work_runtime: Some(work_runtime), ..<_>::default() };
        Self::with(repository, tempfile::tempdir().expect("a folder"), options).await
    }

    pub(crate) async fn on(
        log: Arc<dyn LogWriter>,
        folder: tempfile::TempDir,
        limits: ConnectionLimits,
    ) -> Self {
        let options = ServeOptions { limits, ..ServeOptions::default() };
        Self::with(Repository::new(log, Arc::new(SystemClock)), folder, options).await
    }

    async fn with(
        repository: Repository,
        folder: tempfile::TempDir,
        options: ServeOptions,
    ) -> Self {
        let log = repository.event_log();
        let projections = Projections::open(&folder.path().join("read.db")).await.expect("opens");
        let queries = projections.query_handle();
        let (stop_projector, stopped) = oneshot::channel();
        let projector = tokio::spawn(async move {
            projections.run(log, stopped).await.expect("it works");
        });
        let projector = Mutex::new(Some((stop_projector, projector)));
        let health = HealthRegistry::default();
        let (stop, stopping) = watch::channel(false);
        let tools = ToolCatalog::new(vec![ToolSpec {
            name: "text.trim".into(),
            description: "Trims.".into(),
            arguments: json!({"type": "object", "properties": {"text": {}}}),
            effect: ToolEffect::Pure,
        }]);
        let tokens = TokenRegistry::new([
            token(TOKEN, "one", "owner"),
            token("cvg_two", "two", "owner"),
            token("cvg_teacher", "one", "teacher"),
            token("cvg_student", "one", "student"),
        ]);
        let live = LiveHub::new();
        let gateway = Gateway {
            repository: repository.clone(),
            queries,
            memories: Arc::new(MemoryIndexes::new(repository.event_log())),
            health: health.clone(),
            live_notes: live.clone(),
            evaluator: Evaluator::in_process(Arc::new(tools)),
            tokens: tokens.clone(),
            models: Arc::new(()),
            compat: CompatSettings::default(),
            replayer: Arc::new(NoReplay(repository.clone())),
            stop: stopping.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(convergio_gateway::serve_gateway(listener, gateway, options, stopping));
        // The provider of TLS may be installed by another test of this process.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (_folder, _stop) = (folder, stop);
        Self { url, repository, health, tokens, live, http, _folder, _stop, projector }
    }

    /// The owner's token of tenant one stands in the log from here on.
    pub(crate) async fn admit_owner(&self) {
        let actor = "owner".parse().expect("a name");
        let context = DecisionContext { now: self.repository.clock().now(), actor };
        let stream = token::token_stream(&tenant("one"));
        let hash = TokenHash::from_token(TOKEN);
        let admit = |_: &_, _| (token::TokenCommand::AdmitOwner { hash }, Vec::new());
        let admitted = self.repository.execute::<token::TokenNoun>(&stream, &context, admit).await;
        admitted.expect("the owner is admitted");
    }

    /// From here on nothing new gets into the read models.
    pub(crate) async fn stop_projector(&self) {
        let projector = self.projector.lock().expect("no panic").take();
        let (stop, task) = projector.expect("it runs");
        stop.send(()).expect("it runs");
        task.await.expect("it ends");
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
    ) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.request(Method::GET, path, Some("cvg_one"));
        parts(request.send().await.expect("an answer")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> (u16, Value) {
        let mut request = self.request(Method::POST, path, Some("cvg_one")).json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        parts(request.send().await.expect("an answer")).await
    }

    /// Registers the tiny graph for tenant one; gives its id.
    pub(crate) async fn graph(&self) -> String {
        self.register(MANIFEST).await
    }

    /// Registers a graph for tenant one; gives its id.
    pub(crate) async fn register(&self, manifest: &str) -> String {
        let request = self.request(Method::POST, "/v1/graphs", Some("cvg_one"));
        let request = request.body(manifest.to_owned());
        let (status, accepted) = parts(request.send().await.expect("an answer")).await;
        assert_eq!(status, 201, "{accepted}");
        accepted["id"].as_str().expect("an id").to_owned()
    }

    /// Creates a run for tenant one; gives its id.
    pub(crate) async fn run(&self) -> String {
        self.run_of(MANIFEST).await
    }

    /// Creates a run of a graph for tenant one; gives its id.
    pub(crate) async fn run_of(&self, manifest: &str) -> String {
        let graph = self.register(manifest).await;
        let path = format!("/v1/graphs/{graph}/execute");
        let (status, accepted) = self.post(&path, &json!({"inputs": {"text": "x"}}), None).await;
        assert_eq!(status, 202, "{accepted}");
        accepted["run_id"].as_str().expect("an id").to_owned()
    }

    /// Creates a run within another one of tenant one; gives its id.
    pub(crate) async fn child(&self, origin: RunOrigin) -> String {
        let graph: GraphId = self.graph().await.parse().expect("a graph");
        let stream = StreamKey::for_graph(tenant("one"), graph);
        let loaded = self.repository.load::<GraphNoun>(&stream).await.expect("readable");
        let new_run = NewRun {
            provenance: Provenance { origin: Some(origin), ..Provenance::default() },
            ..NewRun::of_version(graph, loaded.state.latest.expect("a version"), "{}")
        };
        let executor = Caller::new(tenant("one"), self.executor_context().actor);
        let created = UseCases::new(&self.repository).create_run(&executor, new_run).await;
        created.expect("it is written").stream.id.to_string()
    }

    fn executor_context(&self) -> DecisionContext {
        DecisionContext {
            now: self.repository.clock().now(),
            actor: "executor".parse().expect("a name"),
        }
    }

    /// What an executor would write: it starts steps, or ends the run.
    pub(crate) async fn advance(&self, run: &str, starts: &[&str], end: bool) {
        let starts = starts.iter().map(|id| start(id, StepIntent::Compute)).collect();
        let end = end.then_some(RunOutcome::Completed { output: None });
        self.write(run, AdvanceRun { starts, end, ..advance() }).await;
    }

    /// A step asks somebody of a role; gives the question's id.
    pub(crate) async fn ask(&self, run: &str, id: &str, role: &str) -> String {
        let approval = ApprovalId(Uuid::now_v7());
        let ask = StepIntent::RequestApproval {
            approval,
            role: role.into(),
            content: PayloadSlot(0),
            content_hash: "abc".into(),
            expires: None,
        };
        let bytes = Bytes::from_static(b"\"this\"");
        let (media_type, purpose) = ("application/json".into(), PayloadPurpose::Output);
        let shown = Payload { bytes, media_type, purpose, subject: None };
        self.write_with(run, AdvanceRun { starts: vec![start(id, ask)], ..advance() }, vec![shown])
            .await;
        approval.to_string()
    }

    /// Outcomes, and what starts after them.
    pub(crate) async fn tell(
        &self,
        run: &str,
        outcomes: Vec<StepOutcome>,
        starts: Vec<(&str, StepIntent)>,
    ) {
        let starts = starts.into_iter().map(|(id, intent)| start(id, intent)).collect();
        self.write(run, AdvanceRun { outcomes, starts, ..advance() }).await;
    }

    /// The first try of a step fails, and the run with it.
    pub(crate) async fn fail(&self, run: &str, id: &str) {
        self.fail_try(run, id, 1).await;
    }

    /// A try of a step fails, and the run with it.
    pub(crate) async fn fail_try(&self, run: &str, id: &str, attempt: u32) {
        let error = FailureReport::new("tool.failed", platform_text!("no"));
        let step: StepId = id.parse().expect("a step");
        let result = StepResult::Failed { error: error.clone(), retry_at: None };
        let (call, skipped) = (None, Vec::new());
        let outcomes = vec![StepOutcome { step: step.clone(), attempt, result, call, skipped }];
        let end = Some(RunOutcome::Failed { step: Some(step), error });
        self.write(run, AdvanceRun { outcomes, end, ..advance() }).await;
    }

    /// What an executor would write of a call at a door: the model answers.
    pub(crate) async fn answer_call(&self, run: &str, reply: &Value) {
        let bytes = Bytes::from(reply.to_string());
        let (media_type, purpose) = ("application/json".to_owned(), PayloadPurpose::Output);
        let payload = Payload { bytes, media_type, purpose, subject: None };
        self.advance(run, &["reply"], false).await;
        let output = Some(PayloadSlot(0));
        let outcome = StepOutcome {
            step: "reply".parse().expect("a step"),
            attempt: 1,
            result: StepResult::Completed { output, case: None },
            call: None,
            skipped: Vec::new(),
        };
        let end = Some(RunOutcome::Completed { output: Some(PayloadSlot(1)) });
        let advance = AdvanceRun { outcomes: vec![outcome], end, ..advance() };
        self.write_with(run, advance, vec![payload.clone(), payload]).await;
    }

    async fn write(&self, run: &str, advance: AdvanceRun) {
        self.write_with(run, advance, Vec::new()).await;
    }

    async fn write_with(&self, run: &str, advance: AdvanceRun, payloads: Vec<Payload>) {
        let stream = run_stream(run);
        let context = self.executor_context();
        let command = |_: &_, _| (RunCommand::Advance(advance.clone()), payloads.clone());
        self.repository.execute::<Run>(&stream, &context, command).await.expect("it is written");
    }
}

fn start(id: &str, intent: StepIntent) -> StepStart {
    StepStart { step: id.parse().expect("a step"), intent }
}

fn advance() -> AdvanceRun {
    AdvanceRun {
        executor: ExecutorId(Uuid::nil()),
        turn_updates: Vec::new(),
        outcomes: Vec::new(),
        instant_outcomes: Vec::new(),
        ready_steps: Vec::new(),
        starts: Vec::new(),
        end: None,
    }
}

pub(crate) async fn parts(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

/// Replays are the binary's; its tests try them. Here every run goes on by every version.
struct NoReplay(Repository);

#[async_trait::async_trait]
impl convergio_gateway::Replayer for NoReplay {
    async fn replay_run(
        &self,
        _run: &StreamKey,
        _at: Option<u64>,
        _graph: Option<convergio_domain::graph::manifest::Graph>,
    ) -> Result<convergio_schemas::wire::ReplayReport, convergio_gateway::ReplayError> {
        Err(convergio_gateway::ReplayError::Graph("no replays here".into()))
    }

    fn check_state_fits(
        &self,
        _state: &convergio_domain::run::RunState,
        _graph: &convergio_domain::graph::manifest::Graph,
    ) -> Result<(), String> {
        Ok(())
    }

    async fn check_migration(
        &self,
        run: &StreamKey,
        _graph: Option<&convergio_domain::graph::manifest::Graph>,
    ) -> Result<FleetRun, convergio_gateway::ReplayError> {
        let head = self.0.event_log().stream_head(run).await?;
        Ok(FleetRun {
            run: run.id.to_string(),
            version: String::new(),
            seq: head.map_or(0, |head| head.seq.0),
            verdict: Verdict::Compatible,
            reason: None,
        })
    }
}
