//! Roles in processes of their own, on three real nats-servers, while some of each are killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use convergio_domain::event::Event;
use convergio_domain::run::event::RunEvent;
use convergio_eventstore::jetstream::JetStreamConfig;
use convergio_eventstore::{LogReader, Position};
use convergio_test_support::nats::{Cluster, SyncMode, open_log};
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::watch;

use crate::harness::{Client, Server, convergio, text};

/// Runs that are under way while things die; `CONVERGIO_CLUSTER_RUNS` sets another number.
const RUNS: usize = 200;
/// Longest wait for something to get on.
const WAIT: Duration = Duration::from_secs(240);
/// Wait before a gateway is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long an executor is frozen.
const FROZEN: Duration = Duration::from_secs(9);
/// Clients that ask for runs.
const SUBMITTERS: usize = 8;
const GATEWAYS: [&str; 2] = ["g1", "g2"];
const EXECUTORS: [&str; 3] = ["e1", "e2", "e3"];

fn runs() -> usize {
    let set = std::env::var("CONVERGIO_CLUSTER_RUNS").ok();
    set.map_or(RUNS, |runs| runs.parse().expect("CONVERGIO_CLUSTER_RUNS is a number"))
}

/// A folder for a process, with the log's key.
fn folder(root: &Path, name: &str) -> PathBuf {
    let folder = root.join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let key = root.join("first/payload.key");
    if !folder.join("payload.key").exists() {
        std::fs::copy(key, folder.join("payload.key")).expect("copied");
    }
    folder
}

fn start(root: &Path, url: &str, role: &str, name: &str) -> Server {
    Server::start_as(&folder(root, name), &["--insecure-cluster", "--log", url, "--role", role])
}

/// Makes the log; the servers may still be finding each other.
fn create(root: &Path, url: &str) {
    let until = Instant::now() + WAIT;
    loop {
        let create = ["log", "create", "--log-gib", "1", "--payload-gib", "1", "--log", url];
        let made = convergio(&root.join("first"), &[&create[..], &["--insecure-cluster"]].concat());
        if made.status.success() || text(&made.stderr).contains("exists already") {
            return;
        }
        assert!(Instant::now() < until, "{}", text(&made.stderr));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_completes_once_while_processes_and_servers_are_killed() {
    let mut fleet = Fleet::start();
    let graph = fleet.gateways[0].register("small.yaml").await;
    let tally = Tally::follow(fleet.root.path(), &fleet.url).await;
    let begun = Instant::now();
    let submitted: Vec<_> = (0..SUBMITTERS)
        .map(|first| {
            let (clients, graph) = (Arc::clone(&fleet.clients), graph.clone());
            tokio::spawn(async move { submit(&clients, &graph, first).await })
        })
        .collect();
    let (mut chance, mut deaths) = (Chance(seed()), 0);
    while tally.completed() < runs() {
        tally.more(runs() / 16, runs()).await;
        if tally.completed() < runs() * 9 / 10 {
            fleet.something_dies(&mut chance, &tally).await;
            deaths += 1;
        }
    }
    let mut started = BTreeMap::new();
    for of_one in submitted {
        started.extend(of_one.await.expect("every request is answered"));
    }
    let seconds = begun.elapsed().as_secs();
    println!("{} runs, {deaths} deaths, {seconds} s, seed {}", runs(), seed());
    assert!(deaths > 0, "something died");
    assert_eq!(started.len(), runs());
    tally.check(&started);
    for (number, run) in started.iter().step_by(10) {
        let view = fleet.gateways[number % 2].ended(run).await;
        assert_eq!(view["output"], json!(format!("run {number} has 2 words")), "{view}");
    }
    for gateway in &fleet.gateways {
        completed(gateway, runs()).await;
    }
    fleet.check_alone();
}

/// Where a death strikes is drawn from this: `CONVERGIO_CLUSTER_SEED` repeats a day.
fn seed() -> u64 {
    let set = std::env::var("CONVERGIO_CLUSTER_SEED").ok();
    set.map_or(1, |seed| seed.parse().expect("CONVERGIO_CLUSTER_SEED is a number"))
}

/// Numbers for chance (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 33) as usize % limit
    }
}

/// Three nats-servers, two gateways, three executors.
struct Fleet {
    cluster: Cluster,
    url: String,
    gateways: Vec<Server>,
    executors: Vec<Server>,
    /// How the gateways are reached now.
    clients: Arc<Mutex<Vec<Client>>>,
    root: tempfile::TempDir,
}

impl Fleet {
    fn start() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let cluster = Cluster::start(3, SyncMode::Always);
        let url = cluster.url("T");
        create(root.path(), &url);
        let some = |role: &str, names: &[&str]| -> Vec<Server> {
            names.iter().map(|name| start(root.path(), &url, role, name)).collect()
        };
        let gateways = some("gateway", &GATEWAYS);
        let executors = some("executor", &EXECUTORS);
        let clients = Arc::new(Mutex::new(gateways.iter().map(Server::client).collect()));
        Self { cluster, url, gateways, executors, clients, root }
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is killed or freezes, the others get on, and it comes back.
    async fn something_dies(&mut self, chance: &mut Chance, tally: &Tally) {
        let (more, all) = (runs() / 40 + 1, runs());
        match chance.below(4) {
            0 => {
                let number = chance.below(EXECUTORS.len());
                println!("executor {number} is killed at {} runs", tally.completed());
                self.executors.remove(number).kill();
                tally.more(more, all).await;
                let again = start(self.root.path(), &self.url, "executor", EXECUTORS[number]);
                self.executors.insert(number, again);
            }
            1 => {
                let number = chance.below(EXECUTORS.len());
                println!("executor {number} freezes at {} runs", tally.completed());
                self.executors[number].signal("-STOP");
                // Longer than it takes to be held for dead.
                tokio::time::sleep(FROZEN).await;
                self.executors[number].signal("-CONT");
            }
            2 => {
                let number = chance.below(GATEWAYS.len());
                println!("gateway {number} is killed at {} runs", tally.completed());
                self.gateways.remove(number).kill();
                tally.more(more, all).await;
                let again = start(self.root.path(), &self.url, "gateway", GATEWAYS[number]);
                self.clients()[number] = again.client();
                self.gateways.insert(number, again);
            }
            _ => {
                let number = chance.below(3);
                println!("nats-server {number} is killed at {} runs", tally.completed());
                self.cluster.servers[number].kill();
                tally.more(more, all).await;
                self.cluster.servers[number].start();
                self.cluster.all_current("T_LOG").await;
            }
        }
    }

    /// Once all processes have ended: every chain and payload, and read models against a rebuild.
    fn check_alone(self) {
        let Self { cluster, url, gateways, executors, root, .. } = self;
        drop((gateways, executors));
        let mut commands = vec![("g1", vec!["log", "verify", "--payloads"])];
        commands.extend(GATEWAYS.map(|name| (name, vec!["projections", "check"])));
        for (name, command) in commands {
            let arguments = [&command[..], &["--insecure-cluster", "--log", &url]].concat();
            let checked = convergio(&folder(root.path(), name), &arguments);
            let said = format!("{}{}", text(&checked.stdout), text(&checked.stderr));
            assert!(checked.status.success(), "{command:?}: {said}");
            println!("{}: {}", command.join(" "), said.trim());
        }
        drop(cluster);
    }
}

/// What the log itself says, followed from its first record.
struct Tally {
    ends: Arc<Mutex<BTreeMap<(String, String), u32>>>,
    completed: watch::Receiver<usize>,
}

impl Tally {
    async fn follow(root: &Path, url: &str) -> Self {
        let key = std::fs::read(root.join("first/payload.key")).expect("the key");
        let key = key.try_into().expect("32 bytes");
        let mut config = JetStreamConfig::new(url.parse().expect("an address"), key);
        config.insecure_cluster = true;
        let log = open_log(&config).await;
        let ends = Arc::new(Mutex::new(BTreeMap::new()));
        let (told, completed) = watch::channel(0);
        let counted = Arc::clone(&ends);
        tokio::spawn(async move {
            let mut tail = log.tail_all(Position::START);
            while let Some(record) = tail.next().await {
                let record = record.expect("the log is whole");
                let run = record.stream.id.to_string();
                let mut ends = counted.lock().unwrap_or_else(PoisonError::into_inner);
                for event in record.body.events.iter().filter_map(Event::as_run) {
                    let what = match event {
                        RunEvent::StepCompleted(step) => step.step.to_string(),
                        RunEvent::RunCompleted(_) => "completed".to_owned(),
                        RunEvent::RunCreated(_) => "created".to_owned(),
                        RunEvent::RunFailed(failed) => panic!("{run}: {failed:?}"),
                        _ => continue,
                    };
                    told.send_modify(|count| *count += usize::from(what == "completed"));
                    *ends.entry((run.clone(), what)).or_default() += 1;
                }
            }
        });
        Self { ends, completed }
    }

    fn completed(&self) -> usize {
        *self.completed.borrow()
    }

    /// Waits until so many more runs, or all, have completed.
    async fn more(&self, more: usize, all: usize) {
        let goal = (self.completed() + more).min(all);
        let mut completed = self.completed.clone();
        let came = tokio::time::timeout(WAIT, completed.wait_for(|count| *count >= goal)).await;
        // What was waited for is locked while it is held: two readers and a writer would be stuck.
        let came = came.map(|count| count.map(|_| ()));
        let told = format!("{} of {all} runs are completed", self.completed());
        came.expect(&told).expect("the log is followed");
    }

    /// Each run was created once, each of its three steps and itself completed once; no other run.
    fn check(&self, started: &BTreeMap<usize, String>) {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let twice: Vec<_> = ends.iter().filter(|(_, count)| **count != 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        assert_eq!(ends.len(), 5 * started.len());
        for run in started.values() {
            assert!(ends.contains_key(&(run.clone(), "completed".to_owned())), "{run}");
        }
    }
}

/// Asks for every n-th run, of whichever gateway answers; gives their ids.
async fn submit(
    clients: &Mutex<Vec<Client>>,
    graph: &str,
    first: usize,
) -> BTreeMap<usize, String> {
    let mut started = BTreeMap::new();
    for number in (first..runs()).step_by(SUBMITTERS) {
        let inputs = json!({"text": format!("run {number}")});
        let key = format!("run-{number}");
        let mut tries = number;
        let run = loop {
            let client = {
                let clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
                clients[tries % clients.len()].clone()
            };
            tries += 1;
            // The same key is the same run, whatever happened to the answer.
            match client.execute(graph, &inputs, &key).await {
                Some((202, accepted)) => {
                    break accepted["run_id"].as_str().expect("a run").to_owned();
                }
                Some((503 | 429, _)) | None => tokio::time::sleep(AGAIN).await,
                Some((status, refused)) => panic!("{status} {refused}"),
            }
        };
        started.insert(number, run);
    }
    started
}

/// Waits until a gateway's read models show so many completed runs.
async fn completed(gateway: &Server, count: usize) {
    let until = Instant::now() + WAIT;
    let mut seen = 0;
    while seen < count {
        assert!(Instant::now() < until, "{seen} of {count} runs are completed");
        tokio::time::sleep(AGAIN).await;
        seen = 0;
        let mut cursor = String::new();
        loop {
            let page = gateway.get(&format!("/v1/runs?status=completed&limit=1000{cursor}")).await;
            seen += page["items"].as_array().expect("a page").len();
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_cluster_is_one_line() {
    let root = tempfile::tempdir().expect("a folder");
    let cases: [(&[&str], &str); 4] = [
        (&["serve", "--role", "executor"], "roles apart need a log in a cluster"),
        (&["log", "verify", "--log", "nats://u:secret@"], "a host is missing"),
        (&["log", "create"], "name a cluster"),
        (&["log", "create", "--log", "nats://u:secret@127.0.0.1:1/X"], "no server of"),
    ];
    for (arguments, expected) in cases {
        let refused = convergio(root.path(), arguments);
        let line = text(&refused.stderr);
        assert!(!refused.status.success());
        assert!(line.contains(expected) && line.lines().count() == 1, "{arguments:?}: {line}");
        assert!(!line.contains("secret"), "{line}");
    }
}
