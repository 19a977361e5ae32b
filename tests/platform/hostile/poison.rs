//! Poison: generated schemas, conditions, templates, manifests and JSON of every depth and width
//! within the size limits. The server lives, answers about its health all along, and other runs
//! finish; after it was killed in the middle nothing loops.
//!
//! `CONVERGIO_POISON` says how many inputs there are, as 200; then the times of health are held to
//! their promise too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::evaluation::ADDRESS_SPACE_KIB;
use crate::harness::Server;

/// Inputs when nobody says how many.
const SHORT: usize = 24;
/// Inputs on their way at once.
const AT_ONCE: usize = 4;
/// How often health is asked for.
const LOOK: Duration = Duration::from_millis(20);
/// What 99 of 100 answers about health keep to.
const HEALTH_LIMIT: Duration = Duration::from_millis(100);

fn count() -> Option<usize> {
    std::env::var("CONVERGIO_POISON").ok().map(|count| count.parse().expect("a number"))
}

/// One poison: a manifest, and the inputs of a run of it as JSON.
struct Poison {
    manifest: String,
    inputs: String,
}

fn graph(inputs: &Value, node: Value) -> String {
    json!({"name": "poison", "inputs": inputs, "nodes": [node]}).to_string()
}

fn trim(text: &str) -> Value {
    json!({"id": "n", "tool": "text.trim", "with": {"text": text}})
}

fn any() -> Value {
    json!({"type": "object"})
}

/// The poison of a number: its kind by the remainder, its size by the quotient.
fn poison(number: usize) -> Poison {
    let (kind, size) = (number % 5, number / 5 + 1);
    match kind {
        0 => schema(size),
        1 => condition(size),
        2 => template(size),
        3 => manifest(size),
        _ => wide_json(size),
    }
}

fn schema(size: usize) -> Poison {
    let nested = |keyword: &str, depth: usize| {
        (0..depth).fold(json!({"type": "string"}), |inner, _| json!({keyword: [inner, inner]}))
    };
    let text = "a".repeat(size * 997 % 5000 + 40) + "!";
    let (schema, value) = match size % 6 {
        0 => (nested("anyOf", 11), json!(7)),
        1 => (json!({"pattern": "^(a|aa)+$"}), json!(text)),
        2 => (json!({"pattern": "(?=(a+)+b)^(a+)+$"}), json!(text)),
        3 => (
            json!({"type": "array", "uniqueItems": true}),
            (0..size * 20_000).map(|n| json!({"n": n})).collect(),
        ),
        4 => (
            json!({"anyOf": [{"items": {"$ref": "#/properties/v"}},
            {"items": {"$ref": "#/properties/v"}}, {"type": "string"}]}),
            nest(json!(7), 60),
        ),
        _ => (json!({"pattern": "(\\w{1,200}){1,20}$"}), json!(text)),
    };
    let inputs = json!({"type": "object", "properties": {"v": schema}});
    let value = json!({"v": value}).to_string();
    Poison { manifest: graph(&inputs, trim("x")), inputs: value }
}

/// A value within so many lists.
fn nest(value: Value, depth: usize) -> Value {
    (0..depth).fold(value, |inner, _| json!([inner]))
}

fn condition(size: usize) -> Poison {
    let condition = match size % 5 {
        0 => "inputs.l.map(x, inputs.t + inputs.t).size() > 0",
        1 => "inputs.l.all(x, !inputs.t.contains('zzz'))",
        2 => "inputs.l.filter(x, inputs.t.matches('(x+x+)+y')).size() > 0",
        3 => "inputs.l.map(x, [inputs.l, inputs.l]).map(y, y + y).size() > 0",
        _ => "(inputs.t + inputs.t + inputs.t).matches(inputs.t)",
    };
    let node = json!({"id": "b", "branch": {"if": condition, "then": "y", "else": "n"}});
    let nodes = json!([node, {"id": "y", "sleep": "1ms"}, {"id": "n", "sleep": "1ms"}]);
    let manifest = json!({"name": "poison", "nodes": nodes}).to_string();
    let inputs = json!({"t": "x".repeat(size * 40_000), "l": vec![1; size * 10_000]});
    Poison { manifest, inputs: inputs.to_string() }
}

fn template(size: usize) -> Poison {
    let text = match size % 6 {
        0 => "{% for i in range(100000) %}{{ inputs.l | sort | first }}{% endfor %}",
        1 => "{{ inputs.t | replace('x', inputs.t) | length }}",
        2 => "{% for a in inputs.l %}{% for b in inputs.l %}{% endfor %}{% endfor %}",
        3 => "{{ inputs.l | map(attribute='x', default=inputs.t) | join(inputs.t) | length }}",
        4 => {
            "{{ [inputs.l, inputs.l, inputs.l, inputs.l] | map('sort') | list | tojson | length }}"
        }
        _ => "{% for i in inputs.l %}{{ inputs.t | upper | list | unique | join }}{% endfor %}",
    };
    let inputs = json!({"t": "x".repeat(size * 30_000), "l": vec![1; size * 5_000]});
    let many = json!({"id": "n", "tool": "json.get", "with":
        {"value": vec!["{{ inputs.l }}"; 2_000], "path": "a"}});
    let node = if size.is_multiple_of(7) { many } else { trim(text) };
    Poison { manifest: graph(&any(), node), inputs: inputs.to_string() }
}

fn manifest(size: usize) -> Poison {
    let text = match size % 5 {
        0 => {
            let node = |n: usize| json!({"id": format!("n{n}"), "tool": "nope", "needs": ["x"]});
            json!({"name": "p", "nodes": (0..8_000).map(node).collect::<Vec<_>>()}).to_string()
        }
        1 => format!("name: p\nnodes: {}{}", "[".repeat(size * 9_000), "]".repeat(size * 9_000)),
        2 => {
            let pattern = json!({"pattern": "(\\w{1,99}){1,99}"});
            graph(&json!({"allOf": vec![pattern; size * 20]}), trim("x"))
        }
        3 => {
            let ids: Vec<String> = (0..3_000).map(|n| format!("n{n}")).collect();
            let node = |n: usize| {
                let needs = &ids[n.saturating_sub(20)..n];
                json!({"id": ids[n], "sleep": "1ms", "needs": needs})
            };
            json!({"name": "p", "nodes": (0..3_000).map(node).collect::<Vec<_>>()}).to_string()
        }
        _ => graph(&any(), trim(&"{{ inputs.t ~ inputs.t }}".repeat(size * 100))),
    };
    Poison { manifest: text, inputs: "{}".into() }
}

/// JSON of twenty megabytes and less: deep, wide, of maps, of texts.
fn wide_json(size: usize) -> Poison {
    let most = 19 << 20;
    let wide = |item: &str| {
        let count = most / (item.len() + 1) / (1 + size % 3);
        format!(r#"{{"l":[{}{item}]}}"#, format!("{item},").repeat(count))
    };
    let inputs = match size % 6 {
        0 => wide("1"),
        1 => wide(r#"{"":1}"#),
        2 => wide("[]"),
        3 => format!(r#"{{"l":{}{}}}"#, "[".repeat(120), "]".repeat(120)),
        4 => format!(r#"{{"l":"{}"}}"#, "x".repeat(most)),
        _ => wide(r#""abc""#),
    };
    Poison { manifest: graph(&any(), trim("{{ inputs.l | length }}")), inputs }
}

/// Sends one poison; gives its run, if there is one.
async fn administer(server: &Server, poison: Poison) -> Option<String> {
    let (_, graph) = server.send("/v1/graphs", poison.manifest).await;
    let path = format!("/v1/graphs/{}/execute", graph["id"].as_str()?);
    let (_, run) = server.send(&path, format!(r#"{{"inputs":{}}}"#, poison.inputs)).await;
    run["run_id"].as_str().map(str::to_owned)
}

/// Asks for health until it is over; gives the time of each answer.
fn watch_health(server: &Arc<Server>, is_over: &Arc<AtomicBool>) -> JoinHandle<Vec<Duration>> {
    let (server, is_over) = (Arc::clone(server), Arc::clone(is_over));
    tokio::spawn(async move {
        let mut times = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            assert_eq!(server.get("/healthz").await["status"], "ok");
            times.push(begun.elapsed());
            tokio::time::sleep(LOOK).await;
        }
        times
    })
}

/// Runs small graphs until it is over; gives how many have completed.
fn run_others(server: &Arc<Server>, is_over: &Arc<AtomicBool>) -> JoinHandle<usize> {
    let (server, is_over) = (Arc::clone(server), Arc::clone(is_over));
    tokio::spawn(async move {
        let graph = server.register("small.yaml").await;
        let mut completed = 0;
        while !is_over.load(Ordering::Relaxed) || completed == 0 {
            let (status, run) = server.execute(&graph, &json!({"text": "hello"}), None).await;
            assert_eq!(status, 202, "{run}");
            let view = server.ended(run["run_id"].as_str().expect("a run")).await;
            assert_eq!(view["status"], "completed", "{view}");
            completed += 1;
        }
        completed
    })
}

async fn administer_all(server: &Arc<Server>, count: usize) -> Vec<String> {
    let mut runs = Vec::new();
    for first in (0..count).step_by(AT_ONCE) {
        let mut sent = tokio::task::JoinSet::new();
        for number in first..count.min(first + AT_ONCE) {
            let server = Arc::clone(server);
            sent.spawn(async move { administer(&server, poison(number)).await });
        }
        runs.extend(sent.join_all().await.into_iter().flatten());
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn no_poison_ends_the_server_or_keeps_others_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = ["--evaluation-timeout=1"];
    let server = Arc::new(Server::start_within(folder.path(), &options, ADDRESS_SPACE_KIB));
    let is_over = Arc::new(AtomicBool::new(false));
    let (health, others) = (watch_health(&server, &is_over), run_others(&server, &is_over));
    let runs = administer_all(&server, count().unwrap_or(SHORT)).await;
    let half = runs.len() / 2;
    for run in &runs[..half] {
        server.ended(run).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let (mut times, others) = (health.await.expect("health"), others.await.expect("others"));
    times.sort();
    let late = times[times.len() * 99 / 100];
    println!(
        "{} runs of poison, {others} others, {} answers of health: 99 of 100 within {late:?}",
        runs.len(),
        times.len(),
    );
    assert!(count().is_none() || late < HEALTH_LIMIT, "health is slow: {late:?}");
    Arc::into_inner(server).expect("alone").kill();
    let server = Server::start_within(folder.path(), &options, ADDRESS_SPACE_KIB);
    for run in &runs {
        let view = server.ended(run).await;
        assert_ne!(view["status"], "running", "{view}");
    }
}
