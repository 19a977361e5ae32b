//! `convergio models` against a hub of ours: fetched with progress, resumed, checked, kept once.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use convergio_test_support::kept_output::{self, CANARY};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A hub, and the store that it leads to.
struct Hub {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    file: Bytes,
    digest: String,
    /// Ranges that were asked for.
    ranges: Mutex<Vec<String>>,
    /// Keys that the store was shown.
    leaked: AtomicBool,
    cuts: AtomicBool,
}

impl Hub {
    async fn start(digest: Option<&str>, cuts: bool) -> Self {
        let file: Bytes = (0..300_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>().into();
        let real: String = Sha256::digest(&file).iter().map(|b| format!("{b:02x}")).collect();
        let shared = Arc::new(Shared {
            digest: digest.map_or(real, str::to_owned),
            file,
            ranges: Mutex::default(),
            leaked: AtomicBool::new(false),
            cuts: AtomicBool::new(cuts),
        });
        let app = Router::new()
            .route("/acme/{repository}/resolve/{revision}/{file}", any(resolve))
            .route("/store/{digest}", any(store))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared }
    }

    fn ranges(&self) -> Vec<String> {
        self.shared.ranges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn run(&self, data: &std::path::Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convergio"));
        command.arg("--data").arg(data).args(["--json", "models"]).args(arguments);
        // No server of a person's machine is asked.
        command.env("CONVERGIO_MODEL_URL", "http://127.0.0.1:9/v1");
        command.env("HF_ENDPOINT", &self.url).env("HF_TOKEN", CANARY);
        tokio::task::block_in_place(|| command.output().expect("the binary runs"))
    }
}

async fn resolve(
    State(shared): State<Arc<Shared>>,
    Path((_, _, file)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if headers.get("authorization").is_none() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if file != "tiny.gguf" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let size = shared.file.len().to_string();
    let etag = format!("\"{}\"", shared.digest);
    let told = [("x-linked-etag", etag), ("x-linked-size", size)];
    // Another host as far as a key is concerned: the same server under its other name.
    let host = headers["host"].to_str().expect("text").replace("127.0.0.1", "localhost");
    let place = format!("http://{host}/store/x");
    (StatusCode::FOUND, told, [("location", place)]).into_response()
}

async fn store(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if headers.contains_key("authorization") {
        shared.leaked.store(true, Ordering::SeqCst);
    }
    let range = headers.get("range").and_then(|range| range.to_str().ok()).unwrap_or("all");
    shared.ranges.lock().unwrap_or_else(PoisonError::into_inner).push(range.to_owned());
    let from = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let from: usize = from.map_or(0, |from| from.parse().expect("a number"));
    let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let rest = shared.file.slice(from..);
    if !shared.cuts.swap(false, Ordering::SeqCst) {
        return (status, rest).into_response();
    }
    let half = rest.slice(..rest.len() / 2);
    let pieces = stream::iter([Ok(half)]).chain(stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut"))
    }));
    (status, Body::from_stream(pieces)).into_response()
}

fn lines(output: &Output) -> Vec<Value> {
    let said = String::from_utf8_lossy(&output.stdout);
    said.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

fn whole(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

const PULL: [&str; 2] = ["pull", "hf:acme/tiny-GGUF/tiny.gguf"];

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_cut_goes_on_where_it_stopped_and_is_kept_once() {
    let (hub, data) = (Hub::start(None, true).await, kept_output::create_folder());
    let pulled = hub.run(data.path(), &PULL);
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    let told = lines(&pulled);
    assert!(told.iter().any(|line| line["status"] == "fetching" && line["total"] == 1_200_000));
    let last = told.last().expect("an end");
    assert_eq!(
        (&last["model"], &last["sha256"]),
        (&"tiny".into(), &hub.shared.digest.clone().into())
    );
    let ranges = hub.ranges();
    assert_eq!((ranges.len(), ranges[0].as_str()), (2, "all"));
    let from: u64 = ranges[1]["bytes=".len()..ranges[1].len() - 1].parse().expect("a number");
    assert!(from > 0 && from <= 600_000, "{ranges:?}");
    assert!(!hub.shared.leaked.load(Ordering::SeqCst), "the key went to the store");
    // The same file under another name: nothing is fetched again.
    let again = hub.run(data.path(), &[PULL[0], PULL[1], "--name", "other"]);
    assert!(again.status.success() && hub.ranges().len() == 2);
    let listed = hub.run(data.path(), &["list"]);
    assert_eq!(whole(&listed)["kept"].as_array().expect("a list").len(), 2);
    let shown = whole(&hub.run(data.path(), &["show", "other"]));
    assert_eq!(shown["source"], "hf:acme/tiny-GGUF/tiny.gguf@main");
    let file = shown["path"].as_str().expect("a path").to_owned();
    assert_eq!(std::fs::read(&file).expect("it is there"), hub.shared.file);
    for name in ["tiny", "other"] {
        assert!(hub.run(data.path(), &["rm", name]).status.success());
    }
    assert!(!std::path::Path::new(&file).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_the_one_that_was_told_is_not_kept() {
    let (hub, data) =
        (Hub::start(Some(&"0".repeat(64)), false).await, kept_output::create_folder());
    let pulled = hub.run(data.path(), &PULL);
    assert_eq!(pulled.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&pulled.stderr).contains("nothing was kept"));
    let blobs = std::fs::read_dir(data.path().join("models/blobs")).expect("a folder");
    assert_eq!(blobs.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_in_one_line() {
    let (hub, data) = (Hub::start(None, false).await, kept_output::create_folder());
    let cases = [
        ("hf:acme/tiny-GGUF/none.gguf", "has no none.gguf"),
        ("hf:acme/tiny", "right is hf:"),
        ("file:/nowhere/x.gguf", "/nowhere/x.gguf"),
        ("package:x", "is no source"),
    ];
    for (source, words) in cases {
        let pulled = hub.run(data.path(), &["pull", source]);
        let said = String::from_utf8_lossy(&pulled.stderr).into_owned();
        assert_eq!(pulled.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.trim().lines().count() == 1, "{said}");
        assert!(!said.contains(CANARY));
    }
}
