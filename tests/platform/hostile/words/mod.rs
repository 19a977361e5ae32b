//! What people write and models answer stands in sealed payloads and nowhere else, however a run
//! fails: not in decoded records, read models, exports without payloads, log lines or traces.

mod cases;
mod model;

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Server, convergio, text};
use crate::telemetry::start_collector;
use cases::{CALLEES, CASES, Case, inputs};

/// Stands in all that is planted.
const MARK: &str = "quixotry";
/// Stands in a name of a graph, and so in every place that is searched.
const CONTROL: &str = "marigold";

/// What is planted in one run.
fn words(number: usize) -> String {
    format!("{MARK}-{number}-zephyr lives in Rome")
}

fn manifest(case: &Case) -> String {
    let (budget, output) = match case.name {
        "b_tokens" => (100, ""),
        "o_output" => (100_000, "output: '{{ nodes.a.output.deeper.still }}'\n"),
        _ => (100_000, ""),
    };
    let (name, nodes, inputs) = (case.name, case.nodes, "inputs: {type: object}");
    format!("name: {name}\n{inputs}\nbudget: {{tokens: {budget}}}\n{output}nodes: [{nodes}]\n")
}

async fn register(server: &Server, manifest: &str) -> String {
    let (status, accepted) = server.post("/v1/graphs", manifest.to_owned()).await;
    assert!(status < 300, "{manifest}{accepted}");
    accepted["id"].as_str().expect("an id").to_owned()
}

/// Begins a run of a manifest; gives its id.
async fn begin(server: &Server, manifest: &str, planted: &str) -> String {
    let graph = register(server, manifest).await;
    let (status, accepted) = server.execute(&graph, &inputs(planted), None).await;
    assert!(status < 300, "{manifest}{accepted}");
    accepted["run_id"].as_str().expect("a run").to_owned()
}

/// Runs a case to its end; gives the run, and what is wrong with its end.
async fn ran(server: &Server, case: &Case, planted: &str) -> (String, Option<String>) {
    let manifest = manifest(case);
    let run = begin(server, &manifest, planted).await;
    let view = server.ended(&run).await;
    let ended = view["error"]["code"].as_str().or_else(|| view["status"].as_str());
    let message = view["error"]["message"].as_str().unwrap_or_default();
    let detail = view["error"]["detail"].as_str().unwrap_or_default();
    let first_word = planted.split(' ').next().expect("a word");
    let is_right = ended == Some(case.ends)
        && !message.contains(MARK)
        && detail.contains(first_word) == case.is_told;
    let wrong = || format!("{}: {ended:?}, {}", case.name, view["error"]);
    (run, (!is_right).then(wrong))
}

async fn tell(server: &Server, path: String, body: Value) -> Value {
    let (status, answer) = server.post(&path, body.to_string()).await;
    assert!(status < 300, "{path}: {status} {answer}");
    answer
}

/// A question of a run, once it is asked.
pub(super) async fn asked(server: &Server, run: &str) -> Value {
    loop {
        let page = server.get(&format!("/v1/approvals?run={run}")).await;
        if let Some(asked) = page["items"].as_array().and_then(|items| items.first()) {
            return asked.clone();
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until a step of a run has this status.
async fn wait_for_step(server: &Server, run: &str, status: &str) {
    loop {
        let view = server.get(&format!("/v1/runs/{run}")).await;
        let steps = view["steps"].as_array().cloned().unwrap_or_default();
        if steps.iter().any(|step| step["status"] == status) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn answer(server: &Server, planted: &str, decision: &str) -> String {
    let ask = "name: asks\ninputs: {type: object}\noutput: '{{ nodes.a.output }}'\nnodes: \
        [{id: a, approval: {role: owner, show: '{{ inputs.s }}', ttl: 1h}}]\n";
    let run = begin(server, ask, planted).await;
    let asked = asked(server, &run).await;
    let path = format!("/v1/approvals/{}", asked["id"].as_str().expect("an id"));
    let body = json!({"decision": decision, "content_hash": asked["content_hash"],
        "reason": format!("because {planted}")});
    let answered = tell(server, path, body).await;
    assert_eq!(answered["reason"], format!("because {planted}"));
    let view = server.ended(&run).await;
    let told = match decision {
        "grant" => view["output"]["reason"].clone(),
        _ => view["error"]["detail"].clone(),
    };
    assert!(told.as_str().is_some_and(|told| told.contains(planted)), "{view}");
    run
}

/// People's words, in every request that takes them.
async fn steered(server: &Server, first: usize) -> Vec<String> {
    let planted = |at: usize| words(first + at);
    let waits = "name: waits\ninputs: {type: object}\nnodes: [{id: a, signal: go}, \
        {id: b, on_error: ask, tool: json.parse, with: {text: '{{ nodes.a.output }}'}}]\n";
    let run = begin(server, waits, &planted(0)).await;
    let path = |verb: &str| format!("/v1/runs/{run}/{verb}");
    let reason = |at: usize| json!({"reason": planted(at)});
    tell(server, path("pause"), reason(1)).await;
    tell(server, path("resume"), json!({})).await;
    let amend = json!({"tokens": 200_000, "reason": planted(2)});
    tell(server, path("amend"), amend).await;
    let graph = server.get(&format!("/v1/runs/{run}")).await["graph_id"].clone();
    let mark = format!("/v1/graphs/{}/checkpoint", graph.as_str().expect("an id"));
    tell(server, mark, json!({"run_id": run, "label": planted(3)})).await;
    tell(server, path("signal"), json!({"name": "go", "payload": planted(4)})).await;
    wait_for_step(server, &run, "undecided").await;
    let resolve = json!({"step": "b", "as": "failed", "reason": planted(5)});
    tell(server, path("resolve"), resolve).await;
    let view = server.ended(&run).await;
    assert_eq!(view["error"]["code"], "tool.invalid", "{view}");
    let other = begin(server, waits, &planted(6)).await;
    tell(server, format!("/v1/runs/{other}/cancel"), reason(7)).await;
    let granted = answer(server, &planted(8), "grant").await;
    let denied = answer(server, &planted(9), "deny").await;
    tell(server, "/v1/memories".into(), json!({"subject": "pupil", "text": planted(10)})).await;
    let chat = json!({"model": "auto", "messages": [
        {"role": "user", "content": format!("do:bad_request {}", planted(11))}]});
    let (status, refused) = server.post("/openai/v1/chat/completions", chat.to_string()).await;
    assert!(
        status >= 400
            && refused.to_string().contains(planted(11).split(' ').next().expect("a word")),
        "{refused}"
    );
    vec![run, other, granted, denied]
}

/// How many words [`steered`] plants.
const STEERED: usize = 12;

fn has(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|found| found.eq_ignore_ascii_case(what.as_bytes()))
}

/// A place has the control word and nothing that was planted.
fn check(place: &str, bytes: &[u8]) {
    let around = || {
        let found = bytes.windows(MARK.len()).position(|found| found == MARK.as_bytes());
        let at = found.unwrap_or_default();
        text(&bytes[at.saturating_sub(300)..(at + 100).min(bytes.len())])
    };
    assert!(!has(bytes, MARK), "{place}: {}", around());
    assert!(has(bytes, CONTROL), "{place}: {} bytes were searched", bytes.len());
}

/// Every file of a folder, one after the other.
fn files(folder: &Path, named: &str) -> Vec<u8> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let is_named =
        |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(named);
    let files = entries.filter(|entry| entry.path().is_file() && is_named(entry));
    files.flat_map(|entry| std::fs::read(entry.path()).expect("readable")).collect()
}

fn printed(data: &Path, options: &[&str]) -> Vec<u8> {
    let printed = convergio(data, &[&["log", "print"], options].concat());
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    printed.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_write_stands_in_payloads_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let said = folder.path().join("server.err");
    let (endpoint, traces) = start_collector();
    let environment = [
        ("CONVERGIO_MODEL_URL", model::start().await),
        ("CONVERGIO_LOG", "trace".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
    ];
    let file = std::fs::File::create(&said).expect("writable");
    let server = Server::start_in(&data, &[], &environment, file.into());
    for callee in CALLEES {
        register(&server, callee).await;
    }
    let (mut runs, mut wrong) = (steered(&server, CASES.len()).await, Vec::new());
    for (number, case) in CASES.iter().enumerate() {
        let (run, mistake) = ran(&server, case, &words(number)).await;
        runs.push(run);
        wrong.extend(mistake);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut exports = Vec::new();
    for run in &runs {
        let export = server.get_text(&format!("/v1/runs/{run}/export?payloads=false")).await;
        exports.extend_from_slice(export.as_bytes());
    }
    let named = server.request("/v1/graphs").header("x-request-id", CONTROL);
    named.send().await.expect("an answer");
    check("read models while the server runs", &files(&data, "read.db"));
    server.end();

    check("records", &printed(&data, &[]));
    check("read models", &files(&data, "read.db"));
    check("exports without payloads", &exports);
    check("log lines", &std::fs::read(&said).expect("readable"));
    check("traces", &traces.try_iter().flatten().collect::<Vec<u8>>());
    assert!(!has(&files(&data, ""), MARK), "some file has what was planted");
    // The search finds it where it is.
    let opened = text(&printed(&data, &["--payloads"]));
    for number in 0..CASES.len() + STEERED {
        assert!(opened.contains(&words(number)), "{} was not planted", words(number));
    }
}
