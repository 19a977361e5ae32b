//! [`JetStreamLog`]: the log on a NATS JetStream cluster. Several processes on several machines
//! share it; each record is on a quorum of disks before it is acknowledged.
//!
//! A record is one message; its subject is its stream, so that the broker compares the expected
//! version on exactly one stream. The broker is not trusted: its durability is proven
//! (`durability_proof`), its refusals are resolved by reading (`append`), and what it delivers is
//! checked against the hash chain and for holes.
//!
//! Map, from the bottom: `config` and `connect` reach the cluster; `api` makes the calls, with
//! `outbox` batching the publishes; `wire` is the form of messages. `log_core` is what all parts of
//! an open log share, and `append`, `read`, `seek`, `payloads`, `wake_index` and `ack_marker` are
//! its methods. `follower` feeds tails and the wake index, `slot_lease` divides work, `streams`,
//! `durability_proof` and `cluster_security` check the cluster. This file ties them together.
//! Messages are published and read through `api` only; the follower's consumer, the creation of
//! streams and the purge of old snapshots use the client directly.

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

/// Maximum number of commits in progress. Others wait, and then fail with [`AppendError::Busy`].
const UNDER_WAY: usize = 1024;
/// Interval at which the acknowledgement marker is saved.
const WITNESS_EVERY: Duration = Duration::from_secs(1);
/// Delay before a tail reads again after a failure.
const FOLLOW_AGAIN: Duration = Duration::from_secs(1);
/// Number of marker intervals between two proofs of the cluster's durability.
const PROVE_EVERY: u64 = 15;

/// A log in a cluster, open in this process and possibly in others.
pub struct JetStreamLog {
    inner: Arc<Inner>,
    follower: OnceLock<Arc<Follower>>,
    require: Durability,
    durability: Durability,
}

impl JetStreamLog {
    /// Creates the JetStream streams of a new log.
    ///
    /// # Errors
    /// The cluster cannot be reached, refuses, or is open to strangers, or the streams exist.
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
    /// In one line: the cluster is unreachable or refuses the credentials, a stream is missing or
    /// has wrong settings, the payload key differs, strangers can join the cluster, a server is too
    /// old, or the cluster is less durable than required.
    pub async fn open(config: &Config) -> Result<Self, LogError> {
        let api = connect::connect(config).await?;
        let names = Names::new(&config.address.name);
        let info = streams::check(&api, &names, &config.address, &config.payload_key).await?;
        // Nothing is ever deleted from this stream, so fewer messages than sequence numbers mean a
        // hole.
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

    /// Takes part in the division of slots among the log's processes; `health` reports whether this
    /// process can.
    pub fn share(&self, health: ComponentHealth) -> Shares {
        shares::join(Arc::clone(&self.inner), health)
    }

    /// Verifies every hash chain from its first record; returns the numbers of records and events.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names the first record that is damaged.
    pub async fn verify(&self) -> Result<(u64, u64), LogError> {
        let found = verify(self, false).await?;
        Ok((found.records, found.events))
    }

    fn follower(&self) -> &Arc<Follower> {
        self.follower.get_or_init(|| Follower::start(Arc::clone(&self.inner)))
    }

    /// Returns the follower once its wake index covers everything that was acknowledged before this
    /// call.
    async fn index(&self) -> Result<&Follower, LogError> {
        let tail = self.inner.tail_position().await?;
        let follower = self.follower();
        follower.reached(tail).await?;
        Ok(follower)
    }
}

/// Background task of an open log: saves the marker and renews the durability proof.
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

/// Proves the cluster's durability again: a server may have been restarted with other settings.
async fn prove_again(inner: &Inner, config: &Config) {
    let Ok(Some(info)) = inner.api.info(&inner.names.log).await else { return };
    let servers = gate::peers(&inner.api, &info).len();
    // Silence is tolerated here: the cluster was proven to be closed when the log was opened.
    let proof = match cluster_security::examine(&inner.api, config, servers).await {
        Ok(Finding::Open(reason)) => Proof::refusal(reason),
        _ => gate::prove(&inner.api, &info)
            .await
            .unwrap_or_else(|error| Proof::refusal(error.to_string())),
    };
    let known = inner.proof.send_replace(proof.clone());
    if known != proof {
        // Logged on changes only; appends fail by `check_durability` meanwhile.
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
        // The client closes its connection when its last clone is dropped.
        let _flushed = self.inner.api.client.flush().await;
        Ok(())
    }
}

/// Ends a tail with the failure of its follower, if that has failed.
fn failure(follower: Arc<Follower>) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    stream::iter(std::iter::from_fn(move || follower.failure()).take(1)).map(Err).boxed()
}

/// Reads a stream for a tail, which outlives every outage: an unavailable log is read again.
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

/// Reads a page for a tail, which outlives every outage. The page holds at least the records that
/// the follower has passed on: it may receive a record a moment before the leader that is read from
/// has applied it.
async fn read_up_to(
    inner: &Inner,
    follower: &Follower,
    after: Position,
    limit: usize,
) -> Result<Page, LogError> {
    loop {
        // Reading up to the follower's position first makes the page at least as new as its feed.
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
