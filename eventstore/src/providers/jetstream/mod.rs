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

mod ack_marker;
mod api;
mod append;
mod cluster_security;
mod config;
mod connect;
mod durability_proof;
mod follower;
mod log_core;
mod outbox;
mod payloads;
mod read;
mod seek;
mod slot_lease;
mod streams;
mod wake_index;
mod wire;

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
use crate::heads::HeadCache;
use crate::health::ComponentHealth;
use crate::log::{
    ArchivedRecord, Durability, EventLog, LogReader, LogWriter, PayloadReader, RawScan, RecordPage,
    WakeIndex,
};
use crate::prepare::prepare_commit;
use crate::record::{Position, RawRecord, Record, StreamHead};
use crate::seal::{MasterKey, Opening};
use crate::signature::ExportSigner;
use crate::stream_tail::follow_stream;
use crate::tail;
use crate::verify::verify_log;
use ack_marker::AckMarker;
use cluster_security::SecurityFinding;
pub use config::{ClusterAddress, JetStreamConfig, Layout, Login};
pub use connect::connect_client;
use durability_proof::DurabilityProof;
use follower::LogFollower;
use log_core::LogCore;
pub use slot_lease::SlotLease;
use wire::SubjectNames;

/// Maximum number of commits in progress. Others wait, and then fail with [`AppendError::Busy`].
const CONCURRENT_COMMITS: usize = 1024;
/// Interval at which the acknowledgement marker is saved.
const MARKER_INTERVAL: Duration = Duration::from_secs(1);
/// Delay before a tail reads again after a failure.
const TAIL_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Number of marker intervals between two proofs of the cluster's durability.
const PROOF_INTERVAL_ROUNDS: u64 = 15;

/// A log in a cluster, open in this process and possibly in others.
pub struct JetStreamLog {
    inner: Arc<LogCore>,
    follower: OnceLock<Arc<LogFollower>>,
    required_durability: Durability,
    durability: Durability,
}

impl JetStreamLog {
    /// Creates the JetStream streams of a new log.
    ///
    /// # Errors
    /// The cluster cannot be reached, refuses, or is open to strangers, or the streams exist.
    pub async fn create_log(config: &JetStreamConfig, layout: &Layout) -> Result<(), LogError> {
        let api = connect::connect_api(config).await?;
        let names = SubjectNames::new(&config.address.name);
        let found = cluster_security::examine_cluster(&api, config, layout.replicas).await;
        found.map_err(streams::unanswered_error)?.require_shut()?;
        streams::create_streams(&api, &names, layout, &config.payload_key).await
    }

    /// Opens a log whose streams exist.
    ///
    /// # Errors
    /// In one line: the cluster is unreachable or refuses the credentials, a stream is missing or
    /// has wrong settings, the payload key differs, strangers can join the cluster, a server is too
    /// old, or the cluster is less durable than required.
    pub async fn open(config: &JetStreamConfig) -> Result<Self, LogError> {
        let api = connect::connect_api(config).await?;
        let names = SubjectNames::new(&config.address.name);
        let info =
            streams::check_streams(&api, &names, &config.address, &config.payload_key).await?;
        // Nothing is ever deleted from this stream, so fewer messages than sequence numbers mean a
        // hole.
        if info.state.messages != info.state.last_sequence {
            let missing = info.state.last_sequence.saturating_sub(info.state.messages);
            return Err(LogError::corrupt(&names.log, &format!("{missing} records are missing")));
        }
        let servers = durability_proof::replica_peers(&api, &info).len();
        let found = cluster_security::examine_cluster(&api, config, servers).await;
        found.map_err(streams::unanswered_error)?.require_shut()?;
        let proof = durability_proof::prove_durability(&api, &info).await?;
        if proof.durability < config.required_durability {
            return Err(LogError::Unavailable(format!(
                "{} is required, and the cluster promises {}: {}",
                config.required_durability.as_str(),
                proof.durability.as_str(),
                proof.reason
            )));
        }
        let durability = proof.durability;
        let inner = Arc::new(LogCore {
            api,
            names,
            keys: MasterKey::new(config.payload_key),
            heads: HeadCache::default(),
            ack_marker: AckMarker::default(),
            commit_permits: Semaphore::new(CONCURRENT_COMMITS),
            closed: watch::channel(false).0,
            proof: watch::channel(proof).0,
        });
        inner.check_ack_marker().await?;
        tokio::spawn(run_maintenance(Arc::clone(&inner), config.clone()));
        Ok(Self {
            inner,
            follower: OnceLock::new(),
            required_durability: config.required_durability,
            durability,
        })
    }

    /// Takes part in the division of slots among the log's processes; `health` reports whether this
    /// process can.
    pub fn lease_slots(&self, health: ComponentHealth) -> SlotLease {
        slot_lease::start_lease(Arc::clone(&self.inner), health)
    }

    /// Verifies every hash chain from its first record; returns the numbers of records and events.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names the first record that is damaged.
    pub async fn verify_chains(&self) -> Result<(u64, u64), LogError> {
        let found = verify_log(self, false).await?;
        Ok((found.records, found.events))
    }

    fn follower(&self) -> &Arc<LogFollower> {
        self.follower.get_or_init(|| LogFollower::start(Arc::clone(&self.inner)))
    }

    /// Returns the follower once its wake index covers everything that was acknowledged before this
    /// call.
    async fn current_wake_index(&self) -> Result<&LogFollower, LogError> {
        let tail = self.inner.tail_position().await?;
        let follower = self.follower();
        follower.wait_until_applied(tail).await?;
        Ok(follower)
    }
}

/// Background task of an open log: saves the marker and renews the durability proof.
async fn run_maintenance(inner: Arc<LogCore>, config: JetStreamConfig) {
    for round in 1_u64.. {
        if inner.sleep_unless_closed(MARKER_INTERVAL).await.is_err() {
            return;
        }
        if let Err(error) = inner.save_ack_marker().await {
            tracing::debug!(reason = error.0, "the witness is not written this time");
        }
        if round.is_multiple_of(PROOF_INTERVAL_ROUNDS) {
            renew_proof(&inner, &config).await;
        }
    }
}

/// Proves the cluster's durability again: a server may have been restarted with other settings.
async fn renew_proof(inner: &LogCore, config: &JetStreamConfig) {
    let Ok(Some(info)) = inner.api.stream_info(&inner.names.log).await else { return };
    let servers = durability_proof::replica_peers(&inner.api, &info).len();
    // Silence is tolerated here: the cluster was proven to be closed when the log was opened.
    let proof = match cluster_security::examine_cluster(&inner.api, config, servers).await {
        Ok(SecurityFinding::Open(reason)) => DurabilityProof::from_refusal(reason),
        _ => durability_proof::prove_durability(&inner.api, &info)
            .await
            .unwrap_or_else(|error| DurabilityProof::from_refusal(error.to_string())),
    };
    let known = inner.proof.send_replace(proof.clone());
    if known != proof {
        // Logged on changes only; appends fail by `check_durability` meanwhile.
        let (durability, reason) = (proof.durability.as_str(), proof.reason);
        tracing::warn!(durability, reason, "what the log's cluster promises has changed");
    }
}

#[async_trait]
impl LogReader for JetStreamLog {
    async fn stream_head(&self, stream: &StreamKey) -> Result<Option<StreamHead>, LogError> {
        self.inner.read_head(stream).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        self.inner.read_stream(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<RecordPage, LogError> {
        self.inner.read_all(after, limit).await
    }

    async fn read_raw(&self, scan: RawScan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        match scan {
            RawScan::All(after) => self.inner.read_all_raw(after, limit).await,
            RawScan::Stream(stream, after) => {
                self.inner.read_stream_raw(stream, after, limit).await
            }
        }
    }

    fn tail_all(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let follower = Arc::clone(self.follower());
        let failure = failure_stream(Arc::clone(&follower));
        let Some(live) = follower.subscribe() else { return failure };
        let inner = Arc::clone(&self.inner);
        let read = Arc::new(move |after, limit| {
            let (inner, follower) = (Arc::clone(&inner), Arc::clone(&follower));
            let page = async move { read_page_retrying(&inner, &follower, after, limit).await };
            Box::pin(page) as BoxFuture<'static, _>
        });
        tail::follow_log(read, live, after).chain(failure).boxed()
    }

    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let follower = Arc::clone(self.follower());
        let Some(live) = follower.subscribe_stream(stream) else { return failure_stream(follower) };
        let (inner, stream) = (Arc::clone(&self.inner), stream.clone());
        let read = Box::new(move |after, limit| {
            let (inner, stream) = (Arc::clone(&inner), stream.clone());
            let page = async move { read_stream_retrying(&inner, &stream, after, limit).await };
            Box::pin(page) as BoxFuture<'static, _>
        });
        follow_stream(read, live, after).chain(failure_stream(follower)).boxed()
    }
}

#[async_trait]
impl PayloadReader for JetStreamLog {
    async fn open_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        self.inner.open_payload(stream, reference).await
    }
}

#[async_trait]
impl WakeIndex for JetStreamLog {
    async fn due_streams(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        Ok(self.current_wake_index().await?.due_streams(now, limit))
    }

    async fn next_due_time(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        Ok(self.current_wake_index().await?.next_due_time(now))
    }
}

#[async_trait]
impl EventLog for JetStreamLog {
    fn durability(&self) -> Durability {
        self.durability.min(self.inner.proof.borrow().durability)
    }

    fn export_signer(&self) -> Option<ExportSigner> {
        Some(ExportSigner::from_master_key(&self.inner.keys))
    }

    async fn close(&self) -> Result<(), LogError> {
        if self.inner.closed.send_replace(true) {
            return Ok(());
        }
        if let Err(error) = self.inner.save_ack_marker().await {
            tracing::debug!(reason = error.0, "the witness is not written");
        }
        // The client closes its connection when its last clone is dropped.
        let _flushed = self.inner.api.client.flush().await;
        Ok(())
    }
}

#[async_trait]
impl LogWriter for JetStreamLog {
    async fn append(&self, commit: Commit) -> Result<StreamHead, AppendError> {
        let prepared = prepare_commit(commit, &self.inner.keys)?;
        self.inner.append_commit(prepared, self.required_durability).await
    }

    async fn check_writable(&self) -> Result<(), AppendError> {
        self.inner.check_open()?;
        self.inner.check_durability(self.required_durability)?;
        let failure = self.follower.get().and_then(|follower| follower.failure());
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        self.inner.erase_payload(stream, reference).await
    }

    async fn restore_record(&self, archived: ArchivedRecord) -> Result<StreamHead, AppendError> {
        self.inner.append_commit(archived.into_prepared(), self.required_durability).await
    }
}

/// Ends a tail with the failure of its follower, if that has failed.
fn failure_stream(follower: Arc<LogFollower>) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    stream::iter(std::iter::from_fn(move || follower.failure()).take(1)).map(Err).boxed()
}

/// Reads a stream for a tail, which outlives every outage: an unavailable log is read again.
async fn read_stream_retrying(
    inner: &LogCore,
    stream: &StreamKey,
    after: Seq,
    limit: usize,
) -> Result<Vec<Arc<Record>>, LogError> {
    loop {
        match inner.read_stream(stream, after, limit).await {
            Err(LogError::Unavailable(reason)) => {
                tracing::warn!(reason, "a stream of the log cannot be followed for now");
                inner.sleep_unless_closed(TAIL_RETRY_DELAY).await?;
            }
            records => return records,
        }
    }
}

/// Reads a page for a tail, which outlives every outage. The page holds at least the records that
/// the follower has passed on: it may receive a record a moment before the leader that is read from
/// has applied it.
async fn read_page_retrying(
    inner: &LogCore,
    follower: &LogFollower,
    after: Position,
    limit: usize,
) -> Result<RecordPage, LogError> {
    loop {
        // Reading up to the follower's position first makes the page at least as new as its feed.
        let given = follower.applied_position();
        let there =
            if given > after { inner.message_from_leader(given).await.map(drop) } else { Ok(()) };
        let page = match there {
            Ok(()) => inner.read_all(after, limit).await,
            Err(error) => Err(error),
        };
        match page {
            Err(LogError::Unavailable(reason)) => {
                tracing::warn!(reason, "the log cannot be followed for now");
                inner.sleep_unless_closed(TAIL_RETRY_DELAY).await?;
            }
            page => return page,
        }
    }
}
