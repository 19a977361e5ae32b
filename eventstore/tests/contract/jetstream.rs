//! The laws on real servers, and what several processes may expect of each other.

use std::sync::Arc;

use async_nats::jetstream;
use convergio_domain::decider::Wake;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use convergio_eventstore::conformance::laws;
use convergio_eventstore::jetstream::JetStreamLog;
use convergio_eventstore::{
    AppendError, EventLog, LogError, LogLimits, LogReader, LogWriter, PayloadReader, Position,
    RawScan, WakeIndex,
};
use convergio_test_support::nats::{Cluster, SyncMode, eventually, open_log};
use futures_util::StreamExt;

use crate::support::{new_commit, new_event, new_stream};

#[tokio::test(flavor = "multi_thread")]
async fn every_law_holds_on_one_server() {
    let cluster = Cluster::start(1, SyncMode::Always);
    laws::hold(async |number| Arc::new(cluster.log(&format!("L{number}")).await) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_law_holds_on_three_servers() {
    let cluster = Cluster::start(3, SyncMode::Always);
    laws::hold(async |number| Arc::new(cluster.log(&format!("L{number}")).await) as _).await;
}

/// A client beside the log, to do what the log would not.
pub(crate) async fn beside(cluster: &Cluster) -> jetstream::Context {
    let port = cluster.servers[0].client_port;
    let options = async_nats::ConnectOptions::with_user_and_password("cvg".into(), "secret".into());
    let client = options.connect(format!("127.0.0.1:{port}")).await.expect("connects");
    jetstream::new(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_known_to_a_process_that_knows_nothing_yet() {
    for servers in [1, 3] {
        let cluster = Cluster::start(servers, SyncMode::Always);
        let log = cluster.log("W").await;
        let stream = new_stream();
        let first = new_commit(&stream, None, "a");
        let head = log.append(first.clone()).await.expect("new");
        let next = log.append(new_commit(&stream, Some(head), "b")).await.expect("next");
        let other = open_log(&cluster.config("W")).await;
        assert_eq!(other.append(first.clone()).await.expect("known"), head);
        assert_eq!(log.append(first.clone()).await.expect("known"), head);
        let mut changed = first;
        changed.events = vec![new_event("?")];
        assert!(matches!(other.append(changed).await, Err(AppendError::CommitMismatch)));
        assert_eq!(other.stream_head(&stream).await.expect("readable"), Some(next));
    }
}

/// Writes a log's records into another one as the format before had them: in headers what is
/// beside the chain, the canonical body alone.
async fn write_as_before(context: &jetstream::Context, from: &str, to: &str, records: u64) {
    for part in ["LOG", "PAYLOAD", "DERIVED"] {
        let stream = context.get_stream(format!("{to}_{part}")).await.expect("there");
        let mut config = stream.cached_info().config.clone();
        config.metadata.insert("cvg-format".into(), "1".into());
        context.update_stream(config).await.expect("changed");
    }
    let digits = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let written = context.get_stream(format!("{from}_LOG")).await.expect("there");
    for number in 1..=records {
        let message = written.get_raw_message(number).await.expect("there");
        let subject = message.subject.replacen(&from.to_lowercase(), &to.to_lowercase(), 1);
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Cvg-Hash", digits(&message.payload[10..42]));
        headers.insert("Cvg-Prev", digits(&message.payload[42..74]));
        headers.insert("Cvg-Wake", ["done", "parked", "now"][usize::from(message.payload[1])]);
        let sent = context.publish_with_headers(subject, headers, message.payload.slice(74..));
        sent.await.expect("sent").await.expect("stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_the_format_before_is_read_and_goes_on() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let (new, context) = (cluster.log("NEW").await, beside(&cluster).await);
    let (stream, mut head) = (new_stream(), None);
    for number in 0..5 {
        let next = new_commit(&stream, head, &number.to_string());
        head = Some(new.append(next).await.expect("next"));
    }
    let config = cluster.create("OLD").await;
    write_as_before(&context, "NEW", "OLD", 5).await;
    let old = open_log(&config).await;
    let raw = async |log: &JetStreamLog| {
        log.read_raw(RawScan::All(Position::START), 9).await.expect("readable")
    };
    assert_eq!(raw(&old).await, raw(&new).await);
    assert_eq!(old.stream_head(&stream).await.expect("readable"), head);
    old.append(new_commit(&stream, head, "5")).await.expect("next");
    assert_eq!(old.verify_chains().await.expect("the chain holds"), (6, 6));
    let marked = context.get_stream("OLD_LOG").await.expect("there");
    assert_eq!(marked.cached_info().config.metadata["cvg-format"], "3");
    // The mark is as it should be at the next start.
    assert_eq!(open_log(&config).await.verify_chains().await.expect("the chain holds"), (6, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_see_each_others_records_and_wakes() {
    let cluster = Cluster::start(3, SyncMode::Always);
    let (a, b) = (cluster.log("P").await, open_log(&cluster.config("P")).await);
    let stream = new_stream();
    let mut seen = b.tail_all(Position::START);
    let mut head = None;
    for number in 0..20 {
        let mut next = new_commit(&stream, head, &number.to_string());
        next.wake = if number == 19 { Wake::At(Timestamp(70)) } else { Wake::Now };
        // In turns: each must know what the other wrote.
        let log = if number % 2 == 0 { &a } else { &b };
        head = Some(log.append(next).await.expect("next"));
        let record = seen.next().await.expect("more").expect("readable");
        assert_eq!(Some(record.stream_head()), head);
    }
    assert_eq!(
        b.due_streams(Timestamp(100), 9).await.expect("readable"),
        std::slice::from_ref(&stream)
    );
    assert_eq!(a.next_due_time(Timestamp(5)).await.expect("readable"), Some(Timestamp(70)));
    let payload = PayloadRef { seq: Seq(8), index: 0 };
    assert_eq!(b.read_payload(&stream, payload).await.expect("readable").expect("kept"), "7");
    a.close().await.expect("ends");
    assert!(matches!(a.stream_head(&stream).await, Err(LogError::Closed)));
    assert!(a.append(new_commit(&stream, head, "x")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_payload_is_gone_from_the_files_and_does_not_come_back() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let log = cluster.log("E").await;
    let stream = new_stream();
    let first = new_commit(&stream, None, &"personal ".repeat(50));
    log.append(first.clone()).await.expect("new");
    let reference = PayloadRef { seq: Seq(1), index: 0 };
    let context = beside(&cluster).await;
    let kept = context.get_stream("E_PAYLOAD").await.expect("there");
    let sealed = kept.get_raw_message(1).await.expect("kept").payload;
    let holds = |folder: &std::path::Path| holds(folder, &sealed[10..40]);
    assert!(holds(&cluster.servers[0].store()), "it is in the files before");

    assert!(log.erase_payload(&stream, reference).await.expect("erased"));
    assert!(!holds(&cluster.servers[0].store()), "it is in no file after");
    assert_eq!(log.read_payload(&stream, reference).await.expect("readable"), None);
    assert!(!log.erase_payload(&stream, reference).await.expect("nothing left"));
    log.append(first).await.expect("known");
    assert_eq!(log.read_payload(&stream, reference).await.expect("readable"), None);
    assert_eq!(log.verify_chains().await.expect("the chain holds"), (1, 1));
}

fn holds(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let content = std::fs::read(&path).unwrap_or_default();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_and_the_largest_commit() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let log = cluster.log("F").await;
    let stream = new_stream();
    let mut large = new_commit(&stream, None, "x");
    large.events = vec![new_event("e"); LogLimits::EVENTS];
    let bytes: Vec<u8> = (0..LogLimits::PAYLOAD_BYTES).map(|n| (n * 31 % 251) as u8).collect();
    large.payloads[0].bytes = bytes.clone().into();
    let head = log.append(large).await.expect("within the limits");
    let back = log.read_payload(&stream, PayloadRef { seq: Seq(1), index: 0 }).await;
    assert!(back.expect("readable").expect("kept") == bytes);

    let context = beside(&cluster).await;
    let mut config = context.get_stream("F_LOG").await.expect("there").cached_info().config.clone();
    config.max_bytes = 256 << 10;
    context.update_stream(config.clone()).await.expect("smaller");
    let mut head = Some(head);
    let full = loop {
        match log.append(new_commit(&stream, head, &"x".repeat(1000))).await {
            Ok(next) => head = Some(next),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, AppendError::Full), "{full}");
    assert_eq!(
        log.stream_head(&stream).await.expect("readable"),
        head,
        "nothing acknowledged is lost"
    );
    config.max_bytes = 64 << 20;
    context.update_stream(config).await.expect("larger");
    log.append(new_commit(&stream, head, "y")).await.expect("it goes on by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_reads_the_saved_wakes_and_not_history() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let log = Arc::new(cluster.log("S").await);
    let open = new_stream();
    log.append(new_commit(&open, None, "open")).await.expect("new");
    assert_eq!(log.due_streams(Timestamp(9), 9).await.expect("readable").len(), 1);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let log = Arc::clone(&log);
        writers.spawn(async move {
            let (stream, mut head) = (new_stream(), None);
            for _ in 0..101 {
                let mut next = new_commit(&stream, head, "x");
                next.payloads.clear();
                next.wake = Wake::Done;
                head = Some(log.append(next).await.expect("next"));
            }
        });
    }
    writers.join_all().await;
    let context = beside(&cluster).await;
    let derived = context.get_stream("S_DERIVED").await.expect("there");
    let saved = eventually("the wakes are saved", async || {
        derived.get_last_raw_message_by_subject("s.derived.wakes").await.ok()
    });
    assert!(String::from_utf8_lossy(&saved.await.payload).contains("\"position\":10000"));
    let other = open_log(&cluster.config("S")).await;
    assert_eq!(other.due_streams(Timestamp(9), 9).await.expect("readable"), [open]);
}
