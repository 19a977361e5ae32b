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

use super::api::Api;
use super::streams::no_answer;
use crate::error::LogError;
use crate::log::Durability;

/// Minimum version of nats-server. Earlier ones ignored `sync_interval: always` in compaction, and
/// had no group sync for replicated streams.
const LEAST_VERSION: [u32; 3] = [2, 15, 1];
const SETTINGS: &str = "$SYS.REQ.SERVER.PING.JSZ";
/// Time to wait for the slowest server's reply.
pub(super) const WAIT: Duration = Duration::from_secs(2);

/// A server's reply to the request for its JetStream settings.
#[derive(Debug, Clone, Deserialize)]
struct Answer {
    server: Server,
    data: Data,
}

#[derive(Debug, Clone, Deserialize)]
struct Server {
    name: String,
    ver: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Data {
    #[serde(default)]
    config: Settings,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Settings {
    #[serde(default)]
    sync_always: bool,
}

/// Proven durability, and what prevents a higher one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) durability: Durability,
    pub(super) reason: String,
    /// True if nothing may be written, whatever durability is required.
    pub(super) is_refused: bool,
}

impl Proof {
    /// Builds the proof that refuses writes, because the cluster has changed since it was opened.
    pub(super) fn refusal(reason: String) -> Self {
        Self { durability: Durability::Process, reason, is_refused: true }
    }
}

/// Asks every server with a replica of the log, and derives the durability.
pub(super) async fn prove(api: &Api, log: &Info) -> Result<Proof, LogError> {
    let peers = peers(api, log);
    let expected: Vec<String> =
        peers.iter().filter(|(_, up)| **up).map(|(n, _)| n.clone()).collect();
    let all_answered = |answers: &[Bytes]| {
        let answers = read(answers);
        expected.iter().all(|peer| answers.iter().any(|answer| answer.server.name == *peer))
    };
    let answers = api.ask_all(SETTINGS, WAIT, all_answered).await.map_err(no_answer)?;
    judge(&peers, log.config.num_replicas, &read(&answers))
}

/// Lists the servers with a replica, and whether each is online.
pub(super) fn peers(api: &Api, log: &Info) -> BTreeMap<String, bool> {
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

fn read(answers: &[Bytes]) -> Vec<Answer> {
    answers.iter().filter_map(|answer| serde_json::from_slice(answer).ok()).collect()
}

fn judge(
    peers: &BTreeMap<String, bool>,
    replicas: usize,
    answers: &[Answer],
) -> Result<Proof, LogError> {
    let of_peers: Vec<&Answer> =
        answers.iter().filter(|answer| peers.contains_key(&answer.server.name)).collect();
    for answer in &of_peers {
        let Server { name, ver } = &answer.server;
        if version(ver).is_none_or(|version| version < LEAST_VERSION) {
            let [major, minor, patch] = LEAST_VERSION;
            return Err(LogError::Unavailable(format!(
                "nats-server {name} has version {ver}: at least {major}.{minor}.{patch} is needed"
            )));
        }
    }
    let proof = |durability, reason: String| Ok(Proof { durability, reason, is_refused: false });
    let process = |reason: String| proof(Durability::Process, reason);
    // One lax server is enough to doubt: it may be part of the quorum that acknowledges.
    if let Some(lax) = of_peers.iter().find(|answer| !answer.data.config.sync_always) {
        let name = &lax.server.name;
        return process(format!("nats-server {name} runs without `sync_interval: always`"));
    }
    // Replies of a majority are required: fewer could not vouch for a quorum of replicas.
    if of_peers.len() * 2 <= peers.len() {
        return process(format!(
            "{} of {} servers told their settings: import {SETTINGS} as in deploy/nats/",
            of_peers.len(),
            peers.len()
        ));
    }
    match replicas {
        0..=2 => proof(Durability::Fsync, "the log has one copy".into()),
        _ => proof(Durability::QuorumFsync, String::new()),
    }
}

fn version(text: &str) -> Option<[u32; 3]> {
    let numbers = text.split(['-', '+']).next()?;
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Answer, Data, Server, Settings, judge};
    use crate::log::Durability;

    fn answer(name: &str, ver: &str, sync_always: bool) -> Answer {
        let server = Server { name: name.into(), ver: ver.into() };
        Answer { server, data: Data { config: Settings { sync_always } } }
    }

    fn of_three() -> BTreeMap<String, bool> {
        ["a", "b", "c"].map(|name| (name.to_owned(), true)).into()
    }

    #[test]
    fn a_majority_that_syncs_is_a_quorum() {
        let two = [answer("a", "2.15.1", true), answer("b", "2.16.0-dev", true)];
        assert_eq!(judge(&of_three(), 3, &two).unwrap().durability, Durability::QuorumFsync);
        assert_eq!(judge(&of_three(), 3, &two[..1]).unwrap().durability, Durability::Process);
        let one = [("a".to_owned(), true)].into();
        assert_eq!(judge(&one, 1, &two).unwrap().durability, Durability::Fsync);
    }

    #[test]
    fn one_lax_or_old_server_is_enough_to_doubt() {
        let lax = [answer("a", "2.15.1", true), answer("b", "2.15.1", false)];
        let proof = judge(&of_three(), 3, &lax).unwrap();
        assert_eq!(proof.durability, Durability::Process);
        assert!(proof.reason.contains("b runs without"), "{proof:?}");
        for old in ["2.14.9", "2.15.0", "2.9.10", "x"] {
            let old = [answer("a", old, true)];
            assert!(judge(&of_three(), 3, &old).unwrap_err().to_string().contains("2.15.1"));
        }
        let stranger = [answer("z", "2.1.0", false)];
        assert_eq!(judge(&of_three(), 3, &stranger).unwrap().durability, Durability::Process);
    }
}
