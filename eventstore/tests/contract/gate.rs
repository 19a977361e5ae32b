//! What opening a log refuses, each in one clear line.

use convergio_eventstore::jetstream::{JetStreamConfig, JetStreamLog};
use convergio_eventstore::{Durability, EventLog, LogError};
use convergio_test_support::nats::{Cluster, SyncMode, open_log};

use crate::proxy;

/// Why a log is not opened.
async fn refusal(config: &JetStreamConfig) -> String {
    match JetStreamLog::open(config).await {
        Ok(_) => panic!("it was opened"),
        Err(error @ LogError::Unavailable(_)) => {
            let line = error.to_string();
            assert!(!line.contains('\n') && !line.contains("secret"), "{line}");
            line
        }
        Err(error) => panic!("another kind: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_in_one_line() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let config = cluster.create("GOOD").await;

    let line = refusal(&cluster.config("NONE")).await;
    assert!(line.contains("stream NONE_PAYLOAD does not exist"), "{line}");
    assert!(line.contains("convergio log create"), "{line}");

    let mut other_key = config.clone();
    other_key.payload_key = [1; 32];
    let line = refusal(&other_key).await;
    assert!(line.contains("another payload key"), "{line}");

    let wrong = cluster.url("GOOD").replace("cvg:secret", "cvg:secret2");
    let line = refusal(&JetStreamConfig::new(wrong.parse().expect("an address"), [9; 32])).await;
    assert!(line.contains("refuses the credentials"), "{line}");

    let mut quorum = config.clone();
    quorum.required_durability = Durability::QuorumFsync;
    let line = refusal(&quorum).await;
    assert!(line.contains("quorum fsync is required") && line.contains("one copy"), "{line}");

    let port = cluster.servers[0].client_port;
    drop(cluster);
    let line = refusal(&config).await;
    assert!(line.contains("no server of") && line.contains(&port.to_string()), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_an_old_version_is_refused() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let mut config = cluster.create("OLD").await;
    // Everything that the server says passes unchanged, but for its version.
    let versions = proxy::Words { from: b"2.15.1", to: b"2.14.9" };
    let port = proxy::changing(cluster.servers[0].client_port, versions).await;
    config.address.servers = vec![format!("127.0.0.1:{port}")];
    let line = refusal(&config).await;
    assert!(line.contains("nats-server n0 has version 2.14.9"), "{line}");
    assert!(line.contains("at least 2.15.1 is needed"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_do_not_sync_are_not_called_durable() {
    for servers in [1, 3] {
        let cluster = Cluster::start(servers, SyncMode::Default);
        let config = cluster.create("LAX").await;
        let line = refusal(&config).await;
        assert!(line.contains("fsync is required"), "{line}");
        assert!(line.contains("without `sync_interval: always`"), "{line}");
        let mut knowing = config;
        knowing.required_durability = Durability::Process;
        let log = open_log(&knowing).await;
        assert_eq!(log.durability(), Durability::Process);
    }
}
