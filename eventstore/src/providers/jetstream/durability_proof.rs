//! Proof of the durability of the cluster's acknowledgements, from its servers' own settings.
//!
//! JetStream acknowledges before it syncs unless `sync_interval` is `always`. Each server with a
//! replica is asked for its setting; the account must import the service that replies
//! (`deploy/nats/`).

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use bytes::Bytes;
use serde::Deserialize;

use super::api::ClusterApi;
use super::streams::unanswered_error;
use crate::error::LogError;
use crate::log::Durability;

/// Minimum version of nats-server. Earlier ones ignored `sync_interval: always` in compaction, and
/// had no group sync for replicated streams.
const MINIMUM_VERSION: [u32; 3] = [2, 15, 1];
const SETTINGS_SUBJECT: &str = "$SYS.REQ.SERVER.PING.JSZ";
/// Time to wait for the slowest server's reply.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// A server's reply to the request for its JetStream settings.
#[derive(Debug, Clone, Deserialize)]
struct DurabilityReply {
    server: VersionedServer,
    data: DurabilityData,
}

#[derive(Debug, Clone, Deserialize)]
struct VersionedServer {
    name: String,
    ver: String,
}

#[derive(Debug, Clone, Deserialize)]
struct DurabilityData {
    #[serde(default)]
    config: SyncSettings,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct SyncSettings {
    #[serde(default)]
    sync_always: bool,
}

/// Proven durability, and what prevents a higher one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DurabilityProof {
    pub(super) durability: Durability,
    pub(super) reason: String,
    /// True if nothing may be written, whatever durability is required.
    pub(super) is_refused: bool,
}

impl DurabilityProof {
    /// Builds the proof that refuses writes, because the cluster has changed since it was opened.
    pub(super) fn from_refusal(reason: String) -> Self {
        Self { durability: Durability::Process, reason, is_refused: true }
    }
}

/// Asks every server with a replica of the log, and derives the durability.
pub(super) async fn prove_durability(
    api: &ClusterApi,
    log: &Info,
) -> Result<DurabilityProof, LogError> {
    let peers = replica_peers(api, log);
    let expected: Vec<String> =
        peers.iter().filter(|(_, up)| **up).map(|(n, _)| n.clone()).collect();
    let all_answered = |answers: &[Bytes]| {
        let answers = parse_replies(answers);
        expected.iter().all(|peer| answers.iter().any(|answer| answer.server.name == *peer))
    };
    let answers = api
        .request_all(SETTINGS_SUBJECT, REPLY_TIMEOUT, all_answered)
        .await
        .map_err(unanswered_error)?;
    judge_replies(&peers, log.config.num_replicas, &parse_replies(&answers))
}

/// Lists the servers with a replica, and whether each is online.
pub(super) fn replica_peers(api: &ClusterApi, log: &Info) -> BTreeMap<String, bool> {
    let Some(cluster) = &log.cluster else {
        return [(api.client.server_info().server_name, true)].into();
    };
    let leader = cluster.leader.clone().filter(|name| !name.is_empty());
    let mut peers: BTreeMap<String, bool> =
        cluster.replicas.iter().map(|peer| (peer.name.clone(), !peer.offline)).collect();
    // JetStream lists followers as replicas; the leader is named apart.
    peers.extend(leader.map(|name| (name, true)));
    if peers.is_empty() {
        peers.insert(api.client.server_info().server_name, true);
    }
    peers
}

fn parse_replies(answers: &[Bytes]) -> Vec<DurabilityReply> {
    answers.iter().filter_map(|answer| serde_json::from_slice(answer).ok()).collect()
}

fn judge_replies(
    peers: &BTreeMap<String, bool>,
    replicas: usize,
    answers: &[DurabilityReply],
) -> Result<DurabilityProof, LogError> {
    let of_peers: Vec<&DurabilityReply> =
        answers.iter().filter(|answer| peers.contains_key(&answer.server.name)).collect();
    for answer in &of_peers {
        let VersionedServer { name, ver } = &answer.server;
        if parse_version(ver).is_none_or(|version| version < MINIMUM_VERSION) {
            let [major, minor, patch] = MINIMUM_VERSION;
            return Err(LogError::Unavailable(format!(
                "nats-server {name} has version {ver}: at least {major}.{minor}.{patch} is needed"
            )));
        }
    }
    let proof =
        |durability, reason: String| Ok(DurabilityProof { durability, reason, is_refused: false });
    let process = |reason: String| proof(Durability::Process, reason);
    // One lax server is enough to doubt: it may be part of the quorum that acknowledges.
    if let Some(lax) = of_peers.iter().find(|answer| !answer.data.config.sync_always) {
        let name = &lax.server.name;
        return process(format!("nats-server {name} runs without `sync_interval: always`"));
    }
    // Replies of a majority are required: fewer could not vouch for a quorum of replicas.
    if of_peers.len() * 2 <= peers.len() {
        return process(format!(
            "{} of {} servers told their settings: import {SETTINGS_SUBJECT} as in deploy/nats/",
            of_peers.len(),
            peers.len()
        ));
    }
    match replicas {
        0..=2 => proof(Durability::Fsync, "the log has one copy".into()),
        _ => proof(Durability::QuorumFsync, String::new()),
    }
}

fn parse_version(text: &str) -> Option<[u32; 3]> {
    let numbers = text.split(['-', '+']).next()?;
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{DurabilityData, DurabilityReply, SyncSettings, VersionedServer, judge_replies};
    use crate::log::Durability;

    fn answer(name: &str, ver: &str, sync_always: bool) -> DurabilityReply {
        let server = VersionedServer { name: name.into(), ver: ver.into() };
        DurabilityReply { server, data: DurabilityData { config: SyncSettings { sync_always } } }
    }

    fn of_three() -> BTreeMap<String, bool> {
        ["a", "b", "c"].map(|name| (name.to_owned(), true)).into()
    }

    #[test]
    fn a_majority_that_syncs_is_a_quorum() {
        let two = [answer("a", "2.15.1", true), answer("b", "2.16.0-dev", true)];
        assert_eq!(
            judge_replies(&of_three(), 3, &two).unwrap().durability,
            Durability::QuorumFsync
        );
        assert_eq!(
            judge_replies(&of_three(), 3, &two[..1]).unwrap().durability,
            Durability::Process
        );
        let one = [("a".to_owned(), true)].into();
        assert_eq!(judge_replies(&one, 1, &two).unwrap().durability, Durability::Fsync);
    }

    #[test]
    fn one_lax_or_old_server_is_enough_to_doubt() {
        let lax = [answer("a", "2.15.1", true), answer("b", "2.15.1", false)];
        let proof = judge_replies(&of_three(), 3, &lax).unwrap();
        assert_eq!(proof.durability, Durability::Process);
        assert!(proof.reason.contains("b runs without"), "{proof:?}");
        for old in ["2.14.9", "2.15.0", "2.9.10", "x"] {
            let old = [answer("a", old, true)];
            assert!(
                judge_replies(&of_three(), 3, &old).unwrap_err().to_string().contains("2.15.1")
            );
        }
        let stranger = [answer("z", "2.1.0", false)];
        assert_eq!(
            judge_replies(&of_three(), 3, &stranger).unwrap().durability,
            Durability::Process
        );
    }
}
