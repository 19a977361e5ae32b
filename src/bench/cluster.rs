//! A log of its own in a running cluster, for as long as a measurement lasts, and what the cluster
//! does without us.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, stream};
use convergio_eventstore::jetstream::{Address, Config, JetStreamLog, Layout, Login};
use convergio_eventstore::{Durability, EventLog};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::raw::micros;

/// Most bytes of the log, and of the raw stream beside it.
const LOG_BYTES: u64 = 4 << 30;
const PAYLOAD_BYTES: u64 = 1 << 30;
const PARTS: [&str; 3] = ["LOG", "PAYLOAD", "DERIVED"];

/// A log, and a stream of the same settings that is written to without us.
pub(super) struct BenchCluster {
    pub(super) log: Arc<dyn EventLog>,
    context: jetstream::Context,
    name: String,
}

impl BenchCluster {
    /// Makes the streams, under names that nobody uses.
    ///
    /// # Errors
    /// The cluster cannot be reached, or refuses.
    pub(super) async fn make(url: &str, replicas: usize) -> anyhow::Result<Self> {
        let mut address: Address = url.parse()?;
        let id = Uuid::now_v7().simple().to_string().to_ascii_uppercase();
        address.name = format!("BENCH_{}", &id[20..28]);
        let name = address.name.clone();
        let context = jetstream::new(connect(&address).await?);
        let mut config = Config::new(address, [7; 32]);
        config.require = Durability::Process;
        let layout = Layout { replicas, log_bytes: LOG_BYTES, payload_bytes: PAYLOAD_BYTES };
        JetStreamLog::create(&config, &layout).await?;
        let raw = stream::Config {
            name: format!("RAW_{name}"),
            subjects: vec![format!("raw.{name}.>")],
            num_replicas: replicas,
            storage: stream::StorageType::File,
            max_bytes: i64::try_from(LOG_BYTES)?,
            ..stream::Config::default()
        };
        context.create_stream(raw).await?;
        let log = Arc::new(JetStreamLog::open(&config).await?);
        Ok(Self { log, context, name })
    }

    /// Microseconds of raw publishes; each writer waits for its own acknowledgement.
    pub(super) async fn raw_publish_us(
        &self,
        writers: usize,
        bytes: usize,
        span: Duration,
    ) -> anyhow::Result<Vec<u64>> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..writers {
            let (context, name) = (self.context.clone(), self.name.clone());
            tasks.spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < span {
                    let subject = format!("raw.{name}.{}", Uuid::now_v7());
                    let start = Instant::now();
                    context.publish(subject, vec![7; bytes].into()).await?.await?;
                    times.push(micros(start));
                }
                anyhow::Ok(times)
            });
        }
        let mut all = Vec::new();
        while let Some(times) = tasks.join_next().await {
            all.extend(times??);
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Messages of the log, and bytes of the log and its payloads, of one copy.
    pub(super) async fn stored(&self) -> anyhow::Result<(u64, u64)> {
        let (mut messages, mut bytes) = (0, 0);
        for part in &PARTS[..2] {
            let stream = self.context.get_stream(format!("{}_{part}", self.name)).await?;
            let state = &stream.cached_info().state;
            messages += state.messages;
            bytes += state.bytes;
        }
        Ok((messages, bytes))
    }

    /// Removes everything that the measurement made.
    pub(super) async fn remove(self) -> anyhow::Result<()> {
        self.log.close().await?;
        self.context.delete_stream(format!("RAW_{}", self.name)).await?;
        for part in PARTS {
            self.context.delete_stream(format!("{}_{part}", self.name)).await?;
        }
        Ok(())
    }
}

async fn connect(address: &Address) -> anyhow::Result<async_nats::Client> {
    let options = match &address.login {
        Login::Nobody => ConnectOptions::new(),
        Login::Password { user, password } => {
            ConnectOptions::with_user_and_password(user.clone(), password.clone())
        }
        Login::Credentials(path) => {
            ConnectOptions::with_credentials(&std::fs::read_to_string(path)?)?
        }
    };
    Ok(options.connect(address.servers.clone()).await?)
}
