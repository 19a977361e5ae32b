//! Traces reach a collector, name the run and its steps, and hold nothing of what people wrote.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use convergio_test_support::kept_output;

use crate::harness::{BINARY, repository, text};

/// A collector of traces; gives its URL and what it receives.
pub(crate) fn start_collector() -> (String, Receiver<Vec<u8>>) {
    let sink = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", sink.local_addr().expect("bound"));
    let (send, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in sink.incoming().flatten() {
            let _waiting = send.send(take_request(stream));
        }
    });
    (endpoint, received)
}

/// The body of one HTTP request; answers 200.
fn take_request(mut stream: TcpStream) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 65_536]);
    let find = |bytes: &[u8]| bytes.windows(4).position(|end| end == b"\r\n\r\n");
    loop {
        let count = stream.read(&mut buffer).expect("readable");
        bytes.extend_from_slice(&buffer[..count]);
        let Some(head) = find(&bytes) else { continue };
        let headers = text(&bytes[..head]).to_lowercase();
        let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|n| n.trim().parse().ok()).expect("a length");
        if bytes.len() >= head + 4 + length || count == 0 {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).expect("writable");
            return bytes.split_off(head + 4);
        }
    }
}

#[test]
fn steps_and_requests_are_traced_without_their_contents() {
    let (endpoint, received) = start_collector();
    let folder = tempfile::tempdir().expect("a folder");
    let ran = Command::new(BINARY)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .envs(kept_output::CANARY_VARIABLES)
        .args(["--json", "--data"])
        .arg(folder.path())
        .args(["graph", "run"])
        .arg(repository("examples/small.yaml"))
        .args(["--input", "text=canary-of-the-pupil"])
        .output()
        .expect("the binary runs");
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let shown = text(&ran.stdout);
    let run = shown.split("run/").nth(1).expect("a run")[..36].to_owned();
    // The process flushes before it ends; its last request has been answered.
    let mut spans = received.recv_timeout(Duration::from_secs(30)).expect("spans arrive");
    spans.extend(received.try_iter().flatten());
    let has = |what: &str| spans.windows(what.len()).any(|bytes| bytes == what.as_bytes());
    for expected in ["execute_tool text.trim", "POST /v1/graphs/{id}/execute", &run] {
        assert!(has(expected), "no {expected} in {} bytes", spans.len());
    }
    assert!(!has("canary-of-the-pupil"), "contents do not belong into traces");
    assert!(!has(kept_output::CANARY), "nor do keys");
}
