//! Thousands of lives of executors under a clock that is not real, on a log that fails: whatever
//! dies wherever, and whoever believes that a run is his, every run completes, every step is
//! recorded once.
//!
//! `CONVERGIO_SIM_SEEDS` sets how many seeds are tried, `CONVERGIO_SIM_SEED` tries one again. A
//! seed fixes the faults, the deaths, the shares and the times; the order in which tools end is
//! free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::chat::Privacy;
use convergio_domain::decider::Context;
use convergio_domain::event::Event;
use convergio_domain::graph::{self, GraphNoun, Register};
use convergio_domain::id::{ExecutorId, GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::metering::PriceBook;
use convergio_domain::payload::{PayloadRef, PayloadSlot, Purpose};
use convergio_domain::run::{Budget, CreateRun, Lineage, Run, RunCommand, Signal};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{
    AppendError, Archived, Clock, Commit, CommitError, Durability, EventLog, Head, LiveHub,
    LogError, MemoryLog, Opening, Page, Payload, Position, RawRecord, Record, Repository, SLOTS,
    Scan, Share,
};
use convergio_executor::model::ModelCatalog;
use convergio_executor::replay::Replay;
use convergio_executor::{Executor, ExecutorConfig, tool};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use uuid::Uuid;

const SEEDS: u64 = 2000;
/// Executors at once.
const EXECUTORS: u64 = 3;
/// Longest time in which nobody's share changes.
const LONGEST_SHARE_MS: u64 = 20_000;
/// Runs of one seed.
const RUNS: u128 = 4;
/// Lives that end by death; fewer than the tries of a step whose executor died.
const DEATHS: u64 = 5;
/// Signals that are sent to one run at once, at most, and the longest time between such bursts.
const SIGNALS: u64 = 8;
const LONGEST_PAUSE_MS: u64 = 30_000;
/// Virtual time in which all must be done once nothing fails any more.
const LAST_LIFE: Duration = Duration::from_secs(3600);

/// What runs within each run: it sleeps too.
const WITHIN: &str = "
name: within
inputs: {type: object, required: [count], properties: {count: {type: integer}}}
output: '{{ nodes.next.output }}'
nodes:
  - {id: rest, sleep: 30s}
  - {id: next, tool: math.eval, with: {expression: '{{ inputs.count }} + 1'}, needs: [rest]}
";

/// A line, a fan-out, its sum, a sleep, and a run within the run.
const GRAPH: &str = "
name: simulated
output: '{{ nodes.last.output }}'
nodes:
  - {id: numbers, tool: list.range, with: {from: 1, to: 7}}
  - id: squares
    map:
      over: '{{ nodes.numbers.output }}'
      tool: math.eval
      with: {expression: '{{ item }} * {{ item }}'}
  - {id: rest, sleep: 90s, needs: [squares]}
  - {id: sum, tool: math.sum, with: {items: '{{ nodes.squares.output }}'}, needs: [rest]}
  - id: within
    graph: {name: within, inputs: {count: '{{ nodes.numbers.output | length }}'}}
  - id: last
    tool: math.sum
    with: {items: ['{{ nodes.sum.output }}', '{{ nodes.within.output }}']}
";

/// Numbers that follow from a seed (splitmix64).
struct Random(AtomicU64);

impl Random {
    fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Time that goes on from life to life; within one it is that of its runtime, which is paused.
#[derive(Clone)]
struct Fake {
    before: Arc<AtomicI64>,
    life: Arc<Mutex<Option<tokio::time::Instant>>>,
}

impl Fake {
    fn begin(&self) {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(tokio::time::Instant::now());
    }

    fn end(&self) {
        self.before.store(self.now().0 + 1, Ordering::Relaxed);
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Clock for Fake {
    fn now(&self) -> Timestamp {
        let life = *self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = life.map_or(0, |begun| begun.elapsed().as_millis());
        Timestamp(self.before.load(Ordering::Relaxed) + i64::try_from(passed).unwrap_or(0))
    }
}

/// A log that is slow, and refuses now and then; what it says is true all the same.
struct Faulty {
    log: MemoryLog,
    random: Arc<Random>,
    /// Of so many calls one is refused; 0 is none.
    one_in: AtomicU64,
    early: broadcast::Sender<Arc<Record>>,
}

impl Faulty {
    async fn hesitate(&self) -> Result<(), LogError> {
        let one_in = self.one_in.load(Ordering::Relaxed);
        if one_in == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(self.random.below(20))).await;
        match self.random.below(one_in) {
            0 => Err(LogError::Unavailable("simulated".into())),
            _ => Ok(()),
        }
    }
}

impl Faulty {
    /// Tells of a commit as it will stand in the log, if it comes to stand there, and nobody is
    /// faster.
    async fn tell_early(&self, commit: Commit) -> Result<(), LogError> {
        let (scratch, stream) = (MemoryLog::new(), commit.stream.clone());
        if scratch.append(commit).await.is_ok() {
            let written = scratch.read_stream(&stream, Seq(0), 1).await?;
            let end = self.log.read_all(Position::START, 0).await?.tail;
            let told = written.first().map(|record| Record::clone(record));
            let told = told.map(|record| Record { position: Position(end.0 + 1), ..record });
            // Nobody listening is fine.
            let _listeners = told.map(|record| self.early.send(Arc::new(record)));
        }
        Ok(())
    }
}

#[async_trait]
impl EventLog for Faulty {
    fn durability(&self) -> Durability {
        self.log.durability()
    }

    async fn append(&self, commit: Commit) -> Result<Head, AppendError> {
        if commit.expected.is_none() {
            self.tell_early(commit.clone()).await?;
        }
        self.hesitate().await?;
        let appended = self.log.append(commit).await;
        // Who dies here has appended and does not know it.
        if self.one_in.load(Ordering::Relaxed) != 0 {
            tokio::time::sleep(Duration::from_millis(self.random.below(20))).await;
        }
        appended
    }

    async fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        self.hesitate().await?;
        self.log.head(stream).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        self.hesitate().await?;
        self.log.read_stream(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Page, LogError> {
        self.log.read_all(after, limit).await
    }

    fn tail(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        self.log.tail(after)
    }

    fn early(&self) -> BoxStream<'static, Arc<Record>> {
        let early = BroadcastStream::new(self.early.subscribe());
        early.filter_map(async |record| record.ok()).boxed()
    }

    async fn read_raw(&self, scan: Scan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        self.log.read_raw(scan, limit).await
    }

    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        self.log.tail_stream(stream, after)
    }

    async fn opening(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        self.hesitate().await?;
        self.log.opening(stream, reference).await
    }

    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        self.log.erase_payload(stream, reference).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        self.hesitate().await?;
        self.log.due(now, limit).await
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        self.log.next_due(now).await
    }

    async fn restore(&self, archived: Archived) -> Result<Head, AppendError> {
        self.log.restore(archived).await
    }

    async fn close(&self) -> Result<(), LogError> {
        self.log.close().await
    }
}

struct World {
    log: Arc<Faulty>,
    clock: Fake,
    random: Arc<Random>,
    runs: Vec<StreamKey>,
    /// Signals that a run was said to have.
    acknowledged: Mutex<Vec<Uuid>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let random = Arc::new(Random(AtomicU64::new(seed)));
        let (log, one_in) = (MemoryLog::new(), AtomicU64::new(0));
        let early = broadcast::channel(64).0;
        let log = Arc::new(Faulty { log, random: Arc::clone(&random), one_in, early });
        let clock = Fake { before: Arc::new(AtomicI64::new(1_000_000)), life: Arc::default() };
        let runs = (1..=RUNS).map(|run| {
            // The end of the id is what slots and orders are made of.
            StreamKey::run(tenant(), RunId(Uuid::from_u128(run << 64 | u128::from(random.next()))))
        });
        let runs = runs.collect();
        Self { log, clock, random, runs, acknowledged: Mutex::default() }
    }

    fn repository(&self) -> Repository {
        Repository::new(Arc::clone(&self.log) as _, Arc::new(self.clock.clone()))
    }

    /// A life: what happens in it, until its end or its death after a span of virtual time.
    fn life<T>(&self, span: Duration, what: impl Future<Output = T>) -> Option<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let came = runtime.block_on(async {
            self.clock.begin();
            let came = tokio::time::timeout(span, what).await.ok();
            self.clock.end();
            came
        });
        // Everything that was under way dies where it stands.
        runtime.shutdown_background();
        came
    }

    async fn create(&self) {
        let repository = self.repository();
        self.register(WITHIN).await;
        let (id, version) = self.register(GRAPH).await;
        for stream in &self.runs {
            let create = CreateRun {
                privacy: Privacy::Any,
                graph: GraphId(id.0),
                version: version.clone(),
                input: PayloadSlot(0),
                budget: Budget::default(),
                request_hash: String::new(),
                lineage: Lineage::default(),
            };
            let input = payload(b"{}".to_vec(), Purpose::Input);
            let command = |_: &_, _| (RunCommand::Create(create.clone()), vec![input.clone()]);
            let context = context(&repository);
            repository.execute::<Run>(stream, &context, command).await.expect("created");
        }
    }

    async fn register(&self, manifest: &str) -> (GraphId, GraphVersion) {
        let repository = self.repository();
        let graph = graph::parse(manifest, &tool::catalog()).expect("a good graph").graph;
        let register = Register {
            name: graph.name.clone(),
            version: graph.version(),
            nodes: u32::try_from(graph.nodes.len()).expect("few"),
            manifest: PayloadSlot(0),
            is_derived: false,
        };
        let id = graph::graph_id(&tenant(), &graph.name);
        let manifest = vec![payload(graph.canonical(), Purpose::Manifest)];
        let stream = StreamKey::graph(tenant(), id);
        let context = context(&repository);
        let command = |_: &_, _| (register.clone(), manifest.clone());
        repository.execute::<GraphNoun>(&stream, &context, command).await.expect("registered");
        (id, graph.version())
    }

    /// Executors at work until all runs have ended, while others write to the runs.
    async fn work_among_writers(&self) {
        tokio::select! {
            () = self.work() => {}
            () = self.send_signals() => {}
        }
    }

    /// Bursts of signals to one run, from a process of their own.
    async fn send_signals(&self) {
        let repository = self.repository();
        loop {
            let pause_ms = self.random.below(LONGEST_PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let run = &self.runs[self.random.below(RUNS as u64) as usize];
            let burst = 1 + self.random.below(SIGNALS);
            let signals = (0..burst).map(|_| self.send_signal(&repository, run));
            futures_util::future::join_all(signals).await;
        }
    }

    async fn send_signal(&self, repository: &Repository, run: &StreamKey) {
        let id = Uuid::from_u128(u128::from(self.random.next()));
        let signal =
            Signal { id, signal: "more".parse().expect("a name"), payload: PayloadSlot(0) };
        let carried = payload(b"1".to_vec(), Purpose::Signal);
        let commands = |_: &_, _| (RunCommand::Signal(signal.clone()), vec![carried.clone()]);
        match repository.submit::<Run>(run, &context(repository), commands).await {
            Ok(()) => {
                self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            }
            Err(CommitError::Conflict) => panic!("{run}: the turn of a signal did not come"),
            // It has ended, or the log could not be used.
            Err(_) => {}
        }
    }

    /// Executors at work until all runs have ended. What each holds changes; for a while a slot
    /// may be held by several, or by none.
    async fn work(&self) {
        let shares: Vec<_> = (0..=self.random.below(EXECUTORS))
            .map(|number| watch::channel(if number == 0 { Share::ALL } else { Share::NONE }).0)
            .collect();
        let _executors: Vec<_> = shares.iter().map(|share| self.executor(share)).collect();
        let mut until_moved = self.random.below(LONGEST_SHARE_MS);
        while !self.all_ended().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            until_moved = until_moved.saturating_sub(100);
            if until_moved == 0 && shares.len() > 1 {
                self.move_shares(&shares).await;
                until_moved = 1000 + self.random.below(LONGEST_SHARE_MS);
            }
        }
    }

    fn executor(&self, share: &watch::Sender<Share>) -> Executor {
        let prices = Arc::new(PriceBook::parse("[]").expect("no prices"));
        let models = ModelCatalog::new(Vec::new(), Arc::clone(&prices)).expect("no models");
        let mut config =
            ExecutorConfig::new(ExecutorId(Uuid::from_u128(u128::from(self.random.next()))));
        config.share = share.subscribe();
        let (repository, hub) = (self.repository(), LiveHub::new());
        Executor::start(config, repository, Arc::new(models), hub, prices)
    }

    /// Every slot gets a holder. Some are told early, some late: in between rivals work on the
    /// same runs.
    async fn move_shares(&self, shares: &[watch::Sender<Share>]) {
        let mut next = vec![Share::NONE; shares.len()];
        for slot in 0..SLOTS {
            let holder = self.random.below(shares.len() as u64) as usize;
            next[holder] = next[holder].with(slot);
        }
        for (share, next) in shares.iter().zip(next) {
            share.send_replace(next);
            tokio::time::sleep(Duration::from_millis(self.random.below(60))).await;
        }
    }

    async fn all_ended(&self) -> bool {
        for run in &self.runs {
            let records = self.log.log.read_stream(run, Seq(0), 10_000).await.expect("in memory");
            let last = records.last().and_then(|record| record.body.events.last());
            if !matches!(last, Some(Event::RunCompleted(_) | Event::RunFailed(_))) {
                return false;
            }
        }
        true
    }

    /// What must be true in the end.
    async fn check(&self) -> Result<(), String> {
        let mut signals = BTreeSet::new();
        for run in &self.runs {
            let records = self.log.log.read_stream(run, Seq(0), 10_000).await.expect("in memory");
            let mut steps: BTreeMap<String, u32> = BTreeMap::new();
            let (mut completed, mut within) = (0, 0);
            for event in records.iter().flat_map(|record| &record.body.events) {
                match event {
                    Event::StepCompleted(step) => {
                        *steps.entry(step.step.to_string()).or_default() += 1;
                    }
                    Event::RunCompleted(_) => completed += 1,
                    Event::ChildEnded(_) => within += 1,
                    Event::SignalReceived(signal) if !signals.insert(signal.id) => {
                        return Err(format!("{run}: signal {} is there twice", signal.id));
                    }
                    Event::RunFailed(failed) => return Err(format!("{run}: {:?}", failed.error)),
                    _ => {}
                }
            }
            let graph = graph::parse(GRAPH, &tool::catalog()).expect("a good graph").graph;
            let mut replay = Replay::new(graph).map_err(|error| error.to_string())?;
            for record in &records {
                let provided = replay.provide_from(&self.log.log, run, record).await;
                provided.map_err(|error| error.to_string())?;
                replay.commit(record, None).map_err(|found| format!("{run}: {found:?}"))?;
            }
            if within != 1 {
                return Err(format!("{run}: the run within ended {within} times"));
            }
            if completed != 1 || steps.values().any(|count| *count != 1) || steps.len() < 11 {
                return Err(format!("{run}: completed {completed} times, steps {steps:?}"));
            }
        }
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        match acknowledged.iter().find(|id| !signals.contains(id)) {
            Some(lost) => Err(format!("signal {lost} was acknowledged and is not there")),
            None => Ok(()),
        }
    }
}

fn tenant() -> TenantId {
    "sim".parse().expect("a name")
}

fn context(repository: &Repository) -> Context {
    Context { now: repository.clock().now(), actor: "sim".parse().expect("a name") }
}

fn payload(bytes: Vec<u8>, purpose: Purpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}

/// Simulates one seed; gives the number of deaths.
fn simulate(seed: u64) -> Result<u64, String> {
    let world = World::new(seed);
    world.life(LAST_LIFE, world.create()).ok_or("the runs cannot be created")?;
    let mut deaths = 0;
    world.log.one_in.store(4 + world.random.below(30), Ordering::Relaxed);
    for _ in 0..world.random.below(DEATHS + 1) {
        // Most lives are short, some see the sleeps end.
        let span = match world.random.below(4) {
            0 => world.random.below(200_000),
            _ => world.random.below(400),
        };
        if world.life(Duration::from_millis(1 + span), world.work_among_writers()).is_none() {
            deaths += 1;
        }
    }
    world.log.one_in.store(0, Ordering::Relaxed);
    world.life(LAST_LIFE, world.work_among_writers()).ok_or("the runs do not end")?;
    let checked = world.life(LAST_LIFE, world.check());
    checked.ok_or("the check does not end")?.map(|()| deaths)
}

/// Counts panics from now on: one in an executor's task is caught by its runtime, and its run goes
/// on later, so that nothing else would tell of it.
fn count_panics() -> Arc<AtomicU64> {
    let (panics, told) = (Arc::new(AtomicU64::new(0)), std::panic::take_hook());
    let counted = Arc::clone(&panics);
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::Relaxed);
        told(panic);
    }));
    panics
}

#[test]
fn every_run_completes_once_whatever_dies() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let one = number("CONVERGIO_SIM_SEED").map(|seed| seed..seed + 1);
    let seeds = one.unwrap_or(0..number("CONVERGIO_SIM_SEEDS").unwrap_or(SEEDS));
    let (next, deaths) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let panics = count_panics();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match simulate(seed) {
                        Ok(died) => deaths.fetch_add(died, Ordering::Relaxed),
                        Err(error) => panic!("CONVERGIO_SIM_SEED={seed}: {error}"),
                    };
                }
            });
        }
    });
    let panics = panics.load(Ordering::Relaxed);
    assert_eq!(panics, 0, "executors that panicked");
    let deaths = deaths.into_inner();
    println!("{} seeds, {deaths} deaths", seeds.end - seeds.start);
}
