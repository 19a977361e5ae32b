//! Who knows no secret joins no cluster, and a cluster that lets strangers in is no place for a
//! log.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use async_nats::client::Request;
use async_nats::jetstream;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use convergio_eventstore::jetstream::{JetStreamConfig, JetStreamLog, connect_client};
use convergio_eventstore::{
    ComponentHealth, LogReader, LogWriter, PayloadReader, Position, WakeIndex,
};
use convergio_test_support::nats::{Cluster, Server, SyncMode, eventually, free_ports, open_log};
use convergio_test_support::shut_cluster::{Certificates, ShutCluster};
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::support::{new_commit, new_stream};

/// Wait for the answer to a call that is denied, or to a stranger: there is none.
const NO_ANSWER: Duration = Duration::from_secs(1);

async fn refusal(config: &JetStreamConfig) -> String {
    let refused = JetStreamLog::open(config).await.err().expect("it is refused").to_string();
    assert_eq!(refused.lines().count(), 1, "{refused}");
    refused
}

/// A server of a stranger, who reaches a port where servers come in and knows no secret.
fn stranger(
    folder: &Path,
    cluster: &str,
    route: u16,
    certificates: Option<&Certificates>,
) -> Server {
    let (ports, store) = (free_ports(2), folder.join("store"));
    let tls = certificates.map_or_else(String::new, Certificates::settings);
    let settings = format!(
        "server_name: rogue\nlisten: \"127.0.0.1:{}\"\n\
         jetstream {{ store_dir: \"{}\" }}\n\
         accounts {{\n\
         SYS {{ users: [{{user: sys, password: own}}] }}\n\
         CVG {{ jetstream: enabled, users: [{{user: rogue, password: own}}] }}\n\
         }}\nsystem_account: SYS\n\
         cluster {{ name: {cluster}, listen: \"127.0.0.1:{}\", {tls}\n\
         routes: [\"nats://127.0.0.1:{route}\"] }}\n",
        ports[0],
        store.display(),
        ports[1],
    );
    std::fs::write(folder.join("server.conf"), settings).expect("written");
    let mut server = Server::new(ports[0], folder.to_owned(), Vec::new());
    server.start();
    server
}

/// What the stranger's server can do with the log.
async fn context(server: &Server) -> jetstream::Context {
    let address = format!("127.0.0.1:{}", server.client_port);
    let client = eventually("the stranger's server is up", async || {
        let options =
            async_nats::ConnectOptions::with_user_and_password("rogue".into(), "own".into());
        options.connect(&address).await.ok()
    })
    .await;
    jetstream::ContextBuilder::new().timeout(NO_ANSWER).build(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_cluster_is_refused_and_a_stranger_reads_it() {
    let cluster = Cluster::start(3, SyncMode::Always);
    let known = cluster.create("O").await;
    let log = open_log(&known).await;
    log.append(new_commit(&new_stream(), None, "ours")).await.expect("new");

    let mut config = known.clone();
    config.insecure_cluster = false;
    let line = refusal(&config).await;
    assert!(line.contains("lets any server join its cluster"), "{line}");
    assert!(line.contains("deploy/nats/server.conf"), "{line}");
    assert!(line.contains("--insecure-cluster"), "{line}");
    let layout = cluster.layout();
    let refused = JetStreamLog::create_log(&config, &layout).await.expect_err("it is refused");
    assert!(refused.to_string().contains("lets any server join"), "{refused}");
    // Elsewhere nothing is said before the connection is encrypted.
    config.address.servers = vec![format!("0.0.0.0:{}", cluster.servers[0].client_port)];
    let line = refusal(&config).await;
    assert!(line.contains("cannot be reached by TLS"), "{line}");

    // What the refusal is for; and the proof that the test of a shut cluster would see it.
    let folder = tempfile::tempdir().expect("a folder");
    let mut rogue = stranger(folder.path(), "c", cluster.route(0), None);
    let context = context(&rogue).await;
    let read = eventually("the stranger reads", async || {
        context.get_stream("O_LOG").await.ok()?.get_raw_message(1).await.ok()
    })
    .await;
    assert!(!read.payload.is_empty());
    rogue.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_joins_no_shut_cluster() {
    let cluster = ShutCluster::start("SHUT");
    let config = cluster.create().await;
    let log = open_log(&config).await;
    everything_is_done(&log).await;
    strangers_get_nothing(&cluster).await;
    calls_are_denied(&config).await;
    assert_eq!(log.verify_chains().await.expect("the chain holds"), (2, 2));
}

/// All that takes a right: of what is made with the log nothing is refused.
async fn everything_is_done(log: &JetStreamLog) {
    let (stream, mut tail) = (new_stream(), log.tail_all(Position::START));
    let first = log.append(new_commit(&stream, None, "a")).await.expect("new");
    let second = log.append(new_commit(&stream, Some(first), "b")).await.expect("next");
    for head in [first, second] {
        let record = tail.next().await.expect("more").expect("readable");
        assert_eq!(record.stream_head(), head);
    }
    log.next_due_time(Timestamp(0)).await.expect("the wake index gets on");
    let payload = PayloadRef { seq: Seq(1), index: 0 };
    assert_eq!(log.read_payload(&stream, payload).await.expect("readable").expect("there"), "a");
    assert!(log.erase_payload(&stream, payload).await.expect("erased"));
    assert_eq!(log.read_payload(&stream, payload).await.expect("readable"), None);
    assert_eq!(log.read_all(Position::START, 9).await.expect("readable").records.len(), 2);
    let shares = log.lease_slots(ComponentHealth::default());
    eventually("slots are held", async || {
        (shares.watch_slots().borrow().slot_count() > 0).then_some(())
    })
    .await;
    shares.release_slots().await;
}

/// Neither without a certificate nor with one that nobody has vouched for.
async fn strangers_get_nothing(cluster: &ShutCluster) {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let mut own = Certificates::write(folders[1].path());
    // It believes the servers; they must not believe it.
    own.authority.clone_from(&cluster.authority);
    let in_clear = (None, "does not look like a TLS handshake");
    let unknown = (Some(&own), "failed to verify certificate");
    for (folder, (certificates, turned_away)) in folders.iter().zip([in_clear, unknown]) {
        let mut rogue = stranger(folder.path(), "convergio", cluster.routes[0], certificates);
        let context = context(&rogue).await;
        eventually("it was turned away", async || {
            cluster.servers[0].log_text().contains(turned_away).then_some(())
        })
        .await;
        assert!(context.get_stream("SHUT_LOG").await.is_err(), "it sees nothing");
        let sent = context.publish("shut.log.forged", "x".into()).await.expect("sent");
        assert!(sent.await.is_err(), "it appends nothing");
        assert!(!cluster.servers[0].log_text().contains("rogue"), "it is not known");
        rogue.kill();
    }
    let port = cluster.servers[0].client_port;
    let clear = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let mut greeting = String::new();
    BufReader::new(clear).read_line(&mut greeting).expect("it speaks first");
    assert!(greeting.contains("\"tls_required\":true"), "{greeting}");
}

/// Who works with the log may not empty or change it.
async fn calls_are_denied(config: &JetStreamConfig) {
    let client = connect_client(config).await.expect("connects");
    let calls = [
        "STREAM.PURGE.SHUT_LOG",
        "STREAM.PURGE.SHUT_PAYLOAD",
        "STREAM.MSG.DELETE.SHUT_LOG",
        "STREAM.DELETE.SHUT_LOG",
        "STREAM.UPDATE.SHUT_LOG",
        "STREAM.CREATE.OTHER",
        "STREAM.SNAPSHOT.SHUT_LOG",
        "CONSUMER.CREATE.SHUT_PAYLOAD.x",
    ];
    let ask = |call: &str| {
        let request = Request::new().payload("{}".into()).timeout(Some(NO_ANSWER));
        client.send_request(format!("$JS.API.{call}"), request)
    };
    for (call, answer) in calls.iter().zip(join_all(calls.map(ask)).await) {
        assert!(answer.is_err(), "{call}: {answer:?}");
    }
    let purged = ask("STREAM.PURGE.SHUT_DERIVED").await.expect("our own snapshots are purged");
    assert!(!purged.payload.is_empty());
}
