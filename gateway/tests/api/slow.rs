//! Callers who take their time: none of them holds a connection for ever.

use std::time::Duration;

use convergio_gateway::ConnectionLimits;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};

use crate::harness::{Api, TOKEN};

const SHORT: Duration = Duration::from_millis(200);

fn limits() -> ConnectionLimits {
    let (head, silence, body) = (SHORT, SHORT, Duration::from_secs(2));
    ConnectionLimits {
        max_connections: 2,
        head_timeout: head,
        body_idle_timeout: silence,
        body_timeout: body,
        ..ConnectionLimits::default()
    }
}

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.trim_start_matches("http://")).await.expect("it listens")
}

/// What the server says until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut said));
    // A reset is an end too.
    let _ended = read.await.expect("the server ends it");
    String::from_utf8_lossy(&said).into_owned()
}

fn head(length: usize) -> String {
    format!(
        "POST /v1/graphs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn half_a_head_is_not_waited_for() {
    let server = Api::within(limits()).await;
    let mut slow = connect(&server.url).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.expect("written");
    assert!(!rest(&mut slow).await.contains("200 OK"));
}

#[tokio::test]
async fn half_a_body_is_not_waited_for_and_gets_an_error_of_ours() {
    let server = Api::within(limits()).await;
    let mut slow = connect(&server.url).await;
    slow.write_all(head(1000).as_bytes()).await.expect("written");
    slow.write_all(b"name: half").await.expect("written");
    let said = rest(&mut slow).await;
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("request.invalid"), "{said}");
}

#[tokio::test]
async fn a_drip_that_is_never_silent_ends_too() {
    let server = Api::within(limits()).await;
    let mut slow = connect(&server.url).await;
    slow.write_all(head(100_000).as_bytes()).await.expect("written");
    let (mut reading, mut writing) = slow.into_split();
    let drip = tokio::spawn(async move {
        while writing.write_all(b"#").await.is_ok() {
            tokio::time::sleep(SHORT / 4).await;
        }
    });
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), reading.read_to_end(&mut said));
    let _ended = read.await.expect("the server ends it");
    assert!(String::from_utf8_lossy(&said).contains("request.invalid"));
    drip.abort();
}

#[tokio::test]
async fn the_front_doors_say_it_in_their_words() {
    let server = Api::within(limits()).await;
    let mut slow = connect(&server.url).await;
    let head = head(1000).replace("/v1/graphs", "/openai/v1/chat/completions");
    slow.write_all(head.as_bytes()).await.expect("written");
    let said = rest(&mut slow).await;
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("invalid_request_error"), "{said}");
}

#[tokio::test]
async fn slow_callers_do_not_keep_others_out() {
    let server = Api::within(limits()).await;
    // They take every place there is, and say nothing.
    let _idle = [connect(&server.url).await, connect(&server.url).await];
    let mut other = connect(&server.url).await;
    other
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .expect("written");
    assert!(rest(&mut other).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_stops_reading_is_ended() {
    let long = Duration::from_secs(60);
    let limits = ConnectionLimits {
        max_connections: 1,
        write_timeout: SHORT,
        sign_in_timeout: long,
        head_timeout: long,
        ..limits()
    };
    let server = Api::within(limits).await;
    let mut slow = connect(&server.url).await;
    let asked = 500;
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(asked);
    slow.write_all(requests.as_bytes()).await.expect("written");
    // The one place is free again only when the first connection has ended.
    let mut next = connect(&server.url).await;
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    next.write_all(request).await.expect("written");
    let whole = rest(&mut next).await;
    assert!(whole.contains("200 OK"), "{whole}");
    assert!(rest(&mut slow).await.len() < asked * whole.len(), "it was cut off");
}

/// A request for the runs of tenant one; its connection stays open.
fn list_runs() -> String {
    format!("GET /v1/runs HTTP/1.1\r\nhost: localhost\r\nauthorization: bearer {TOKEN}\r\n\r\n")
}

#[tokio::test]
async fn stuck_workers_stop_neither_health_checks_nor_sign_in() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let server =
        Api::with_work_runtime(runtime.handle().clone(), ConnectionLimits::default()).await;
    let mut known = connect(&server.url).await;
    let mut answer = [0; 12];
    known.write_all(list_runs().as_bytes()).await.expect("written");
    known.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    let (release, stuck) = std::sync::mpsc::channel::<()>();
    // The only worker: nothing else runs there until `release` goes.
    let worker = runtime.spawn(async move { stuck.recv() });
    let mut late = connect(&server.url).await;
    late.write_all(list_runs().as_bytes()).await.expect("written");
    for (path, status) in [("/healthz", 200), ("/v1/runs", 401), ("/openapi.json", 200)] {
        let request = server.request(Method::GET, path, None);
        assert_eq!(request.send().await.expect("an answer").status(), status, "{path}");
    }
    drop(release);
    let _stuck_no_more = worker.await.expect("no panic");
    late.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_connection_that_moved_to_the_workers_keeps_its_limits() {
    let limits = ConnectionLimits { max_connections: 1, write_timeout: SHORT, ..limits() };
    let server = Api::with_work_runtime(Handle::current(), limits).await;
    let mut slow = connect(&server.url).await;
    let requests = list_runs().repeat(1_000);
    // The server stops reading when nobody reads its answers, and then ends the connection.
    while slow.write_all(requests.as_bytes()).await.is_ok() {}
    let mut idle = connect(&server.url).await;
    idle.write_all(list_runs().as_bytes()).await.expect("written");
    // No second request comes: the connection ends after `head_timeout`.
    let said = rest(&mut idle).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[tokio::test]
async fn who_does_not_sign_in_makes_room_and_who_did_stays() {
    let limits =
        ConnectionLimits { max_connections: 8, head_timeout: Duration::from_secs(60), ..limits() };
    let server = Api::within(limits).await;
    let mut known = connect(&server.url).await;
    known.write_all(list_runs().as_bytes()).await.expect("written");
    let mut answer = [0; 12];
    known.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    // Two in a quarter of eight connections, one of them from one address.
    let mut first = connect(&server.url).await;
    first.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("written");
    let second = connect(&server.url).await;
    assert_eq!(rest(&mut first).await, "", "the first made room for the second");
    drop(second);
    known.write_all(list_runs().as_bytes()).await.expect("it is open still");
}
