//! A log with runs of several shapes and tenants.

use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::agent::{AgentCommand, AgentNoun, AgentState, agent_id};
use convergio_domain::billing::{Meter, PriceBook, PriceQuery, Usage};
use convergio_domain::chat::Privacy;
use convergio_domain::decider::DecisionContext;
use convergio_domain::id::{ApprovalId, ExecutorId, GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::{
    AdvanceRun, Budget, CallReport, CreateRun, Provenance, Run, RunCommand, RunOutcome, StepIntent,
    StepOutcome, StepResult, StepStart,
};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_eventstore::{LogWriter, MemoryLog, Payload, Repository, SystemClock, WallClock};
use uuid::Uuid;

const PRICES: &str = r#"[{"provider": "local", "model": "*", "from_ms": 0, "currency": "USD",
    "per_token": {"in_fresh": "0.000001", "out_text": "0.000002"}}]"#;

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a name")
}

/// A log with runs of several shapes and tenants.
pub(crate) async fn filled() -> Arc<dyn LogWriter> {
    let log: Arc<dyn LogWriter> = Arc::new(MemoryLog::new());
    let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
    for number in 0..60_u32 {
        let tenant = tenant(if number.is_multiple_of(3) { "one" } else { "two" });
        run(&repository, &tenant, number).await;
    }
    for name in ["tutor", "judge", "tutor"] {
        agent(&repository, name).await;
    }
    log
}

/// Defines an agent, or terminates the one that there is; runs it in any case.
async fn agent(repository: &Repository, name: &str) {
    let tenant = tenant("one");
    let id = agent_id(&tenant, name);
    let context =
        DecisionContext { now: SystemClock.now(), actor: "tester".parse().expect("a name") };
    let payload = Payload {
        bytes: Bytes::from_static(b"{}"),
        media_type: "application/json".into(),
        purpose: PayloadPurpose::Manifest,
        subject: None,
    };
    let (graph, version) = (GraphId(Uuid::from_u128(1)), GraphVersion::from_manifest(b"{}"));
    let define = AgentCommand::Define {
        name: name.into(),
        graph,
        version: version.clone(),
        definition: PayloadSlot(0),
    };
    let command = |state: &AgentState, _| match state.runnable_graph() {
        Some(_) => (AgentCommand::Terminate, Vec::new()),
        None => (define.clone(), vec![payload.clone()]),
    };
    let stream = StreamKey::for_agent(tenant.clone(), id);
    repository.execute::<AgentNoun>(&stream, &context, command).await.expect("it is taken");
    let create = CreateRun {
        privacy: Privacy::Any,
        graph,
        version,
        input: PayloadSlot(0),
        budget: Budget::default(),
        request_hash: "r".into(),
        provenance: Provenance { agent: Some(id), ..Provenance::default() },
    };
    let command = |_: &_, _| (RunCommand::Create(create.clone()), vec![payload.clone()]);
    let stream = StreamKey::for_run(tenant, RunId(Uuid::now_v7()));
    repository.execute::<Run>(&stream, &context, command).await.expect("it is taken");
}

/// Adds a few more runs.
pub(crate) async fn more(log: &Arc<dyn LogWriter>) {
    let repository = Repository::new(Arc::clone(log), Arc::new(SystemClock));
    for number in 60..70 {
        run(&repository, &tenant("one"), number).await;
    }
}

async fn run(repository: &Repository, tenant: &TenantId, number: u32) {
    let stream = StreamKey::for_run(tenant.clone(), RunId(Uuid::now_v7()));
    let context =
        DecisionContext { now: SystemClock.now(), actor: "tester".parse().expect("a name") };
    let payload = Payload {
        bytes: Bytes::from_static(b"{}"),
        media_type: "application/json".into(),
        purpose: PayloadPurpose::Input,
        subject: None,
    };
    let tell = async |command: RunCommand, payloads: usize| {
        let payloads = vec![payload.clone(); payloads];
        let commands = |_: &_, _| (command.clone(), payloads.clone());
        repository.execute::<Run>(&stream, &context, commands).await.expect("the run takes it");
    };
    let create = CreateRun {
        privacy: Privacy::Any,
        graph: GraphId(Uuid::from_u128(u128::from(number % 5))),
        version: GraphVersion::from_manifest(b"{}"),
        input: PayloadSlot(0),
        budget: Budget::default(),
        request_hash: "r".into(),
        provenance: Provenance::default(),
    };
    tell(RunCommand::Create(create), 1).await;
    tell(RunCommand::Advance(AdvanceRun { starts: starts(number), ..advance() }), 2).await;
    if number % 4 == 3 {
        return tell(RunCommand::Cancel { reason: None }, 0).await;
    }
    let mut outcomes = vec![answered(number)];
    outcomes.push(StepOutcome {
        step: "tool".parse().expect("a step"),
        attempt: 1,
        call: None,
        result: StepResult::Completed { output: Some(PayloadSlot(0)), case: None },
        skipped: vec!["other".parse().expect("a node")],
    });
    let end = (number.is_multiple_of(2))
        .then_some(RunOutcome::Completed { output: Some(PayloadSlot(1)) });
    tell(RunCommand::Advance(AdvanceRun { outcomes, end, ..advance() }), 2).await;
}

fn advance() -> AdvanceRun {
    let executor = ExecutorId(Uuid::nil());
    let (outcomes, instant, ready) = (Vec::new(), Vec::new(), Vec::new());
    let (moves, starts) = (Vec::new(), Vec::new());
    AdvanceRun {
        executor,
        turn_updates: moves,
        outcomes,
        instant_outcomes: instant,
        ready_steps: ready,
        starts,
        end: None,
    }
}

fn starts(number: u32) -> Vec<StepStart> {
    let call = StepIntent::CallModel {
        key: None,
        left_out: Vec::new(),
        turn: 0,
        provider: "local".into(),
        model: "m".into(),
        route: "cheapest".into(),
        routing: None,
        prompt: PayloadSlot(0),
        reserved_tokens: 100,
        reserved_cost: None,
        estimated_tokens: None,
        estimated_meter: None,
        output_limit: None,
        idempotency_key: None,
    };
    let ask = StepIntent::RequestApproval {
        approval: ApprovalId(Uuid::now_v7()),
        role: "teacher".into(),
        content: PayloadSlot(1),
        content_hash: "h".into(),
        expires: Some(Timestamp(i64::from(number))),
    };
    let start = |id: &str, intent| StepStart { step: id.parse().expect("a step"), intent };
    vec![start("agent", call), start("tool", StepIntent::Compute), start("ask", ask)]
}

fn answered(number: u32) -> StepOutcome {
    let prices = PriceBook::parse_book(PRICES).expect("a book");
    let usage = Usage([(Meter::InFresh, 10), (Meter::OutText, u64::from(number))].into());
    let model = if number.is_multiple_of(5) { "unknown" } else { "local" };
    let query = PriceQuery {
        provider: model,
        model: "m",
        is_local: false,
        service_tier: None,
        at: Timestamp(1),
    };
    let charge = prices.charge_call(query, &usage);
    let call = CallReport {
        fallback: None,
        retry_after: None,
        provider: "local".into(),
        model: "m".into(),
        finish: Some("stop".into()),
        duration_ms: 7,
        first_token_ms: None,
        usage: Some(usage),
        confirmed: true,
        service_tier: None,
        charge,
        provider_cost: None,
    };
    let result = StepResult::Completed { output: Some(PayloadSlot(0)), case: None };
    let step = "agent".parse().expect("a step");
    StepOutcome { step, attempt: 1, result, call: Some(call), skipped: Vec::new() }
}
