//! The log on a NATS JetStream cluster: several processes on several machines, each record on a
//! quorum of disks before it is acknowledged.
//!
//! A record is one message; its subject is its stream, so the broker compares the expected version
//! on exactly one stream. The broker's promises are checked (`gate`), its refusals are settled by
//! reading (`append`), and what it delivers is checked against our own chain and against holes.

mod api;
mod append;
mod cluster_security;
mod config;
mod connect;
mod follower;
mod gate;
mod inner;
mod outbox;
mod payloads;
mod read;
mod seek;
mod shares;
mod streams;
mod wakes;
mod wire;
mod witness;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{Semaphore, watch};

use crate::commit::Commit;
use crate::error::{AppendError, LogError};
use crate::heads::KnownHeads;
use crate::health::ComponentHealth;
use crate::log::{Archived, Durability, EventLog, Page, Scan};
use crate::prepare::prepare;
use crate::record::{Head, Position, RawRecord, Record};
use crate::seal::{MasterKey, Opening};
use crate::signature::ExportSigner;
use crate::stream_tail::follow_stream;
use crate::tail;
use crate::verify::verify;
use cluster_security::Finding;
pub use config::{Address, Config, Layout, Login};
pub use connect::connect_client;
use follower::Follower;
use gate::Proof;
use inner::Inner;
pub use shares::Shares;
use wire::Names;
use witness::Witness;

/// Commits that may be under way at once; more wait, and then are told that the log is busy.
const UNDER_WAY: usize = 1024;
/// How often the witness is written down.
const WITNESS_EVERY: Duration = Duration::from_secs(1);
/// Wait before a tail reads again that could not.
const FOLLOW_AGAIN: Duration = Duration::from_secs(1);
/// After so many of these the servers are asked again what they promise.
const PROVE_EVERY: u64 = 15;

/// The log in a cluster.
pub struct JetStreamLog {
    inner: Arc<Inner>,
    follower: OnceLock<Arc<Follower>>,
    require: Durability,
    durability: Durability,
}

impl JetStreamLog {
    /// Makes the streams of a new log.
    ///
    /// # Errors
    /// The cluster cannot be reached or refuses, or the streams exist.
    pub async fn create(config: &Config, layout: &Layout) -> Result<(), LogError> {
        let api = connect::connect(config).await?;
        let names = Names::new(&config.address.name);
        let found = cluster_security::examine(&api, config, layout.replicas).await;
        found.map_err(streams::no_answer)?.require_shut()?;
        streams::create(&api, &names, layout, &config.payload_key).await
    }

    /// Opens a log whose streams exist.
    ///
    /// # Errors
    /// One line: unreachable, wrong credentials, missing stream, wrong settings, another payload
    /// key, a cluster that strangers can join, an old server, or less durable than required.
    pub async fn open(config: &Config) -> Result<Self, LogError> {
        let api = connect::connect(config).await?;
        let names = Names::new(&config.address.name);
        let info = streams::check(&api, &names, &config.address, &config.payload_key).await?;
        if info.state.messages != info.state.last_sequence {
            let missing = info.state.last_sequence.saturating_sub(info.state.messages);
            return Err(LogError::corrupt(&names.log, &format!("{missing} records are missing")));
        }
        let servers = gate::peers(&api, &info).len();
        let found = cluster_security::examine(&api, config, servers).await;
        found.map_err(streams::no_answer)?.require_shut()?;
        let proof = gate::prove(&api, &info).await?;
        if proof.durability < config.require {
            return Err(LogError::Unavailable(format!(
                "{} is required, and the cluster promises {}: {}",
                config.require.as_str(),
                proof.durability.as_str(),
                proof.reason
            )));
        }
        let durability = proof.durability;
        let inner = Arc::new(Inner {
            api,
            names,
            keys: MasterKey::new(config.payload_key),
            heads: KnownHeads::default(),
            witness: Witness::default(),
            permits: Semaphore::new(UNDER_WAY),
            closed: watch::channel(false).0,
            proof: watch::channel(proof).0,
        });
        inner.check_witness().await?;
        tokio::spawn(keep(Arc::clone(&inner), config.clone()));
        Ok(Self { inner, follower: OnceLock::new(), require: config.require, durability })
    }

    /// Takes part in the work on the log's streams; `health` hears whether it can.
    pub fn share(&self, health: ComponentHealth) -> Shares {
        shares::join(Arc::clone(&self.inner), health)
    }

    /// Walks every chain from its first record; gives the number of records and events.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names the first record that is not what was written.
    pub async fn verify(&self) -> Result<(u64, u64), LogError> {
        let found = verify(self, false).await?;
        Ok((found.records, found.events))
    }

    fn follower(&self) -> &Arc<Follower> {
        self.follower.get_or_init(|| Follower::start(Arc::clone(&self.inner)))
    }

    /// The wake index, with everything that was acknowledged before this call.
    async fn index(&self) -> Result<&Follower, LogError> {
        let tail = self.inner.tail_position().await?;
        let follower = self.follower();
        follower.reached(tail).await?;
        Ok(follower)
    }
}

/// What goes on beside the log while it is open.
async fn keep(inner: Arc<Inner>, config: Config) {
    for round in 1_u64.. {
        if inner.pause(WITNESS_EVERY).await.is_err() {
            return;
        }
        if let Err(error) = inner.save_witness().await {
            tracing::debug!(reason = error.0, "the witness is not written this time");
        }
        if round.is_multiple_of(PROVE_EVERY) {
            prove_again(&inner, &config).await;
        }
    }
}

/// A server may come back with other settings.
async fn prove_again(inner: &Inner, config: &Config) {
    let Ok(Some(info)) = inner.api.info(&inner.names.log).await else { return };
    let servers = gate::peers(&inner.api, &info).len();
    // Who is silent for a moment was shut when the log was opened.
    let proof = match cluster_security::examine(&inner.api, config, servers).await {
        Ok(Finding::Open(reason)) => Proof::refusal(reason),
        _ => gate::prove(&inner.api, &info)
            .await
            .unwrap_or_else(|error| Proof::refusal(error.to_string())),
    };
    let known = inner.proof.send_replace(proof.clone());
    if known != proof {
        let (durability, reason) = (proof.durability.as_str(), proof.reason);
        tracing::warn!(durability, reason, "what the log's cluster promises has changed");
    }
}

#[async_trait]
impl EventLog for JetStreamLog {
    fn durability(&self) -> Durability {
        self.durability.min(self.inner.proof.borrow().durability)
    }

    async fn check_writable(&self) -> Result<(), AppendError> {
        self.inner.check_open()?;
        self.inner.check_proof(self.require)?;
        let failure = self.follower.get().and_then(|follower| follower.failure());
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    async fn append(&self, commit: Commit) -> Result<Head, AppendError> {
        let prepared = prepare(commit, &self.inner.keys)?;
        self.inner.append(prepared, self.require).await
    }

    async fn restore(&self, archived: Archived) -> Result<Head, AppendError> {
        self.inner.append(archived.into_prepared(), self.require).await
    }

    fn export_signer(&self) -> Option<ExportSigner> {
        Some(ExportSigner::of(&self.inner.keys))
    }

    async fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        self.inner.head(stream).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        self.inner.read_stream(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Page, LogError> {
        self.inner.read_all(after, limit).await
    }

    async fn read_raw(&self, scan: Scan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        match scan {
            Scan::All(after) => self.inner.all_raw(after, limit).await,
            Scan::Stream(stream, after) => self.inner.stream_raw(stream, after, limit).await,
        }
    }

    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let follower = Arc::clone(self.follower());
        let Some(live) = follower.subscribe_to(stream) else { return failure(follower) };
        let (inner, stream) = (Arc::clone(&self.inner), stream.clone());
        let read = Box::new(move |after, limit| {
            let (inner, stream) = (Arc::clone(&inner), stream.clone());
            let page = async move { read_patiently(&inner, &stream, after, limit).await };
            Box::pin(page) as BoxFuture<'static, _>
        });
        follow_stream(read, live, after).chain(failure(follower)).boxed()
    }

    fn tail(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let follower = Arc::clone(self.follower());
        let failure = failure(Arc::clone(&follower));
        let Some(live) = follower.subscribe() else { return failure };
        let inner = Arc::clone(&self.inner);
        let read = Arc::new(move |after, limit| {
            let (inner, follower) = (Arc::clone(&inner), Arc::clone(&follower));
            let page = async move { read_up_to(&inner, &follower, after, limit).await };
            Box::pin(page) as BoxFuture<'static, _>
        });
        tail::follow(read, live, after).chain(failure).boxed()
    }

    async fn opening(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        self.inner.opening(stream, reference).await
    }

    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        self.inner.erase_payload(stream, reference).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        Ok(self.index().await?.due(now, limit))
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        Ok(self.index().await?.next_due(now))
    }

    async fn close(&self) -> Result<(), LogError> {
        if self.inner.closed.send_replace(true) {
            return Ok(());
        }
        if let Err(error) = self.inner.save_witness().await {
            tracing::debug!(reason = error.0, "the witness is not written");
        }
        // The connection ends when its last user does.
        let _flushed = self.inner.api.client.flush().await;
        Ok(())
    }
}

/// Why a follower has ended, if it has: the last word of a tail.
fn failure(follower: Arc<Follower>) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    stream::iter(std::iter::from_fn(move || follower.failure()).take(1)).map(Err).boxed()
}

/// Records of a stream. A tail outlives every outage.
async fn read_patiently(
    inner: &Inner,
    stream: &StreamKey,
    after: Seq,
    limit: usize,
) -> Result<Vec<Arc<Record>>, LogError> {
    loop {
        match inner.read_stream(stream, after, limit).await {
            Err(LogError::Unavailable(reason)) => {
                tracing::warn!(reason, "a stream of the log cannot be followed for now");
                inner.pause(FOLLOW_AGAIN).await?;
            }
            records => return records,
        }
    }
}

/// A page that holds what followers have been given already, as a tail needs it: the follower may
/// hear of a record a moment before the leader that is asked. A tail outlives every outage.
async fn read_up_to(
    inner: &Inner,
    follower: &Follower,
    after: Position,
    limit: usize,
) -> Result<Page, LogError> {
    loop {
        let given = follower.applied();
        let there = if given > after { inner.leaders(given).await.map(drop) } else { Ok(()) };
        let page = match there {
            Ok(()) => inner.read_all(after, limit).await,
            Err(error) => Err(error),
        };
        match page {
            Err(LogError::Unavailable(reason)) => {
                tracing::warn!(reason, "the log cannot be followed for now");
                inner.pause(FOLLOW_AGAIN).await?;
            }
            page => return page,
        }
    }
}
