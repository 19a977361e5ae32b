//! `convergio bench gateway`: cost that a front door adds to a model call, every call durable.
//!
//! A closed loop in one process: each of `concurrency` clients sends a call, reads the whole
//! answer, and sends the next. The mock model server answers at once. Each measurement is made
//! twice, directly at the model server and through the door: the difference is the platform's cost,
//! and the raw sync beside it is the device's part of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Args;
use convergio_process::{out_line, terminal};
use convergio_projections::ReadModelStore;
use convergio_server::config::ServerConfig;
use convergio_server::data_dir::DataDir;
use convergio_server::{FrontRuntime, InProcessServer, LogLocation};
use reqwest::Client;
use serde::Serialize;
use serde_json::{Value, json};

use super::memory::resident_memory_mib;
use super::raw::{append_sync_us, elapsed_us, value_at_percentile};

/// Pieces of a streamed answer of the mock server.
const ANSWER_PIECES: usize = 32;
/// Calls a second of others at a concurrency of 64, JSON and streams, with neither a log nor
/// budgets: LiteLLM 1.108.7 with one worker, and TensorZero 2026.6.0, which is written in Rust.
/// Measured on 2026-11-21 on two cores shared with the load and the model server, as here.
const OTHERS: [(&str, u64, u64); 2] = [("litellm", 80, 17), ("tensorzero", 7263, 1413)];
/// The concurrency at which the others were measured.
const OTHERS_CONCURRENCY: usize = 64;
/// Microseconds of one tick of `/proc/self/stat` (USER_HZ is 100 on all common systems).
const TICK_US: u64 = 10_000;

/// What to measure.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// Calls under way at once, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    concurrency: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Folder on the device to measure; a new sub-folder is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Form of the requested answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum AnswerForm {
    Json,
    Stream,
}

/// One measurement. Times are microseconds. CPU is one call's share of the whole process, including
/// clients and mock server, minus the same call's CPU without the platform.
#[derive(Debug, Serialize)]
struct GatewayBenchRow {
    bench: &'static str,
    form: AnswerForm,
    concurrency: usize,
    calls: usize,
    calls_per_s: u64,
    p50_us: u64,
    p99_us: u64,
    direct_calls_per_s: u64,
    direct_p50_us: u64,
    added_p50_us: u64,
    /// Added to the time to the first byte of the answer's body.
    added_first_byte_p50_us: u64,
    added_cpu_us: u64,
    raw_sync_p50_us: u64,
    /// Added latency minus one sync of the device, although a call is three commits and two syncs.
    over_sync_p50_us: u64,
    memory_mib: u64,
    /// Our rate as a multiple of the rates of other gateways, where these are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    times: Vec<(&'static str, f64)>,
}

/// Measures every form and concurrency and prints a row for each.
///
/// # Errors
/// The folder cannot be used, or a call fails.
pub(crate) async fn run(args: GatewayArgs, json: bool) -> anyhow::Result<()> {
    let folder = args.dir.join(format!("bench-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure_gateway(&folder, &args, json).await;
    std::fs::remove_dir_all(&folder)?;
    measured
}

async fn measure_gateway(folder: &Path, args: &GatewayArgs, json: bool) -> anyhow::Result<()> {
    let mock_address = start_mock_server().await?;
    let data = DataDir::from_path(folder);
    let read_models = ReadModelStore::File(data.read_models_file());
    let mut config = ServerConfig::new(data, LogLocation::Folder, read_models);
    config.executor.model_urls = vec![format!("http://{mock_address}/v1")];
    let server = InProcessServer::start_server(config, FrontRuntime::start()?).await?;
    let direct = BenchEndpoint::new(&format!("http://{mock_address}/v1"), "", "mock")?;
    let through =
        BenchEndpoint::new(&format!("{}/openai/v1", server.url), &server.token, "local/mock")?;
    if !json {
        out_line!(
            "{:>6} {:>11} {:>8} {:>8} {:>8} {:>8} {:>10} {:>9} {:>10} {:>8} {:>9} {:>7}",
            "form",
            "concurrency",
            "calls/s",
            "p50 us",
            "p99 us",
            "direct",
            "direct p50",
            "added p50",
            "added cpu",
            "raw sync",
            "over sync",
            "MiB"
        );
    }
    for form in [AnswerForm::Json, AnswerForm::Stream] {
        for concurrency in &args.concurrency {
            let raw = append_sync_us(folder)?;
            let span = Duration::from_secs(args.seconds);
            let direct_load = measure_load(&direct, form, *concurrency, span).await?;
            let door_load = measure_load(&through, form, *concurrency, span).await?;
            let row = build_row(
                form,
                *concurrency,
                &direct_load,
                &door_load,
                value_at_percentile(&raw, 50),
            );
            if json { terminal::print_json_line(&row)? } else { print_row(&row) }
        }
    }
    server.shutdown_server().await
}

fn build_row(
    form: AnswerForm,
    concurrency: usize,
    direct_load: &LoadMeasurement,
    door_load: &LoadMeasurement,
    raw_sync_p50_us: u64,
) -> GatewayBenchRow {
    let (p50_us, direct_p50_us) = (
        value_at_percentile(&door_load.latencies_us, 50),
        value_at_percentile(&direct_load.latencies_us, 50),
    );
    let added_p50_us = p50_us.saturating_sub(direct_p50_us);
    GatewayBenchRow {
        bench: "gateway",
        form,
        concurrency,
        calls: door_load.latencies_us.len(),
        calls_per_s: door_load.calls_per_s(),
        p50_us,
        p99_us: value_at_percentile(&door_load.latencies_us, 99),
        direct_calls_per_s: direct_load.calls_per_s(),
        direct_p50_us,
        added_p50_us,
        added_first_byte_p50_us: value_at_percentile(&door_load.first_bytes_us, 50)
            .saturating_sub(value_at_percentile(&direct_load.first_bytes_us, 50)),
        // CPU of clients and mock server is in both measurements and cancels out.
        added_cpu_us: door_load.cpu_us().saturating_sub(direct_load.cpu_us()),
        raw_sync_p50_us,
        over_sync_p50_us: added_p50_us.saturating_sub(raw_sync_p50_us),
        memory_mib: resident_memory_mib(),
        times: if concurrency == OTHERS_CONCURRENCY {
            relative_rates(form, door_load)
        } else {
            Vec::new()
        },
    }
}

fn relative_rates(form: AnswerForm, load: &LoadMeasurement) -> Vec<(&'static str, f64)> {
    let rate = load.latencies_us.len() as f64 / load.elapsed.as_secs_f64();
    let others = OTHERS.into_iter().map(|(name, json, stream)| {
        let theirs = if form == AnswerForm::Json { json } else { stream };
        (name, (rate / theirs as f64 * 100.0).round() / 100.0)
    });
    others.collect()
}

fn print_row(row: &GatewayBenchRow) {
    let form = if row.form == AnswerForm::Json { "json" } else { "stream" };
    out_line!(
        "{form:>6} {:>11} {:>8} {:>8} {:>8} {:>8} {:>10} {:>9} {:>10} {:>8} {:>9} {:>7}",
        row.concurrency,
        row.calls_per_s,
        row.p50_us,
        row.p99_us,
        row.direct_calls_per_s,
        row.direct_p50_us,
        row.added_p50_us,
        row.added_cpu_us,
        row.raw_sync_p50_us,
        row.over_sync_p50_us,
        row.memory_mib
    );
    for (name, times) in &row.times {
        out_line!("       {times} times the rate of {name}");
    }
}

/// Endpoint that the clients call, directly or through the door.
#[derive(Clone)]
struct BenchEndpoint {
    http: Client,
    url: String,
    token: String,
    model: String,
}

impl BenchEndpoint {
    fn new(base_url: &str, token: &str, model: &str) -> anyhow::Result<Self> {
        let http = convergio_executor::provider::http_client()?;
        let (token, model) = (token.to_owned(), model.to_owned());
        Ok(Self { http, url: format!("{base_url}/chat/completions"), token, model })
    }

    /// Sends one call and reads its answer to the end.
    async fn send_call(&self, form: AnswerForm) -> anyhow::Result<CallLatency> {
        let begun = Instant::now();
        let is_stream = form == AnswerForm::Stream;
        let body = json!({"model": self.model, "stream": is_stream, "max_tokens": 64,
            "messages": [{"role": "user", "content": "Which city is the capital of France?"}]});
        let request = self.http.post(&self.url).bearer_auth(&self.token).json(&body);
        let mut response = request.send().await?.error_for_status()?;
        let mut answer = Vec::new();
        let mut first_byte_us = 0;
        while let Some(chunk) = response.chunk().await? {
            if answer.is_empty() {
                first_byte_us = elapsed_us(begun);
            }
            answer.extend_from_slice(&chunk);
        }
        let answer = String::from_utf8(answer)?;
        let is_whole = match form {
            AnswerForm::Json => answer.contains("\"usage\""),
            AnswerForm::Stream => answer.ends_with("data: [DONE]\n\n"),
        };
        anyhow::ensure!(is_whole, "an answer is not whole: {answer}");
        Ok(CallLatency { first_byte_us, whole_us: elapsed_us(begun) })
    }
}

/// Microseconds from the request to the first byte of the answer's body and to its last.
struct CallLatency {
    first_byte_us: u64,
    whole_us: u64,
}

/// Latencies and CPU time of one measurement.
struct LoadMeasurement {
    /// Sorted times to the first byte of all calls in microseconds.
    first_bytes_us: Vec<u64>,
    /// Sorted latencies of all calls in microseconds.
    latencies_us: Vec<u64>,
    elapsed: Duration,
    cpu_ticks: u64,
}

impl LoadMeasurement {
    fn calls_per_s(&self) -> u64 {
        (self.latencies_us.len() as f64 / self.elapsed.as_secs_f64()) as u64
    }

    /// CPU time per call in microseconds.
    fn cpu_us(&self) -> u64 {
        self.cpu_ticks * TICK_US / self.latencies_us.len().max(1) as u64
    }
}

async fn measure_load(
    target: &BenchEndpoint,
    form: AnswerForm,
    concurrency: usize,
    span: Duration,
) -> anyhow::Result<LoadMeasurement> {
    // Warm-up: connections, caches and the price book are ready before the clock starts.
    for _ in 0..20 {
        target.send_call(form).await?;
    }
    let (begun, ticks) = (Instant::now(), cpu_ticks());
    let stop = Arc::new(AtomicBool::new(false));
    // Closed loop: a slow answer slows its client down, as in real use.
    let client = |_| {
        let (target, stop) = (target.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                times.push(target.send_call(form).await?);
            }
            anyhow::Ok(times)
        })
    };
    let clients: Vec<_> = (0..concurrency).map(client).collect();
    tokio::time::sleep(span).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    let sorted = |time: fn(&CallLatency) -> u64| {
        let mut times: Vec<u64> = times.iter().map(time).collect();
        times.sort_unstable();
        times
    };
    Ok(LoadMeasurement {
        first_bytes_us: sorted(|latency| latency.first_byte_us),
        latencies_us: sorted(|latency| latency.whole_us),
        elapsed: begun.elapsed(),
        cpu_ticks: cpu_ticks() - ticks,
    })
}

/// CPU ticks of this process so far; 0 where the system does not report them.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15 of proc(5), utime and stime; the second field may hold blanks in its
    // brackets.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Starts a model server that answers at once.
async fn start_mock_server() -> anyhow::Result<SocketAddr> {
    let stream: Arc<str> = mock_stream().into();
    let app = Router::new()
        .route("/v1/models", get(async || Json(json!({"data": [{"id": "mock"}]}))))
        .route(
            "/v1/chat/completions",
            post(move |Json(request): Json<Value>| {
                let stream = Arc::clone(&stream);
                async move { mock_answer(&request, &stream) }
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

fn mock_answer(request: &Value, stream: &str) -> Response {
    if request["stream"] == true {
        let stream = stream.to_owned();
        return ([(header::CONTENT_TYPE, "text/event-stream")], stream).into_response();
    }
    let message = json!({"role": "assistant", "content": "The capital of France is Paris."});
    Json(json!({"model": "mock", "usage": mock_usage(),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
    .into_response()
}

fn mock_usage() -> Value {
    json!({"prompt_tokens": 12, "completion_tokens": ANSWER_PIECES,
        "total_tokens": 12 + ANSWER_PIECES})
}

fn mock_stream() -> String {
    let piece = |delta: Value, finish: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "mock",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    };
    let mut events = vec![piece(json!({"content": " Paris"}), Value::Null); ANSWER_PIECES];
    events.push(piece(json!({}), json!("stop")));
    events.push(json!({"model": "mock", "choices": [], "usage": mock_usage()}));
    let lines = events.iter().map(|event| format!("data: {event}\n\n"));
    lines.collect::<String>() + "data: [DONE]\n\n"
}
