//! A log of its own in a running cluster for the time of a measurement, and raw publishes to the
//! same cluster for comparison.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::{self, ErrorCode, stream};
use convergio_eventstore::jetstream::{JetStreamLog, Layout, connect_client};
use convergio_eventstore::{Durability, LogWriter};
use convergio_server::ClusterLocation;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::raw::elapsed_us;

/// Maximum bytes of the log, and of the raw stream beside it.
const LOG_BYTES: u64 = 4 << 30;
const PAYLOAD_BYTES: u64 = 1 << 30;
const PARTS: [&str; 3] = ["LOG", "PAYLOAD", "DERIVED"];

/// Messages per subject of a raw writer: as many as a writer of the log appends to one stream.
const MESSAGES_PER_SUBJECT: usize = 20;
/// Maximum attempts to move a stream's leader, and the pause after each.
const LEADER_ATTEMPTS: usize = 20;
const LEADER_PAUSE: Duration = Duration::from_millis(250);

/// Kind of a raw publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RawPublish {
    /// Stored without a condition.
    Plain,
    /// Stored only if the last message of its subject is the one that the writer expects.
    Checked,
}

/// A log in the cluster, and a stream with the same settings for raw publishes.
pub(super) struct BenchCluster {
    pub(super) log: Arc<dyn LogWriter>,
    context: jetstream::Context,
    name: String,
}

impl BenchCluster {
    /// Creates the streams under unused names.
    ///
    /// # Errors
    /// The cluster cannot be reached, or refuses.
    pub(super) async fn create_streams(
        place: &ClusterLocation,
        replicas: usize,
    ) -> anyhow::Result<Self> {
        let mut config = place.to_config([7; 32]);
        let id = Uuid::now_v7().simple().to_string().to_ascii_uppercase();
        config.address.name = format!("BENCH_{}", &id[20..28]);
        let name = config.address.name.clone();
        let context = jetstream::new(connect_client(&config).await?);
        // The cluster under measurement need not be durable: its settings are part of the result.
        config.required_durability = Durability::Process;
        let layout = Layout { replicas, log_bytes: LOG_BYTES, payload_bytes: PAYLOAD_BYTES };
        JetStreamLog::create_log(&config, &layout).await?;
        let of_log = context.get_stream(format!("{name}_{}", PARTS[0])).await?;
        let raw = stream::Config {
            name: format!("RAW_{name}"),
            subjects: vec![format!("raw.{name}.>")],
            ..of_log.cached_info().config.clone()
        };
        let raw = context.create_stream(raw).await?;
        move_leader(&context, &raw, &of_log).await?;
        let log = Arc::new(JetStreamLog::open(&config).await?);
        Ok(Self { log, context, name })
    }

    /// Publishes for `span` and returns the sorted latencies in microseconds. Each writer waits for
    /// its own acknowledgement.
    pub(super) async fn raw_publish_us(
        &self,
        raw: RawPublish,
        writers: usize,
        bytes: usize,
        span: Duration,
    ) -> anyhow::Result<Vec<u64>> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..writers {
            let (context, prefix) = (self.context.clone(), format!("raw.{}", self.name));
            tasks.spawn(publish_until(context, prefix, raw, bytes, begun + span));
        }
        let mut latencies_us = Vec::new();
        while let Some(times) = tasks.join_next().await {
            latencies_us.extend(times??);
        }
        latencies_us.sort_unstable();
        Ok(latencies_us)
    }

    /// Messages of the log, and bytes of the log and its payloads, in one replica.
    pub(super) async fn stored_messages_and_bytes(&self) -> anyhow::Result<(u64, u64)> {
        let (mut messages, mut bytes) = (0, 0);
        for part in &PARTS[..2] {
            let stream = self.context.get_stream(format!("{}_{part}", self.name)).await?;
            let state = &stream.cached_info().state;
            messages += state.messages;
            bytes += state.bytes;
        }
        Ok((messages, bytes))
    }

    /// Removes all streams of the measurement.
    pub(super) async fn remove_streams(self) -> anyhow::Result<()> {
        self.log.close().await?;
        self.context.delete_stream(format!("RAW_{}", self.name)).await?;
        for part in PARTS {
            self.context.delete_stream(format!("{}_{part}", self.name)).await?;
        }
        Ok(())
    }
}

/// Moves a stream's leader to the server that leads another stream: the distance between leader and
/// client decides how long a publish takes.
async fn move_leader(
    context: &jetstream::Context,
    stream: &stream::Stream,
    other: &stream::Stream,
) -> anyhow::Result<()> {
    let leader = |stream: &stream::Stream| stream.cached_info().cluster.clone()?.leader;
    let Some(wanted) = leader(other) else { return Ok(()) };
    let name = &stream.cached_info().config.name;
    for _ in 0..LEADER_ATTEMPTS {
        if leader(&context.get_stream(name).await?).as_ref() == Some(&wanted) {
            return Ok(());
        }
        let call = format!("STREAM.LEADER.STEPDOWN.{name}");
        let request = json!({"placement": {"preferred": wanted}});
        let _answer: serde_json::Value = context.request(call, &request).await?;
        tokio::time::sleep(LEADER_PAUSE).await;
    }
    anyhow::bail!("the server {wanted} does not lead {name}")
}

/// Publishes until an instant; returns the latency of each publish in microseconds.
async fn publish_until(
    context: jetstream::Context,
    prefix: String,
    raw: RawPublish,
    bytes: usize,
    until: Instant,
) -> anyhow::Result<Vec<u64>> {
    let (mut times, mut subject, mut last) = (Vec::new(), String::new(), 0);
    while Instant::now() < until {
        // A new subject now and then, as new runs begin new streams.
        if times.len() % MESSAGES_PER_SUBJECT == 0 {
            (subject, last) = (format!("{prefix}.{}", Uuid::now_v7()), 0);
        }
        let body = vec![7; bytes].into();
        let start = Instant::now();
        let sent = match raw {
            RawPublish::Plain => context.publish(subject.clone(), body).await?,
            RawPublish::Checked => {
                let mut headers = HeaderMap::new();
                headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
                context.publish_with_headers(subject.clone(), headers, body).await?
            }
        };
        match sent.await {
            Ok(stored) => last = stored.sequence,
            Err(error) if is_premature_refusal(&error) => continue,
            Err(error) => return Err(error.into()),
        }
        times.push(elapsed_us(start));
    }
    Ok(times)
}

/// True if the server refused a correct version because it was still applying the previous message.
fn is_premature_refusal(error: &PublishError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    let code = source.map(jetstream::Error::error_code);
    code == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}
