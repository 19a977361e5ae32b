//! A server of the real binary, and a client to speak to it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use convergio_test_support::kept_output;
use serde_json::Value;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_convergio");

/// A running server; killed when it goes.
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
    pub(crate) url: String,
    token: String,
    http: reqwest::Client,
}

impl Server {
    /// Starts a server on a folder and waits until it says that it is ready.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_as(data, &[])
    }

    /// The same, with further options.
    pub(crate) fn start_as(data: &Path, options: &[&str]) -> Self {
        Self::start_by(Command::new(BINARY), data, options)
    }

    /// The same in an environment, with a place for what it says.
    pub(crate) fn start_in(
        data: &Path,
        options: &[&str],
        environment: &[(&str, String)],
        said: Stdio,
    ) -> Self {
        let mut command = serve(Command::new(BINARY), data, options);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::spawn(data, command, said)
    }

    /// The same with so much address space, in KiB.
    pub(crate) fn start_within(data: &Path, options: &[&str], kib: u64) -> Self {
        Self::start_by(shell_with_limit(&format!("-v {kib}")), data, options)
    }

    /// Starts a server that may open only so many files, with a model server.
    pub(crate) fn start_with_open_files(data: &Path, open_files: usize, model: &str) -> Self {
        let mut command = serve(shell_with_limit(&format!("-n {open_files}")), data, &[]);
        command.env("CONVERGIO_MODEL_URL", model);
        Self::spawn(data, command, kept_output::error_output())
    }

    /// The same for a server that is expected to refuse.
    pub(crate) fn try_start_with_open_files(data: &Path, open_files: usize) -> Output {
        let shell = shell_with_limit(&format!("-n {open_files}"));
        serve(shell, data, &[]).output().expect("the binary starts")
    }

    fn start_by(command: Command, data: &Path, options: &[&str]) -> Self {
        let mut command = serve(command, data, options);
        command.env("CONVERGIO_MODEL_URL", model_url().unwrap_or_default());
        Self::spawn(data, command, kept_output::error_output())
    }

    fn spawn(data: &Path, mut command: Command, said: Stdio) -> Self {
        let mut child = command
            .envs(kept_output::CANARY_VARIABLES)
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("the server speaks");
        let ready: Value = serde_json::from_str(&line).expect("one line of JSON");
        let url = ready["url"].as_str().expect("a URL").to_owned();
        let token = std::fs::read_to_string(data.join("token")).expect("a token");
        let http = convergio_executor::provider::http_client().expect("a client");
        let (token, data) = (token.trim().to_owned(), data.to_owned());
        Self { child, data, url, token, http }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) {
        self.signal("-TERM");
        self.child.wait().expect("it ends");
    }

    /// Sends a request; gives status and answer.
    pub(crate) async fn post(&self, path: &str, body: String) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token);
        let is_json = body.starts_with('{');
        let media_type = if is_json { "application/json" } else { "application/yaml" };
        let request = request.header("content-type", media_type);
        let answer = request.body(body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// As a power switch would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Stops or continues it, as a machine that sleeps would.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("runs");
        assert!(sent.success());
    }

    /// Who can ask it, also when it is gone.
    pub(crate) fn client(&self) -> Client {
        let (url, token) = (self.url.clone(), self.token.clone());
        Client { url, token, http: self.http.clone() }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a body to a path; gives status and answer.
    pub(crate) async fn send(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token);
        let request = request.header("content-type", "application/json").body(body.into());
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Memory in use, in MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("kB") / 1024
    }

    /// A request of the owner.
    pub(crate) fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Waits until what it answers is up to date with the log.
    pub(crate) async fn wait_until_ready(&self) {
        while !self.request("/readyz").send().await.expect("an answer").status().is_success() {}
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.request(path).send().await.expect("an answer").json().await.expect("JSON")
    }

    pub(crate) async fn get_text(&self, path: &str) -> String {
        self.request(path).send().await.expect("an answer").text().await.expect("text")
    }

    /// Registers an example; gives its id.
    pub(crate) async fn register(&self, example: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
        let manifest = std::fs::read_to_string(path).expect("the example is there");
        self.register_text(&manifest).await
    }

    /// Registers a manifest; gives its id.
    pub(crate) async fn register_text(&self, manifest: &str) -> String {
        let request = self.http.post(format!("{}/v1/graphs", self.url)).bearer_auth(&self.token);
        let accepted: Value = request
            .body(manifest.to_owned())
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        accepted["id"].as_str().unwrap_or_else(|| panic!("{accepted}")).to_owned()
    }

    /// Asks for a run; gives status and answer.
    pub(crate) async fn execute(
        &self,
        graph: &str,
        inputs: &Value,
        key: Option<&str>,
    ) -> (u16, Value) {
        let url = format!("{}/v1/graphs/{graph}/execute", self.url);
        let body = serde_json::json!({ "inputs": inputs });
        let mut request = self.http.post(url).bearer_auth(&self.token).json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// All events of a run.
    pub(crate) async fn events(&self, run: &str) -> Vec<Value> {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let page = self.get(&format!("/v1/runs/{run}/events?limit=1000&after={after}")).await;
            let items = page["items"].as_array().expect("a page").clone();
            after = items.last().map_or(after, |event| event["seq"].as_u64().expect("a number"));
            events.extend(items);
            if page["next_cursor"].is_null() {
                return events;
            }
        }
    }

    /// Waits until a run has at least this many events, or has ended; gives how many.
    pub(crate) async fn wait_for_events(&self, run: &str, count: u64) -> (u64, bool) {
        loop {
            let view = self.get(&format!("/v1/runs/{run}")).await;
            let seq = view["seq"].as_u64().unwrap_or(0);
            let ended = view["status"] != "running" && view["status"].is_string();
            if seq >= count || ended {
                return (seq, ended);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until a run asks somebody; gives the question's id.
    pub(crate) async fn wait_for_question(&self, run: &str) -> String {
        loop {
            let open = self.get(&format!("/v1/approvals?state=open&run={run}")).await;
            if let Some(id) = open["items"][0]["id"].as_str() {
                return id.to_owned();
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits for the end of a run; gives its view.
    pub(crate) async fn ended(&self, run: &str) -> Value {
        self.wait_for_events(run, u64::MAX).await;
        self.get(&format!("/v1/runs/{run}")).await
    }
}

/// Speaks to a server that may be gone.
#[derive(Clone)]
pub(crate) struct Client {
    url: String,
    token: String,
    http: reqwest::Client,
}

impl Client {
    /// Asks for a run; `None` when nobody answers.
    pub(crate) async fn execute(
        &self,
        graph: &str,
        inputs: &Value,
        key: &str,
    ) -> Option<(u16, Value)> {
        let url = format!("{}/v1/graphs/{graph}/execute", self.url);
        let body = serde_json::json!({ "inputs": inputs });
        let request = self.http.post(url).bearer_auth(&self.token).json(&body);
        let answer = request.header("idempotency-key", key).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
        kept_output::keep_copy(&self.data);
    }
}

/// The binary under a shell that sets a limit.
fn shell_with_limit(limit: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh", BINARY]);
    shell
}

fn serve(mut command: Command, data: &Path, options: &[&str]) -> Command {
    command.args(["serve", "--json", "--data"]).arg(data).args(options);
    if !options.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
}

/// The real model that `make test` serves; tests that need one are skipped without it.
pub(crate) fn model_url() -> Option<String> {
    std::env::var("CONVERGIO_TEST_MODEL_URL").ok().filter(|url| !url.is_empty())
}

/// Runs a command of the binary to its end.
pub(crate) fn convergio(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("--data").arg(data).args(arguments).output().expect("the binary runs")
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
