//! Runs of all shapes, executors whose shares move, and people who write to the runs meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use convergio_application::{Caller, NewRun, UseCases};
use convergio_domain::billing::PriceBook;
use convergio_domain::decider::DecisionContext;
use convergio_domain::event::Event;
use convergio_domain::graph;
use convergio_domain::id::{ExecutorId, GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{Budget, Run, RunCommand, SendSignal};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{
    CommitError, LiveHub, LogReader, Payload, Repository, SLOT_COUNT, SlotSet,
};
use convergio_executor::catalog::ModelCatalog;
use convergio_executor::replay::Replay;
use convergio_executor::{Executor, ExecutorConfig, tool};
use futures_util::future::join_all;
use tokio::sync::watch;
use uuid::Uuid;

use crate::faults::{Fake, Faults, Random};
use crate::shapes::{INNER_GRAPHS, SIGNALS, Shape};

/// Executors at once.
const EXECUTORS: u64 = 3;
/// Longest time in which nobody's share changes.
const LONGEST_SHARE_MS: u64 = 20_000;
/// Runs of one seed.
const RUNS: u128 = 4;
/// Longest time in which nobody writes to a run.
const LONGEST_SILENCE_MS: u64 = 4_000;

pub(crate) struct World {
    pub(crate) log: Arc<Faults>,
    clock: Fake,
    pub(crate) random: Arc<Random>,
    runs: Vec<(StreamKey, Shape)>,
    /// Steps and runs within a run that may be under way at once.
    places: (usize, usize),
    /// Runs in memory at once.
    active_runs: usize,
    /// Signals that a run was said to have.
    acknowledged: Mutex<BTreeSet<Uuid>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let random = Arc::new(Random(AtomicU64::new(seed)));
        let log = Arc::new(Faults::new(&random));
        let runs = (1..=RUNS).map(|run| {
            // The end of the id is what slots and orders are made of.
            let id = RunId(Uuid::from_u128(run << 64 | u128::from(random.next())));
            (StreamKey::for_run(tenant(), id), Shape::of(random.next()))
        });
        let runs = runs.collect();
        let places = (1 + random.below(20) as usize, 1 + random.below(4) as usize);
        let active_runs = 2 + random.below(10) as usize;
        // A lone outcome with its consequences must fit.
        log.limit_events(16 + random.below(48) as usize);
        Self {
            log,
            clock: Fake::new(),
            random,
            runs,
            places,
            active_runs,
            acknowledged: Mutex::default(),
        }
    }

    fn repository(&self) -> Repository {
        Repository::new(self.log.faulty_log(), Arc::new(self.clock.clone()))
    }

    /// A life: what happens in it, until its end or its death after a span of virtual time.
    pub(crate) fn life<T>(&self, span: Duration, what: impl Future<Output = T>) -> Option<T> {
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

    pub(crate) async fn create(&self) {
        let repository = self.repository();
        for manifest in INNER_GRAPHS {
            self.register(manifest).await;
        }
        for (stream, shape) in &self.runs {
            let (graph, version) = self.register(&shape.manifest).await;
            let new_run = NewRun {
                run: RunId(stream.id),
                budget: Budget { wall: None, ..Budget::default() },
                ..NewRun::of_version(graph, version, "{}")
            };
            let created = UseCases::new(&repository).create_run(&caller(), new_run).await;
            created.expect("created");
        }
    }

    async fn register(&self, manifest: &str) -> (GraphId, GraphVersion) {
        let repository = self.repository();
        let graph =
            graph::parse_manifest(manifest, &tool::builtin_catalog()).expect("a good graph").graph;
        let registered = UseCases::new(&repository).register_graph(&caller(), &graph).await;
        registered.expect("registered")
    }

    /// Executors at work until all runs have ended, while people write to the runs.
    pub(crate) async fn work(&self) {
        tokio::select! {
            () = self.execute() => {}
            () = self.interfere() => {}
        }
    }

    /// The same without pauses, once everybody has said all there is to say.
    pub(crate) async fn finish(&self) {
        let finish = async {
            for (run, _) in &self.runs {
                for signal in 0..SIGNALS {
                    self.request(run, signal_command(run, signal)).await;
                }
                self.request(run, RunCommand::Resume).await;
            }
        };
        tokio::join!(self.execute(), finish);
    }

    /// What executors hold changes; for a while a slot may be held by several, or by none.
    async fn execute(&self) {
        let shares: Vec<_> = (0..=self.random.below(EXECUTORS))
            .map(|number| watch::channel(if number == 0 { SlotSet::ALL } else { SlotSet::NONE }).0)
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

    /// People and programs: pauses, resumes, signals, each again and again, several at once.
    async fn interfere(&self) {
        // One process: those who write to a run at once stand in its queue.
        let repository = self.repository();
        loop {
            let silence_ms = 1 + self.random.below(LONGEST_SILENCE_MS);
            tokio::time::sleep(Duration::from_millis(silence_ms)).await;
            let (run, _) = &self.runs[self.random.below(self.runs.len() as u64) as usize];
            let signal = signal_command(run, u128::from(self.random.below(SIGNALS as u64)));
            let commands = match self.random.below(4) {
                0 => vec![RunCommand::Pause { reason: None }, RunCommand::Pause { reason: None }],
                1 => vec![signal.clone(), signal],
                2 => vec![RunCommand::Resume, signal, RunCommand::Pause { reason: None }],
                _ => vec![RunCommand::Resume, RunCommand::Resume],
            };
            join_all(
                commands.into_iter().map(|command| self.try_request(&repository, run, command)),
            )
            .await;
        }
    }

    /// A request that the rules or the log may refuse.
    async fn try_request(
        &self,
        repository: &Repository,
        run: &StreamKey,
        command: RunCommand,
    ) -> bool {
        let signal = match &command {
            RunCommand::Signal(signal) => Some(signal.id),
            _ => None,
        };
        let payloads = signal.map(|_| payload(b"{}".to_vec(), PayloadPurpose::Signal));
        let payloads: Vec<Payload> = payloads.into_iter().collect();
        let commands = |_: &_, _| (command.clone(), payloads.clone());
        match repository.submit_command::<Run>(run, &context(repository), commands).await {
            Ok(()) => {
                let mut acknowledged = self.acknowledged.lock().expect("nobody panicked");
                acknowledged.extend(signal);
                true
            }
            // Some were said too late: the run has ended.
            Err(CommitError::Rejected(_)) => true,
            Err(CommitError::Conflict) => panic!("{run}: the turn of a request did not come"),
            Err(_) => false,
        }
    }

    /// A request that is sent again until it is taken.
    async fn request(&self, run: &StreamKey, command: RunCommand) {
        let repository = self.repository();
        while !self.try_request(&repository, run, command.clone()).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn executor(&self, share: &watch::Sender<SlotSet>) -> Executor {
        let prices = Arc::new(PriceBook::parse_book("[]").expect("no prices"));
        let models = ModelCatalog::new(Vec::new(), Arc::clone(&prices)).expect("no models");
        let mut config =
            ExecutorConfig::new(ExecutorId(Uuid::from_u128(u128::from(self.random.next()))));
        config.slot_set = share.subscribe();
        (config.steps_per_run, config.child_runs_per_run) = self.places;
        config.active_runs = self.active_runs;
        let (repository, hub) = (self.repository(), LiveHub::new());
        Executor::start(config, repository, Arc::new(models), hub, prices)
    }

    /// Every slot gets a holder. Some are told early, some late: in between rivals work on the
    /// same runs.
    async fn move_shares(&self, shares: &[watch::Sender<SlotSet>]) {
        let mut next = vec![SlotSet::NONE; shares.len()];
        for slot in 0..SLOT_COUNT {
            let holder = self.random.below(shares.len() as u64) as usize;
            next[holder] = next[holder].with_slot(slot);
        }
        for (share, next) in shares.iter().zip(next) {
            share.send_replace(next);
            tokio::time::sleep(Duration::from_millis(self.random.below(60))).await;
        }
    }

    async fn all_ended(&self) -> bool {
        for (run, _) in &self.runs {
            let records = self.log.log.read_stream(run, Seq(0), 10_000).await.expect("in memory");
            let last = records.last().and_then(|record| record.body.events.last());
            let last = last.and_then(Event::as_run);
            if !matches!(last, Some(RunEvent::RunCompleted(_) | RunEvent::RunFailed(_))) {
                return false;
            }
        }
        true
    }

    /// What must be true in the end.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut signals = BTreeSet::new();
        for (run, shape) in &self.runs {
            let records = self.log.log.read_stream(run, Seq(0), 10_000).await.expect("in memory");
            let mut steps: BTreeMap<String, u32> = BTreeMap::new();
            let (mut completed, mut within) = (0, 0);
            let events = records.iter().flat_map(|record| &record.body.events);
            for event in events.filter_map(Event::as_run) {
                match event {
                    RunEvent::StepCompleted(step) => {
                        *steps.entry(step.step.to_string()).or_default() += 1;
                    }
                    RunEvent::RunCompleted(_) => completed += 1,
                    RunEvent::ChildEnded(_) => within += 1,
                    RunEvent::SignalReceived(signal) if !signals.insert(signal.id) => {
                        return Err(format!("{run}: signal {} is there twice", signal.id));
                    }
                    RunEvent::RunFailed(failed) => {
                        return Err(format!("{run}: {:?}", failed.error));
                    }
                    _ => {}
                }
            }
            let graph = graph::parse_manifest(&shape.manifest, &tool::builtin_catalog())
                .expect("a good graph")
                .graph;
            let mut replay = Replay::new(graph).map_err(|error| error.to_string())?;
            for record in &records {
                let provided = replay.provide_missing_payloads(&self.log.log, run, record).await;
                provided.map_err(|error| error.to_string())?;
                replay.replay_commit(record, None).map_err(|found| format!("{run}: {found:?}"))?;
            }
            if within != shape.children {
                return Err(format!("{run}: {within} ends of runs within it"));
            }
            let is_short = steps.len() < shape.steps;
            if completed != 1 || steps.values().any(|count| *count != 1) || is_short {
                return Err(format!("{run}: completed {completed} times, steps {steps:?}"));
            }
        }
        let acknowledged = self.acknowledged.lock().expect("nobody panicked");
        match acknowledged.difference(&signals).next() {
            Some(lost) => Err(format!("signal {lost} was acknowledged and is not there")),
            None => Ok(()),
        }
    }
}

/// One of the signals that are sent to a run: the same one, however often it is sent.
fn signal_command(run: &StreamKey, number: u128) -> RunCommand {
    RunCommand::Signal(SendSignal {
        id: Uuid::from_u128(run.id.as_u128() ^ (number + 1)),
        name: "go".parse().expect("a name"),
        payload: PayloadSlot(0),
    })
}

fn tenant() -> TenantId {
    "sim".parse().expect("a name")
}

fn caller() -> Caller {
    Caller::new(tenant(), "sim".parse().expect("a name"))
}

fn context(repository: &Repository) -> DecisionContext {
    DecisionContext { now: repository.clock().now(), actor: caller().actor }
}

fn payload(bytes: Vec<u8>, purpose: PayloadPurpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}
