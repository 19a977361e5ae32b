//! A server of the real binary in front of a model server, and a client to speak to it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use convergio_test_support::kept_output::{self, CANARY};
use reqwest::Response;
use serde_json::Value;
use tempfile::TempDir;

/// Longest time that a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; it ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) data: TempDir,
    pub(crate) url: String,
    pub(crate) token: String,
    http: reqwest::Client,
}

impl Server {
    /// In front of this model server, and of a cloud that is led to it.
    pub(crate) fn start(model_url: &str) -> Self {
        Self::with(model_url, &[])
    }

    pub(crate) fn with(model_url: &str, variables: &[(&str, &str)]) -> Self {
        Self::on(kept_output::create_folder(), model_url, variables)
    }

    /// The same, on a folder that has something already.
    pub(crate) fn on(data: TempDir, model_url: &str, variables: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(data.path().join("server.err")).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_convergio"))
            .args(["serve", "--listen", "127.0.0.1:0", "--json", "--log-level", "trace", "--data"])
            .arg(data.path())
            .env("CONVERGIO_MODEL_URL", model_url)
            .env("OPENAI_API_KEY", CANARY)
            .env("OPENAI_BASE_URL", model_url)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("the server speaks");
        let ready: Value = serde_json::from_str(&line).expect("one line of JSON");
        let url = ready["url"].as_str().expect("a URL").to_owned();
        let token = std::fs::read_to_string(data.path().join("token")).expect("a token");
        let http = convergio_executor::provider::http_client().expect("a client");
        Self { child, data, url, token: token.trim().to_owned(), http }
    }

    /// Ends orderly, so that all that is written is on the disk.
    pub(crate) fn stop(mut self) -> TempDir {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(status.success());
        self.child.wait().expect("it ends");
        std::mem::replace(&mut self.data, tempfile::tempdir().expect("a folder"))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.json(body).send().await.expect("an answer")
    }

    /// Registers a manifest.
    pub(crate) async fn register(&self, manifest: &str) -> Value {
        let request = self.http.post(format!("{}/v1/graphs", self.url)).bearer_auth(&self.token);
        let answer = request.body(manifest.to_owned()).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }

    pub(crate) async fn post_as(&self, path: &str, body: &Value, header: (&str, &str)) -> Response {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.header(header.0, header.1).json(body).send().await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// All events of a run, once one of this type is among them.
    pub(crate) async fn events_with(&self, run: &str, kind: &str) -> Vec<Value> {
        let path = format!("/v1/runs/{run}/events?limit=1000");
        let begun = Instant::now();
        loop {
            let page = self.get(&path).await;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            if items.iter().any(|event| event["type"] == kind) {
                return items;
            }
            assert!(begun.elapsed() < PATIENCE, "no {kind} in {items:?}");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::task::yield_now().await;
    }
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
