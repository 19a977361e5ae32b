//! A log, an executor and graphs, put together for a test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_application::{Caller, NewRun, UseCases};
use convergio_domain::agent::{AgentCommand, AgentNoun, agent_id};
use convergio_domain::billing::PriceBook;
use convergio_domain::chat::Privacy;
use convergio_domain::decider::{Decider, DecisionContext};
use convergio_domain::failure::Failure;
use convergio_domain::graph::{self, GraphNoun};
use convergio_domain::id::{AgentId, ApprovalId, ExecutorId, GraphId, RunId, StepId, TenantId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{
    AdvanceRun, AnswerApproval, Budget, ChildIntent, CommandReason, ForkRun, Run, RunCommand,
    RunPhase, RunState, StepIntent, StepStart, check_fork_point, child_run_id, lineage,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{
    ComponentHealth, LiveHub, LoadedStream, LogWriter, MemoryLog, Payload, Position, Record,
    Repository, SystemClock,
};
use convergio_executor::catalog::{ModelCatalog, PrivacyPolicy};
use convergio_executor::memory::MemoryPort;
use convergio_executor::provider::ProviderConfig;
use convergio_executor::replay::{Divergence, Replay};
use convergio_executor::{Executor, ExecutorConfig, tool};
use futures_util::StreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

/// Longest time that a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One tenant's platform without gateway and projections.
pub(crate) struct Platform {
    pub(crate) repository: Repository,
    models: Arc<ModelCatalog>,
    executor: Option<Executor>,
    /// Of the runs that are created from now on.
    pub(crate) privacy: Privacy,
    /// Whose graphs and runs are spoken of.
    pub(crate) tenant: TenantId,
    /// What executors recall.
    pub(crate) memory: MemoryPort,
    /// Model calls of a run at once, for the executors that start from now on.
    pub(crate) model_calls_per_run: Option<usize>,
    /// Runs within a run at once, for the executors that start from now on.
    pub(crate) child_runs_per_run: Option<usize>,
    /// Runs that an executor has in memory at once, for the executors that start from now on.
    pub(crate) active_runs: Option<usize>,
    /// Where executors report.
    pub(crate) health: ComponentHealth,
}

impl Platform {
    /// On a fresh memory log, without models.
    pub(crate) fn new() -> Self {
        Self::with_models(Vec::new())
    }

    /// With these model servers.
    pub(crate) fn with_models(providers: Vec<ProviderConfig>) -> Self {
        Self::on(Arc::new(MemoryLog::new()), providers)
    }

    /// The same, on a log.
    pub(crate) fn on(log: Arc<dyn LogWriter>, providers: Vec<ProviderConfig>) -> Self {
        Self {
            repository: Repository::new(log, Arc::new(SystemClock)),
            models: models(providers),
            executor: None,
            privacy: Privacy::Any,
            tenant: tenant(),
            memory: MemoryPort::default(),
            model_calls_per_run: None,
            child_runs_per_run: None,
            active_runs: None,
            health: ComponentHealth::default(),
        }
    }

    /// Other model servers for the executors that start from now on.
    pub(crate) fn replace_models(&mut self, providers: Vec<ProviderConfig>) {
        self.models = models(providers);
    }

    /// The same model servers, held to a policy.
    pub(crate) fn hold(&mut self, providers: Vec<ProviderConfig>, policy: PrivacyPolicy) {
        let models = ModelCatalog::new(providers, Arc::new(prices())).expect("valid providers");
        self.models = Arc::new(models.with_privacy_policy(policy));
    }

    /// Starts an executor; an earlier one is left as it is.
    pub(crate) fn start(&mut self) {
        self.executor = Some(self.executor());
    }

    /// A further executor process on the same log.
    pub(crate) fn executor(&self) -> Executor {
        let mut config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
        config.memory = self.memory.clone();
        config.active_runs = self.active_runs.unwrap_or(config.active_runs);
        if let Some(places) = self.model_calls_per_run {
            config.model_calls_per_run = places;
        }
        if let Some(places) = self.child_runs_per_run {
            config.child_runs_per_run = places;
        }
        config.health = self.health.clone();
        Executor::start(
            config,
            self.repository.clone(),
            Arc::clone(&self.models),
            LiveHub::new(),
            Arc::new(prices()),
        )
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(executor) = self.executor.take() {
            executor.shut_down().await.expect("the log works");
        }
    }

    /// Registers a manifest and creates a run of it.
    pub(crate) async fn create(&self, manifest: &str, inputs: &Value) -> StreamKey {
        let (id, graph) = self.register(manifest).await;
        self.create_run(id, &graph, inputs).await
    }

    /// Defines an agent whose runs are runs of a manifest.
    pub(crate) async fn define(&self, name: &str, manifest: &str) -> AgentId {
        let (graph, parsed) = self.register(manifest).await;
        let define = AgentCommand::Define {
            name: name.into(),
            graph,
            version: parsed.compute_version(),
            definition: PayloadSlot(0),
        };
        let definition = vec![payload(b"{}".to_vec(), PayloadPurpose::Manifest)];
        let id = agent_id(&self.tenant, name);
        let stream = StreamKey::for_agent(self.tenant.clone(), id);
        let command = |_: &_, _| (define.clone(), definition.clone());
        let context = self.context();
        self.repository.execute::<AgentNoun>(&stream, &context, command).await.expect("new");
        id
    }

    /// Registers a manifest.
    pub(crate) async fn register(&self, manifest: &str) -> (GraphId, graph::manifest::Graph) {
        let parsed = graph::parse_manifest(manifest, &tool::builtin_catalog())
            .expect("the manifest is valid");
        let graph = parsed.graph;
        let registered = self.use_cases().register_graph(&self.caller(), &graph).await;
        let (id, _) = registered.expect("new");
        (id, graph)
    }

    async fn create_run(
        &self,
        id: GraphId,
        graph: &graph::manifest::Graph,
        inputs: &Value,
    ) -> StreamKey {
        let new_run = NewRun {
            privacy: self.privacy,
            budget: graph.budget,
            request_hash: "test".into(),
            ..NewRun::of_version(id, graph.compute_version(), inputs.to_string())
        };
        self.use_cases().create_run(&self.caller(), new_run).await.expect("new").stream
    }

    pub(crate) fn use_cases(&self) -> UseCases<'_> {
        UseCases::new(&self.repository)
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::new(self.tenant.clone(), "tester".parse().expect("a valid name"))
    }

    /// A command from outside, as the gateway sends it.
    pub(crate) async fn tell(&self, run: &StreamKey, command: RunCommand) -> LoadedStream<Run> {
        let context = self.context();
        let commands = |_: &_, _| (command.clone(), Vec::new());
        self.repository.execute::<Run>(run, &context, commands).await.expect("the run takes it")
    }

    pub(crate) fn context(&self) -> DecisionContext {
        let now = self.repository.clock().now();
        DecisionContext { now, actor: self.caller().actor }
    }

    /// What an executor writes that dies before it creates the run of the step `sub`.
    pub(crate) async fn advance_to_child(&self, run: &StreamKey) {
        let graph = graph::graph_id(&self.tenant, "inner");
        let stream = StreamKey::for_graph(self.tenant.clone(), graph);
        let inner = self.repository.load::<GraphNoun>(&stream).await.expect("the log works");
        let step: StepId = "sub".parse().expect("a step");
        let child = ChildIntent {
            tool_call: None,
            child: child_run_id(RunId(run.id), &step, 1, None),
            graph,
            version: inner.state.latest.expect("it is registered"),
            input: PayloadSlot(0),
            manifest: None,
            budget: Budget { tokens: Some(100), ..Budget::UNBOUND },
            privacy: Privacy::Any,
            agent: None,
        };
        let advance = AdvanceRun {
            executor: ExecutorId(Uuid::nil()),
            turn_updates: Vec::new(),
            outcomes: Vec::new(),
            instant_outcomes: Vec::new(),
            ready_steps: Vec::new(),
            starts: vec![StepStart { step, intent: StepIntent::CreateChild(child) }],
            end: None,
        };
        let input = payload(br#"{"text": "hello"}"#.to_vec(), PayloadPurpose::Input);
        let command = |_: &_, _| (RunCommand::Advance(advance.clone()), vec![input.clone()]);
        let done = self.repository.execute::<Run>(run, &self.context(), command).await;
        done.expect("the run takes it");
    }

    /// Waits until the folded run satisfies a condition.
    pub(crate) async fn until(&self, run: &StreamKey, is: impl Fn(&RunState) -> bool) -> RunState {
        let mut tail = self.repository.event_log().tail_all(Position::START);
        let waiting = async {
            loop {
                let state = self.state(run).await;
                if is(&state) {
                    return state;
                }
                tail.next().await.expect("the log goes on").expect("the log works");
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(state) => state,
            Err(_) => panic!("it does not happen in time: {:#?}", self.events(run).await),
        }
    }

    /// Waits for the end of a run.
    pub(crate) async fn ended(&self, run: &StreamKey) -> RunState {
        self.until(run, |state| state.phase.is_ended()).await
    }

    /// Executes a run to its end.
    pub(crate) async fn execute(&mut self, manifest: &str, inputs: &Value) -> Ended {
        let run = self.create(manifest, inputs).await;
        if self.executor.is_none() {
            self.start();
        }
        let state = self.ended(&run).await;
        self.stop().await;
        // Every run of every test: what was written is what is computed again.
        let replay = self.replay(&run, manifest).await.expect("no divergence");
        assert_eq!(replay.skipped_decisions, 0, "every route is decided again");
        Ended {
            output: self.output(&run, &state).await,
            detail: match state.error.as_ref().filter(|error| error.detail.is_some()) {
                Some(error) => self.detail(&run, error).await,
                None => String::new(),
            },
            events: self.events(&run).await,
            commits: self.commits(&run).await,
            largest_commit: self.largest_commit(&run).await,
            state,
        }
    }

    /// Computes a run again against a manifest.
    pub(crate) async fn replay(
        &self,
        run: &StreamKey,
        manifest: &str,
    ) -> Result<Replay, Box<Divergence>> {
        let parsed = graph::parse_manifest(manifest, &tool::builtin_catalog())
            .expect("the manifest is valid");
        let mut replay = Replay::new(parsed.graph).expect("the kernel takes it");
        let records = self.records(run).await;
        if let Some(from) = Run::inherited_history(&records[0].body.events[0]) {
            let parent = StreamKey { id: from.id, ..run.clone() };
            let loaded = self.repository.load_at::<Run>(&parent, from.seq, true).await;
            replay.inherit_state(loaded.expect("the log works").expect("it is there").state);
        }
        let log = self.repository.event_log();
        for record in records {
            replay
                .provide_missing_payloads(log.as_ref(), run, &record)
                .await
                .expect("the log works");
            replay.replay_commit(&record, None)?;
        }
        Ok(replay)
    }

    pub(crate) async fn records(&self, run: &StreamKey) -> Vec<Arc<Record>> {
        let log = self.repository.event_log();
        log.read_stream(run, Seq(0), 100_000).await.expect("the log works")
    }

    pub(crate) async fn state(&self, run: &StreamKey) -> RunState {
        self.repository.load::<Run>(run).await.expect("the log works").state
    }

    /// Begins a run with another one's history up to an event; gives the new one.
    pub(crate) async fn fork(
        &self,
        parent: &StreamKey,
        at: u64,
        inputs: Option<&Value>,
    ) -> StreamKey {
        let loaded = self.repository.load_at::<Run>(parent, Seq(at), true).await;
        let mut loaded = loaded.expect("the log works").expect("it has the event");
        check_fork_point(&loaded.state).expect("the run had not ended");
        let head = loaded.head.expect("it has events");
        let (graph, version) = loaded.state.graph.clone().expect("created");
        let fork = ForkRun {
            parent: RunId(parent.id),
            seq: head.seq,
            hash: head.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            fingerprint: loaded.state.refresh_fingerprint(),
            graph,
            version,
            input: inputs.map(|_| PayloadSlot(0)),
            budget: loaded.state.budget,
            changes: inputs.map(|_| "inputs".to_owned()).into_iter().collect(),
            request_hash: String::new(),
            is_parent_imported: false,
        };
        let input: Vec<Payload> = inputs
            .map(|inputs| payload(inputs.to_string().into_bytes(), PayloadPurpose::Input))
            .into_iter()
            .collect();
        let stream = StreamKey::for_run(self.tenant.clone(), RunId(Uuid::now_v7()));
        let command = |_: &_, _| (RunCommand::Fork(fork.clone()), input.clone());
        self.repository.execute::<Run>(&stream, &self.context(), command).await.expect("new");
        stream
    }

    /// A command from outside, with what it carries.
    pub(crate) async fn tell_with(&self, run: &StreamKey, command: RunCommand, carried: &Value) {
        let payloads = vec![payload(carried.to_string().into_bytes(), PayloadPurpose::Signal)];
        let commands = |_: &_, _| (command.clone(), payloads.clone());
        let told = self.repository.execute::<Run>(run, &self.context(), commands).await;
        told.expect("the run takes it");
    }

    pub(crate) async fn output(&self, run: &StreamKey, state: &RunState) -> Value {
        let Some(reference) = state.output else { return Value::Null };
        let (stream, place) = lineage::locate_payload(&state.lineage, run, reference);
        let bytes =
            self.repository.event_log().read_payload(&stream, place).await.expect("the log works");
        serde_json::from_slice(&bytes.expect("not erased")).expect("outputs are JSON")
    }

    pub(crate) async fn events(&self, run: &StreamKey) -> Vec<RunEvent> {
        let log = self.repository.event_log();
        let records = log.read_stream(run, Seq(0), 100_000).await.expect("the log works");
        let events = records.iter().flat_map(|record| &record.body.events);
        events.map(|event| event.as_run().expect("a run's event").clone()).collect()
    }

    async fn commits(&self, run: &StreamKey) -> usize {
        let log = self.repository.event_log();
        log.read_stream(run, Seq(0), 100_000).await.expect("the log works").len()
    }

    async fn largest_commit(&self, run: &StreamKey) -> usize {
        let records = self.records(run).await;
        records.iter().map(|record| record.body.events.len()).max().unwrap_or(0)
    }

    /// Answers the one open question of a run.
    pub(crate) async fn answer(&self, run: &StreamKey, granted: bool) {
        let state = self.until(run, |state| !state.approvals.is_empty()).await;
        let (id, asked) = state.approvals.iter().next().expect("one question");
        let content_hash = asked.content_hash.clone();
        let approval: ApprovalId = *id;
        let (reason, roles) = (Some(CommandReason::Sealed(PayloadSlot(0))), vec!["owner".into()]);
        self.reply(
            run,
            AnswerApproval { approval, content_hash, granted, reason, roles },
            "because",
        )
        .await;
    }

    /// Gives an answer whose reason is these words.
    pub(crate) async fn reply(&self, run: &StreamKey, answer: AnswerApproval, words: &str) {
        let words = vec![payload(json!(words).to_string().into_bytes(), PayloadPurpose::Reason)];
        let command = |_: &_, _| (RunCommand::Answer(answer.clone()), words.clone());
        let answered = self.repository.submit_command::<Run>(run, &self.context(), command).await;
        answered.expect("it is answered");
    }

    /// The full text of a failure of a run.
    pub(crate) async fn detail(&self, run: &StreamKey, error: &Failure) -> String {
        let state = self.state(run).await;
        let reference = error.detail.expect("a detail");
        let (stream, place) = lineage::locate_payload(&state.lineage, run, reference);
        let bytes =
            self.repository.event_log().read_payload(&stream, place).await.expect("the log works");
        serde_json::from_slice(&bytes.expect("not erased")).expect("details are JSON texts")
    }
}

/// What came of a run.
pub(crate) struct Ended {
    pub(crate) state: RunState,
    pub(crate) output: Value,
    /// The full text of the failure, if it has one.
    pub(crate) detail: String,
    pub(crate) events: Vec<RunEvent>,
    pub(crate) commits: usize,
    /// The most events of one commit.
    pub(crate) largest_commit: usize,
}

impl Ended {
    pub(crate) fn completed(self) -> Self {
        assert_eq!(self.state.phase, RunPhase::Completed, "{:?}", self.state.error);
        self
    }

    pub(crate) fn error(&self) -> &Failure {
        self.state.error.as_ref().expect("the run failed")
    }

    /// How often an event of this written type stands in the run.
    pub(crate) fn count(&self, type_name: &str) -> usize {
        self.events.iter().filter(|event| event.type_name() == type_name).count()
    }
}

pub(crate) fn tenant() -> TenantId {
    "default".parse().expect("a valid name")
}

fn models(providers: Vec<ProviderConfig>) -> Arc<ModelCatalog> {
    let prices = Arc::new(prices());
    Arc::new(ModelCatalog::new(providers, prices).expect("the providers are valid"))
}

fn payload(bytes: Vec<u8>, purpose: PayloadPurpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}

fn prices() -> PriceBook {
    let book = json!([{
        "provider": "local", "model": "*", "from_ms": 0, "currency": "USD",
        "per_token": {"in_fresh": "0.000001", "in_cache_read": "0", "out_text": "0.000002"},
    }]);
    PriceBook::parse_book(&book.to_string()).expect("a valid book")
}
