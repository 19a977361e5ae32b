//! Power cuts: of what was not synced nothing, something or everything survives. What was
//! acknowledged by a log that promises to outlive a power cut is there afterwards; a broker that
//! does not sync fails the same test, which proves the test.
//!
//! `CONVERGIO_CRASH_ROUNDS` sets the rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convergio_eventstore::conformance::workload::Writers;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{Durability, EventLog, LogReader, Position, jetstream, verify_log};
use convergio_test_support::nats::{Cluster, SyncMode, open_log};

use crate::crash::{check, round, rounds};
use crate::forgetful::Mounted;
use crate::support::Log;

/// By then servers have found each other and what is on their disks.
const SERVERS_ARE_UP: Duration = Duration::from_secs(20);
/// Of ten changes that were not synced so many survive, in turn.
const KEPT: [usize; 4] = [0, 5, 9, 10];

#[tokio::test]
async fn a_power_cut_takes_nothing_that_the_embedded_log_acknowledged() {
    for strict in [false, true] {
        let mut folder = tempfile::tempdir().unwrap();
        let mut told = BTreeMap::new();
        for number in 0..rounds() {
            let at = tempfile::tempdir().unwrap();
            let Some(disk) = Mounted::on(at.path(), folder.path(), strict) else { return };
            round(at.path(), 20 + number * 53 % 300, &mut told);
            let left = tempfile::tempdir().unwrap();
            disk.cut(left.path(), number as u64, KEPT[number % KEPT.len()]);
            let log = EmbeddedLog::open(&EmbeddedConfig::new(left.path())).unwrap();
            check(&log, &mut told).await;
            let found = verify_log(&log, true).await.unwrap();
            assert_eq!(found.records as usize, told.len());
            assert_eq!(found.payloads, found.records);
            log.close().await.unwrap();
            folder = left;
        }
        println!("{} cuts: {} commits, none lost", rounds(), told.len());
    }
}

/// Servers on forgetful disks: writers write, the power of all is cut, all start again. Gives the
/// number of cuts after which acknowledged commits were missing; `None` where disks cannot be had.
async fn cuts_that_lose(servers: usize, sync: SyncMode, rounds: usize) -> Option<usize> {
    let mut cluster = Cluster::prepare(servers, sync);
    let mut disks = mount(&mut cluster)?;
    cluster.start_all();
    let mut config = cluster.create("P").await;
    if sync == SyncMode::Default {
        config.required_durability = Durability::Process;
    }
    let mut lost = 0;
    for number in 0..rounds {
        let log: Log = Arc::new(open_log(&config).await);
        let before = verify_log(&*log, false).await.expect("whole").records;
        let writers = Writers::start(&log, 16);
        writers.wait_for_commits(150).await;
        cluster.kill_all();
        cut(&mut cluster, disks, number);
        disks = mount(&mut cluster)?;
        cluster.start_all();
        let acknowledged = before + writers.acknowledged_count();
        if sync == SyncMode::Default {
            lost += usize::from(fewer_than(&config, acknowledged).await);
            break;
        }
        whole(log, &config, writers, before).await;
    }
    cluster.kill_all();
    cut(&mut cluster, disks, rounds);
    Some(lost)
}

/// The log holds what the writers were told, and nothing else.
async fn whole(log: Log, config: &jetstream::JetStreamConfig, writers: Writers, before: u64) {
    let commits = writers.finish_and_check(Arc::clone(&log)).await;
    log.close().await.expect("ends");
    let log = open_log(config).await;
    let found = verify_log(&log, true).await.expect("every chain and payload holds");
    assert_eq!(found.records, before + commits);
}

/// Whether a log cannot be opened any more, or ends before what was acknowledged.
async fn fewer_than(config: &jetstream::JetStreamConfig, acknowledged: u64) -> bool {
    let until = Instant::now() + SERVERS_ARE_UP;
    let mut last = String::new();
    while Instant::now() < until {
        match jetstream::JetStreamLog::open(config).await {
            Ok(log) => {
                let tail = log.read_all(Position::START, 0).await.expect("readable").tail;
                println!("{} records of {acknowledged} acknowledged are there", tail.0);
                return tail.0 < acknowledged;
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{acknowledged} records were acknowledged: {last}");
    true
}

/// Puts a forgetful disk under each server's store.
fn mount(cluster: &mut Cluster) -> Option<Vec<Mounted>> {
    let mounts = cluster.servers.iter().map(|server| {
        let (store, left) = (server.store(), server.store().with_extension("left"));
        std::fs::create_dir_all(&store).expect("a folder");
        std::fs::create_dir_all(&left).expect("a folder");
        Mounted::on(&store, &left, false)
    });
    mounts.collect()
}

fn cut(cluster: &mut Cluster, disks: Vec<Mounted>, number: usize) {
    for (server, disk) in cluster.servers.iter().zip(disks) {
        let left = server.store().with_extension("left");
        remove(&left);
        disk.cut(&left, number as u64, KEPT[number % KEPT.len()]);
    }
}

fn remove(folder: &Path) {
    std::fs::remove_dir_all(folder).expect("it is ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_nothing_from_a_server_that_syncs() {
    let lost = cuts_that_lose(1, SyncMode::Always, rounds()).await;
    assert!(lost.is_none_or(|lost| lost == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_of_all_takes_nothing_from_three_servers_that_sync() {
    let lost = cuts_that_lose(3, SyncMode::Always, rounds().div_ceil(2)).await;
    assert!(lost.is_none_or(|lost| lost == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_acknowledged_commits_from_servers_that_do_not_sync() {
    for servers in [1, 3] {
        let lost = cuts_that_lose(servers, SyncMode::Default, 4).await;
        assert!(lost.is_none_or(|lost| lost > 0), "the test would not find a loss");
    }
}
