//! Servers and connections that fail while writers write: nothing acknowledged is lost or doubled.
//!
//! `CONVERGIO_CRASH_ROUNDS` sets the rounds of the crash loops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use convergio_eventstore::conformance::workload::Writers;
use convergio_eventstore::jetstream::JetStreamConfig;
use convergio_eventstore::{LogWriter, Position};
use convergio_test_support::nats::{Cluster, READY, SyncMode, eventually, open_log};
use futures_util::StreamExt;

use crate::crash::rounds;
use crate::proxy::{self, Losses};
use crate::support::{Log, new_commit, new_stream};

/// The log is whole, and a fresh process reads the same.
async fn whole(config: &JetStreamConfig, commits: u64) {
    let log = open_log(config).await;
    let (records, _) = log.verify_chains().await.expect("every chain holds");
    assert_eq!(records, commits, "no more and no less than was acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_requests_and_acknowledgements_are_settled() {
    for servers in [1, 3] {
        let cluster = Cluster::start(servers, SyncMode::Always);
        let config = cluster.create("A").await;
        drop(open_log(&config).await);
        let losses = Arc::new(Losses::default());
        let mut proxied = config.clone();
        proxied.address.servers.clear();
        for server in &cluster.servers {
            let port = proxy::start(server.client_port, Arc::clone(&losses)).await;
            proxied.address.servers.push(format!("127.0.0.1:{port}"));
        }
        let log: Log = Arc::new(open_log(&proxied).await);
        let writers = Writers::start(&log, 16);
        // First answers are lost, then requests, then both; a piece holds many of them.
        for (requests, answers) in [(0, 30), (30, 0), (24, 38)] {
            losses.requests.store(requests, Ordering::Relaxed);
            losses.answers.store(answers, Ordering::Relaxed);
            writers.wait_for_commits(400).await;
        }
        losses.requests.store(0, Ordering::Relaxed);
        losses.answers.store(0, Ordering::Relaxed);
        let commits = writers.finish_and_check(Arc::clone(&log)).await;
        let cut = losses.cut.load(Ordering::Relaxed);
        assert!(cut > 5, "the proxy did lose things: {cut}");
        whole(&config, commits).await;
        println!("{servers} servers: {commits} commits, {cut} connections lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_and_doubles_nothing() {
    let mut cluster = Cluster::start(1, SyncMode::Always);
    let config = cluster.create("K").await;
    let log: Log = Arc::new(open_log(&config).await);
    let mut seen = log.tail_all(Position::START);
    let writers = Writers::start(&log, 16);
    for _ in 0..rounds() {
        writers.wait_for_commits(100).await;
        cluster.servers[0].kill();
        cluster.servers[0].start();
    }
    writers.wait_for_commits(100).await;
    let commits = writers.finish_and_check(Arc::clone(&log)).await;
    for position in 1..=commits {
        let next = tokio::time::timeout(READY, seen.next()).await.expect("the tail goes on");
        assert_eq!(next.expect("more").expect("readable").position, Position(position));
    }
    whole(&config, commits).await;
    println!("{} kills: {commits} commits", rounds());
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_three_killed_in_turn_lose_and_double_nothing() {
    let mut cluster = Cluster::start(3, SyncMode::Always);
    let config = cluster.create("K").await;
    let log: Log = Arc::new(open_log(&config).await);
    let mut seen = log.tail_all(Position::START);
    let writers = Writers::start(&log, 16);
    for round in 0..rounds() {
        writers.wait_for_commits(100).await;
        let server = round % 3;
        cluster.servers[server].kill();
        // Two of three go on.
        writers.wait_for_commits(50).await;
        cluster.servers[server].start();
        cluster.all_current(&format!("{}_LOG", config.address.name)).await;
    }
    let commits = writers.finish_and_check(Arc::clone(&log)).await;
    for position in 1..=commits {
        let next = tokio::time::timeout(READY, seen.next()).await.expect("the tail goes on");
        assert_eq!(next.expect("more").expect("readable").position, Position(position));
    }
    whole(&config, commits).await;
    println!("{} kills of one in three: {commits} commits", rounds());
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_step_down_lose_and_double_nothing() {
    let cluster = Cluster::start(3, SyncMode::Always);
    let config = cluster.create("D").await;
    let log: Log = Arc::new(open_log(&config).await);
    let writers = Writers::start(&log, 32);
    let options = async_nats::ConnectOptions::with_user_and_password("cvg".into(), "secret".into());
    let port = cluster.servers[0].client_port;
    let client = options.connect(format!("127.0.0.1:{port}")).await.expect("connects");
    for _ in 0..2 * rounds() {
        writers.wait_for_commits(100).await;
        // A stream between two leaders does not answer; the next round asks again.
        let _answer = client.request("$JS.API.STREAM.LEADER.STEPDOWN.D_LOG", "".into()).await;
    }
    writers.wait_for_commits(100).await;
    let commits = writers.finish_and_check(Arc::clone(&log)).await;
    whole(&config, commits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_acknowledged_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3, SyncMode::Always);
    let config = cluster.create("M").await;
    let log = Arc::new(open_log(&config).await);
    let stream = new_stream();
    let first = log.append(new_commit(&stream, None, "1")).await.expect("three of three");
    cluster.servers[0].kill();
    let head = log.append(new_commit(&stream, Some(first), "2")).await.expect("two of three");
    cluster.servers[1].kill();
    let third = new_commit(&stream, Some(head), "3");
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
    let cluster = Cluster::start(3, SyncMode::Always);
    let config = cluster.create("C").await;
    let log: Log = Arc::new(open_log(&config).await);
    let writers = Writers::start(&log, 16);
    for server in &cluster.servers {
        writers.wait_for_commits(50).await;
        server.signal("-STOP");
        writers.wait_for_commits(50).await;
        server.signal("-CONT");
        cluster.all_current(&format!("{}_LOG", config.address.name)).await;
    }
    let commits = writers.finish_and_check(Arc::clone(&log)).await;
    whole(&config, commits).await;
}
