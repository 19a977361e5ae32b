//! Steps of runs that have ended: abandoned, back to where they stood when the run is reopened, and
//! counted rightly; the same whether rows are folded one commit at a time or all at once.

use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::chat::Privacy;
use convergio_domain::decider::DecisionContext;
use convergio_domain::failure::FailureReport;
use convergio_domain::id::{ApprovalId, ExecutorId, GraphId, GraphVersion, RunId, StepId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::platform_text;
use convergio_domain::run::{
    AdvanceRun, Budget, CreateRun, Provenance, Resolution, ResolveStep, Run, RunCommand, RunOrigin,
    RunOutcome, RunPhase, RunState, StepIntent, StepOutcome, StepResult, StepStart, StepStatus,
};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_eventstore::{LogWriter, MemoryLog, Payload, Repository, SystemClock, WallClock};
use convergio_projections::{
    Projections, RunFamily, RunFilter, RunRow, StepRow, rebuild_read_models,
};
use uuid::Uuid;

const TENANT: &str = "one";

/// A log, and read models that are folded after every commit.
struct Stage {
    log: Arc<dyn LogWriter>,
    repository: Repository,
    models: Projections,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn open() -> Self {
        let log: Arc<dyn LogWriter> = Arc::new(MemoryLog::new());
        let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
        let folder = tempfile::tempdir().expect("a folder");
        let models = Projections::open(&folder.path().join("read.db")).await.expect("opens");
        Self { log, repository, models, folder }
    }

    /// Gives a command to a run, which may refuse it, and folds what it did.
    async fn tell(&self, run: RunId, command: RunCommand) -> bool {
        let stream = stream_of(run);
        let context =
            DecisionContext { now: SystemClock.now(), actor: "tester".parse().expect("a name") };
        let payload = Payload {
            bytes: Bytes::from_static(b"{}"),
            media_type: "application/json".into(),
            purpose: PayloadPurpose::Input,
            subject: None,
        };
        let commands = |_: &_, _| (command.clone(), vec![payload.clone()]);
        let done = self.repository.execute::<Run>(&stream, &context, commands).await;
        self.models.catch_up(&*self.log, |_, _| {}).await.expect("folds");
        done.is_ok()
    }

    async fn create(&self, origin: Option<RunOrigin>) -> RunId {
        let run = RunId(Uuid::now_v7());
        let create = CreateRun {
            privacy: Privacy::Any,
            graph: GraphId(Uuid::from_u128(1)),
            version: GraphVersion::from_manifest(b"{}"),
            input: PayloadSlot(0),
            budget: Budget::default(),
            request_hash: "r".into(),
            provenance: Provenance { origin, ..Provenance::default() },
        };
        assert!(self.tell(run, RunCommand::Create(create)).await);
        run
    }

    async fn state(&self, run: RunId) -> RunState {
        self.repository.load::<Run>(&stream_of(run)).await.expect("readable").state
    }

    async fn rows(&self, run: RunId) -> (RunRow, Vec<StepRow>) {
        let (queries, id) = (self.models.query_handle(), run.to_string());
        let row = queries.find_run(TENANT, &id).await.expect("rows").expect("it is there");
        (row, queries.list_steps(TENANT, &id).await.expect("rows"))
    }

    /// The status of each step, by name.
    async fn statuses(&self, run: RunId) -> Vec<(String, String)> {
        let mut steps: Vec<_> =
            self.rows(run).await.1.into_iter().map(|row| (row.step, row.status)).collect();
        steps.sort();
        steps
    }

    /// Rows and state say the same, and so does a rebuild.
    async fn check(&self, run: RunId) {
        self.check_rows(run).await;
        self.check_rebuild().await;
    }

    /// Each step stands in its row where it stands in the state; the run's counts are those of
    /// rows.
    async fn check_rows(&self, run: RunId) {
        let ((row, steps), state) = (self.rows(run).await, self.state(run).await);
        assert_eq!(steps.len(), state.steps.len());
        for step in &steps {
            let known = &state.steps[&step.step.parse::<StepId>().expect("a step")];
            let expected =
                if state.is_abandoned(known) { "abandoned" } else { word(&known.status) };
            assert_eq!(step.status, expected, "{}", step.step);
        }
        let count = |statuses: &[&str]| {
            let is_counted = |step: &&StepRow| statuses.contains(&step.status.as_str());
            i64::try_from(steps.iter().filter(is_counted).count()).expect("few")
        };
        assert_eq!(row.steps_total, i64::try_from(steps.len()).expect("few"));
        assert_eq!(row.steps_done, count(&["completed", "skipped"]));
        assert_eq!(row.steps_abandoned, count(&["abandoned"]));
    }

    async fn check_rebuild(&self) {
        let fresh = self.folder.path().join("fresh.db");
        rebuild_read_models(&fresh, &*self.log, |_, _| {}).await.expect("rebuilds");
        let fresh = Projections::open(&fresh).await.expect("opens");
        let rebuilt = fresh.query_handle().dump_tables().await.expect("rows");
        assert_eq!(self.models.query_handle().dump_tables().await.expect("rows"), rebuilt);
        fresh.close().await;
    }
}

fn stream_of(run: RunId) -> StreamKey {
    StreamKey::for_run(TENANT.parse().expect("a name"), run)
}

/// The word of the read models for a status.
fn word(status: &StepStatus) -> &'static str {
    match status {
        StepStatus::Scheduled { due: Some(_) } => "retrying",
        StepStatus::Scheduled { due: None } => "scheduled",
        StepStatus::Started { .. } | StepStatus::Expanded => "started",
        StepStatus::Unknown => "unknown",
        StepStatus::Sleeping { .. } => "sleeping",
        StepStatus::Asking { .. } | StepStatus::Awaiting { .. } => "waiting",
        StepStatus::Undecided { .. } => "undecided",
        StepStatus::Completed => "completed",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
    }
}

fn step(id: &str) -> StepId {
    id.parse().expect("a step")
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

fn failure() -> FailureReport {
    FailureReport { retryable: true, ..FailureReport::new("tool.failed", platform_text!("no")) }
}

/// Starts a step; what it does goes by its name.
fn start(id: &str) -> RunCommand {
    let intent = match id {
        "map" => StepIntent::ExpandMap { width: 3, max_parallel: 2 },
        "sleep" => StepIntent::Sleep { due: Timestamp(i64::MAX / 2) },
        "signal" => {
            StepIntent::AwaitSignal { signal: "paid".parse().expect("a name"), expires: None }
        }
        "ask" => StepIntent::RequestApproval {
            approval: ApprovalId(Uuid::now_v7()),
            role: "owner".into(),
            content: PayloadSlot(0),
            content_hash: "h".into(),
            expires: None,
        },
        _ => StepIntent::Compute,
    };
    let is_map = id == "map";
    let ready = if is_map { vec![step("map[0]"), step("map[1]")] } else { Vec::new() };
    let starts = vec![StepStart { step: step(id), intent }];
    RunCommand::Advance(AdvanceRun { starts, ready_steps: ready, ..advance() })
}

fn outcome(id: &StepId, attempt: u32, result: StepResult) -> RunCommand {
    let skipped = Vec::new();
    let outcomes = vec![StepOutcome { step: id.clone(), attempt, result, call: None, skipped }];
    RunCommand::Advance(AdvanceRun { outcomes, ..advance() })
}

fn end(end: RunOutcome) -> RunCommand {
    RunCommand::Advance(AdvanceRun { end: Some(end), ..advance() })
}

fn failed_by(id: &str) -> RunCommand {
    end(RunOutcome::Failed { step: Some(step(id)), error: failure() })
}

fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(step, status)| ((*step).to_owned(), (*status).to_owned())).collect()
}

#[tokio::test]
async fn what_an_ended_run_left_is_abandoned_and_stands_where_it_stood_when_the_run_goes_on() {
    let stage = Stage::open().await;
    let run = stage.create(None).await;
    for id in ["a", "b", "map", "map[0]", "sleep", "signal", "ask"] {
        assert!(stage.tell(run, start(id)).await, "{id}");
    }
    let completed = StepResult::Completed { output: None, case: None };
    assert!(stage.tell(run, outcome(&step("b"), 1, completed)).await);
    let failed = StepResult::Failed { error: failure(), retry_at: None };
    for id in ["map[0]", "map"] {
        assert!(stage.tell(run, outcome(&step(id), 1, failed.clone())).await, "{id}");
    }
    assert!(stage.tell(run, failed_by("map[0]")).await);
    let ended = [
        ("a", "abandoned"),
        ("ask", "abandoned"),
        ("b", "completed"),
        ("map", "failed"),
        ("map[0]", "failed"),
        ("map[1]", "abandoned"),
        ("signal", "abandoned"),
        ("sleep", "abandoned"),
    ];
    assert_eq!(stage.statuses(run).await, named(&ended));
    let (row, _) = stage.rows(run).await;
    assert_eq!((row.steps_done, row.steps_abandoned, row.steps_total), (1, 5, 8));
    assert_eq!(row.error_step.as_deref(), Some("map[0]"));
    stage.check(run).await;
    let steps = vec![step("map[0]"), step("map")];
    assert!(stage.tell(run, RunCommand::Retry { steps }).await);
    let reopened = [
        ("a", "started"),
        ("ask", "waiting"),
        ("b", "completed"),
        ("map", "started"),
        ("map[0]", "scheduled"),
        ("map[1]", "scheduled"),
        ("signal", "waiting"),
        ("sleep", "sleeping"),
    ];
    assert_eq!(stage.statuses(run).await, named(&reopened));
    let (row, _) = stage.rows(run).await;
    assert_eq!((row.steps_abandoned, row.error_step), (0, None));
    stage.check(run).await;
}

#[tokio::test]
async fn items_that_a_completed_run_left_are_abandoned() {
    let stage = Stage::open().await;
    for last in [end(RunOutcome::Completed { output: None }), RunCommand::Cancel { reason: None }] {
        let run = stage.create(None).await;
        for id in ["map", "map[0]", "map[1]"] {
            assert!(stage.tell(run, start(id)).await, "{id}");
        }
        let failed = StepResult::Failed { error: failure(), retry_at: None };
        assert!(stage.tell(run, outcome(&step("map"), 1, failed)).await);
        assert!(stage.tell(run, last).await);
        let left = [("map", "failed"), ("map[0]", "abandoned"), ("map[1]", "abandoned")];
        assert_eq!(stage.statuses(run).await, named(&left));
        stage.check(run).await;
    }
}

#[tokio::test]
async fn runs_within_runs_are_listed_under_their_parent() {
    let stage = Stage::open().await;
    let parent = stage.create(None).await;
    let mut children = Vec::new();
    for number in 0..3 {
        let origin = RunOrigin { run: parent, step: step(&format!("map[{number}]")), depth: 1 };
        children.insert(0, stage.create(Some(origin)).await.to_string());
    }
    let queries = stage.models.query_handle();
    let list = async |family: RunFamily, limit| {
        let filter = RunFilter { family, ..RunFilter::default() };
        queries.list_runs(TENANT, &filter, None, limit).await.expect("rows")
    };
    let ids = |rows: &[RunRow]| rows.iter().map(|row| row.run.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&list(RunFamily::TopLevel, 9).await.items), [parent.to_string()]);
    let within = list(RunFamily::ChildrenOf(parent.to_string()), 9).await.items;
    assert_eq!(ids(&within), children);
    assert_eq!(within[0].parent_step.as_deref(), Some("map[2]"));
    assert_eq!(list(RunFamily::All, 9).await.items.len(), 4);
    assert!(list(RunFamily::ChildrenOf(parent.to_string()), 2).await.next_cursor.is_some());
    assert_eq!(queries.count_children(TENANT, &parent.to_string()).await.expect("a count"), 3);
    assert_eq!(queries.count_children("two", &parent.to_string()).await.expect("a count"), 0);
}

/// Numbers that look random and are the same for a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("small") % limit
    }

    fn of<'a, T>(&mut self, those: &'a [T]) -> Option<&'a T> {
        if those.is_empty() { None } else { those.get(self.below(those.len())) }
    }
}

/// A command that a run in this state may take or refuse.
fn any_command(state: &RunState, chance: &mut Chance) -> RunCommand {
    let with = |is: fn(&StepStatus) -> bool| {
        let steps = state.steps.iter().filter(|(_, step)| is(&step.status));
        steps.map(|(id, step)| (id.clone(), step.attempt)).collect::<Vec<_>>()
    };
    let under_way = with(|status| {
        !matches!(status, StepStatus::Scheduled { .. } | StepStatus::Completed)
            && !matches!(status, StepStatus::Failed | StepStatus::Skipped)
    });
    if state.paused && chance.below(2) == 0 {
        return RunCommand::Resume;
    }
    if state.phase == RunPhase::Failed && chance.below(3) > 0 {
        let failed = with(|status| *status == StepStatus::Failed);
        return RunCommand::Retry { steps: failed.into_iter().map(|(id, _)| id).collect() };
    }
    match chance.below(40) {
        0 => return RunCommand::Cancel { reason: None },
        1 => return end(RunOutcome::Completed { output: None }),
        2 => return failed_by("a"),
        3 => return RunCommand::Pause { reason: None },
        4..=6 => {
            let undecided = with(|status| matches!(status, StepStatus::Undecided { .. }));
            let Some((step, _)) = chance.of(&undecided).cloned() else { return start("a") };
            let (resolution, output, reason) = (Resolution::Retry, None, None);
            return RunCommand::Resolve(ResolveStep { step, resolution, output, reason });
        }
        7..=22 => {
            if let Some((id, attempt)) = chance.of(&under_way).cloned() {
                return outcome(&id, attempt, any_result(chance));
            }
        }
        _ => {}
    }
    let names = ["a", "b", "map", "map[0]", "map[1]", "map[2]", "sleep", "signal", "ask"];
    start(names[chance.below(names.len())])
}

fn any_result(chance: &mut Chance) -> StepResult {
    match chance.below(8) {
        0 | 1 => StepResult::Failed { error: failure(), retry_at: None },
        2 => StepResult::Failed { error: failure(), retry_at: Some(Timestamp(1)) },
        3 => StepResult::FailedAsking { error: failure() },
        4 => StepResult::Unknown { retry_at: Some(Timestamp(1)) },
        5 => StepResult::UnknownAsking,
        6 => StepResult::Skipped,
        _ => StepResult::Completed { output: None, case: None },
    }
}

#[tokio::test]
async fn rows_of_any_history_say_what_its_state_says_live_and_rebuilt() {
    let (mut taken, mut reopened) = (0, 0);
    for seed in 0..6 {
        let stage = Stage::open().await;
        let mut chance = Chance(seed);
        for _ in 0..6 {
            let run = stage.create(None).await;
            for _ in 0..60 {
                let command = any_command(&stage.state(run).await, &mut chance);
                let is_retry = matches!(command, RunCommand::Retry { .. });
                if stage.tell(run, command).await {
                    taken += 1;
                    reopened += u32::from(is_retry);
                    stage.check_rows(run).await;
                }
            }
            stage.check_rebuild().await;
        }
    }
    let enough = taken > 300 && reopened > 5;
    assert!(enough, "only {taken} commands were taken, and {reopened} runs reopened");
}
