//! Servers and connections that fail while writers write: nothing acknowledged is lost or doubled.
//!
//! `CONVERGIO_CRASH_ROUNDS` sets the rounds of the crash loops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use convergio_eventstore::jetstream::{Config, JetStreamLog};
use convergio_eventstore::{EventLog, Position};
use futures_util::StreamExt;

use crate::nats::{Cluster, READY, Sync, eventually, opened};
use crate::proxy::{self, Losses};
use crate::support::{Log, commit, stream};
use crate::workload::Writers;

fn rounds() -> usize {
    let set = std::env::var("CONVERGIO_CRASH_ROUNDS").ok();
    set.map_or(6, |rounds| rounds.parse().expect("CONVERGIO_CRASH_ROUNDS is a number"))
}

/// The log is whole, and a fresh process reads the same.
async fn whole(config: &Config, commits: u64) {
    let log = opened(config).await;
    let (records, _) = log.verify().await.expect("every chain holds");
    assert_eq!(records, commits, "no more and no less than was acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_requests_and_acknowledgements_are_settled() {
    for servers in [1, 3] {
        let cluster = Cluster::start(servers, Sync::Always);
        let config = cluster.create("A").await;
        drop(opened(&config).await);
        let losses = Arc::new(Losses::default());
        let mut proxied = config.clone();
        proxied.address.servers.clear();
        for server in &cluster.servers {
            let port = proxy::start(server.client_port, Arc::clone(&losses)).await;
            proxied.address.servers.push(format!("127.0.0.1:{port}"));
        }
        let log: Log = Arc::new(opened(&proxied).await);
        let writers = Writers::start(&log, 16);
        // First answers are lost, then requests, then both.
        for (requests, answers) in [(0, 40), (40, 0), (30, 50)] {
            losses.requests.store(requests, Ordering::Relaxed);
            losses.answers.store(answers, Ordering::Relaxed);
            writers.more(400).await;
        }
        losses.requests.store(0, Ordering::Relaxed);
        losses.answers.store(0, Ordering::Relaxed);
        let commits = writers.finish(&*log).await;
        let cut = losses.cut.load(Ordering::Relaxed);
        assert!(cut > 10, "the proxy did lose things: {cut}");
        whole(&config, commits).await;
        println!("{servers} servers: {commits} commits, {cut} connections lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_and_doubles_nothing() {
    let mut cluster = Cluster::start(1, Sync::Always);
    let config = cluster.create("K").await;
    let log: Log = Arc::new(opened(&config).await);
    let mut seen = log.tail(Position::START);
    let writers = Writers::start(&log, 16);
    for _ in 0..rounds() {
        writers.more(100).await;
        cluster.servers[0].kill();
        cluster.servers[0].start();
    }
    writers.more(100).await;
    let commits = writers.finish(&*log).await;
    for position in 1..=commits {
        let next = tokio::time::timeout(READY, seen.next()).await.expect("the tail goes on");
        assert_eq!(next.expect("more").expect("readable").position, Position(position));
    }
    whole(&config, commits).await;
    println!("{} kills: {commits} commits", rounds());
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_three_killed_in_turn_lose_and_double_nothing() {
    let mut cluster = Cluster::start(3, Sync::Always);
    let config = cluster.create("K").await;
    let log: Log = Arc::new(opened(&config).await);
    let mut seen = log.tail(Position::START);
    let writers = Writers::start(&log, 16);
    for round in 0..rounds() {
        writers.more(100).await;
        let server = round % 3;
        cluster.servers[server].kill();
        // Two of three go on.
        writers.more(50).await;
        cluster.servers[server].start();
        all_current(&cluster, &config).await;
    }
    let commits = writers.finish(&*log).await;
    for position in 1..=commits {
        let next = tokio::time::timeout(READY, seen.next()).await.expect("the tail goes on");
        assert_eq!(next.expect("more").expect("readable").position, Position(position));
    }
    whole(&config, commits).await;
    println!("{} kills of one in three: {commits} commits", rounds());
}

/// Waits until every copy of the log is up to date, so that the next server may be killed.
async fn all_current(cluster: &Cluster, config: &Config) {
    let name = format!("{}_LOG", config.address.name);
    eventually("every copy is up to date", async || {
        let options =
            async_nats::ConnectOptions::with_user_and_password("cvg".into(), "secret".into());
        let hosts: Vec<async_nats::ServerAddr> = cluster
            .servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.client_port).parse().expect("an address"))
            .collect();
        let client = options.connect(hosts).await.ok()?;
        let stream = async_nats::jetstream::new(client).get_stream(&name).await.ok()?;
        let state = stream.cached_info().cluster.clone()?;
        let current = state.replicas.iter().all(|peer| peer.current && !peer.offline);
        (current && state.leader.is_some() && state.replicas.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_step_down_lose_and_double_nothing() {
    let cluster = Cluster::start(3, Sync::Always);
    let config = cluster.create("D").await;
    let log: Log = Arc::new(opened(&config).await);
    let writers = Writers::start(&log, 32);
    let options = async_nats::ConnectOptions::with_user_and_password("cvg".into(), "secret".into());
    let port = cluster.servers[0].client_port;
    let client = options.connect(format!("127.0.0.1:{port}")).await.expect("connects");
    for _ in 0..2 * rounds() {
        writers.more(100).await;
        // A stream between two leaders does not answer; the next round asks again.
        let _answer = client.request("$JS.API.STREAM.LEADER.STEPDOWN.D_LOG", "".into()).await;
    }
    writers.more(100).await;
    let commits = writers.finish(&*log).await;
    whole(&config, commits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_acknowledged_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3, Sync::Always);
    let config = cluster.create("M").await;
    let log = Arc::new(opened(&config).await);
    let stream = stream();
    let first = log.append(commit(&stream, None, "1")).await.expect("three of three");
    cluster.servers[0].kill();
    let head = log.append(commit(&stream, Some(first), "2")).await.expect("two of three");
    cluster.servers[1].kill();
    let third = commit(&stream, Some(head), "3");
    let pending = {
        let (log, third) = (Arc::clone(&log), third.clone());
        tokio::spawn(async move { log.append(third).await })
    };
    // Long enough for a false acknowledgement: the broker's election takes this long.
    tokio::time::sleep(Duration::from_secs(12)).await;
    if pending.is_finished() {
        let answer = pending.await.expect("no panic");
        assert!(answer.is_err(), "one of three acknowledged: {answer:?}");
        cluster.servers[0].start();
        cluster.servers[1].start();
        eventually("it is appended once", async || log.append(third.clone()).await.ok()).await;
    } else {
        cluster.servers[0].start();
        cluster.servers[1].start();
        let answer = tokio::time::timeout(READY, pending).await.expect("it is settled");
        answer.expect("no panic").expect("a majority is back");
    }
    whole(&config, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_loses_and_doubles_nothing() {
    let cluster = Cluster::start(3, Sync::Always);
    let config = cluster.create("C").await;
    let log: Log = Arc::new(opened(&config).await);
    let writers = Writers::start(&log, 16);
    for server in &cluster.servers {
        writers.more(50).await;
        server.signal("-STOP");
        writers.more(50).await;
        server.signal("-CONT");
        all_current(&cluster, &config).await;
    }
    let commits = writers.finish(&*log).await;
    whole(&config, commits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_servers_files_is_never_silence() {
    let mut cluster = Cluster::start(1, Sync::Always);
    let config = cluster.create("B").await;
    let log: Log = Arc::new(opened(&config).await);
    let writers = Writers::start(&log, 8);
    writers.more(400).await;
    let commits = writers.finish(&*log).await;
    log.close().await.expect("ends");
    cluster.servers[0].kill();
    let (mut told, mut recovered) = (0, 0);
    let files = blocks(&cluster.servers[0].store().join("jetstream/CVG/streams/B_LOG/msgs"));
    assert!(!files.is_empty(), "there are files to damage");
    for file in files {
        let good = std::fs::read(&file).expect("readable");
        for place in [0, good.len() / 3, good.len() / 2, good.len().saturating_sub(20)] {
            let mut bad = good.clone();
            if let Some(byte) = bad.get_mut(place) {
                *byte ^= 4;
            }
            for bytes in [bad, good[..place].to_vec()] {
                std::fs::write(&file, bytes).expect("written");
                cluster.servers[0].start();
                match outcome(&config).await {
                    Ok(records) if records == commits => recovered += 1,
                    Ok(records) => panic!("silence: {records} of {commits}, {}", file.display()),
                    Err(_) => told += 1,
                }
                cluster.servers[0].kill();
                std::fs::write(&file, &good).expect("written");
                heal(&file);
            }
        }
    }
    println!("damage: {told} told, {recovered} recovered");
    assert!(told > 0);
}

/// Derived files that the server wrote about the damage.
fn heal(file: &std::path::Path) {
    let folder = file.parent().expect("a folder");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name == "index.db") && path != file {
            std::fs::remove_file(path).expect("removed");
        }
    }
}

fn blocks(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect()
}

/// The records of a log that verifies, or why it does not.
async fn outcome(config: &Config) -> Result<u64, String> {
    let log = match tokio::time::timeout(READY, opening(config)).await {
        Ok(Ok(log)) => log,
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err("the log does not open".into()),
    };
    let verified = log.verify().await.map(|(records, _)| records);
    log.close().await.expect("ends");
    verified.map_err(|error| error.to_string())
}

/// Opens as soon as the server answers.
async fn opening(config: &Config) -> Result<JetStreamLog, String> {
    loop {
        match JetStreamLog::open(config).await {
            Ok(log) => return Ok(log),
            Err(error) => {
                let line = error.to_string();
                if !line.contains("no server of") && !line.contains("no responders") {
                    return Err(line);
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    }
}
