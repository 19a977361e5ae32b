//! Checks that strangers are kept out of the cluster, from its servers' own settings.
//!
//! A server that joins the cluster is subject to no permission: it may read, forge and delete. So
//! every listener must demand certificates and encryption. The account must import the service that
//! reports the settings (`deploy/nats/`).

use async_nats::ServerInfo;
use bytes::Bytes;
use serde::Deserialize;

use super::api::{ClusterApi, NoAnswerError};
use super::config::JetStreamConfig;
use super::durability_proof::REPLY_TIMEOUT;
use crate::error::LogError;

const SETTINGS_SUBJECT: &str = "$SYS.REQ.SERVER.PING.VARZ";
/// Advice at the end of each refusal.
const REMEDY: &str =
    "as in deploy/nats/server.conf, or give --insecure-cluster if all servers are on one machine";

/// A server's reply to the request for its settings.
#[derive(Debug, Default, Deserialize)]
struct SecurityReply {
    server: ReplyingServer,
    data: ListenerSettings,
}

#[derive(Debug, Default, Deserialize)]
struct ReplyingServer {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListenerSettings {
    tls_required: bool,
    cluster: RouteListener,
    gateway: PortListener,
    leaf: PortListener,
    websocket: PortListener,
    mqtt: PortListener,
}

/// Listener for other servers of the cluster; port 0 if it is off.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RouteListener {
    cluster_port: u16,
    tls_required: bool,
    tls_verify: bool,
}

/// Any other listener; port 0 if it is off.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PortListener {
    port: u16,
    tls_required: bool,
    tls_verify: bool,
}

/// Result of the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecurityFinding {
    /// Strangers are kept out.
    Shut,
    /// Strangers can enter: one line that says what to set.
    Open(String),
    /// Too few servers replied: one line that says what to set.
    Silent(String),
}

impl SecurityFinding {
    /// Returns an error unless the cluster is shut.
    pub(super) fn require_shut(self) -> Result<(), LogError> {
        match self {
            Self::Shut => Ok(()),
            Self::Open(reason) | Self::Silent(reason) => Err(LogError::Unavailable(reason)),
        }
    }
}

/// Asks all servers for their settings; more than half of `servers` must reply.
pub(super) async fn examine_cluster(
    api: &ClusterApi,
    config: &JetStreamConfig,
    servers: usize,
) -> Result<SecurityFinding, NoAnswerError> {
    if is_exempt(config, &api.client.server_info()) {
        return Ok(SecurityFinding::Shut);
    }
    let answers = api
        .request_all(SETTINGS_SUBJECT, REPLY_TIMEOUT, |answers| {
            parse_replies(answers).len() >= servers
        })
        .await?;
    Ok(judge_replies(&parse_replies(&answers), servers))
}

/// Returns whether the check is skipped: by configuration, or for a single development server that
/// is reachable from this machine only.
fn is_exempt(config: &JetStreamConfig, server: &ServerInfo) -> bool {
    config.insecure_cluster || (server.cluster.is_none() && config.address.is_loopback())
}

fn parse_replies(answers: &[Bytes]) -> Vec<SecurityReply> {
    answers.iter().filter_map(|answer| serde_json::from_slice(answer).ok()).collect()
}

fn judge_replies(answers: &[SecurityReply], servers: usize) -> SecurityFinding {
    for SecurityReply { server, data } in answers {
        if let Some(fault) = data.find_fault() {
            return SecurityFinding::Open(format!("nats-server {} {fault} {REMEDY}", server.name));
        }
    }
    // After the faults: one open server is enough, even if most servers are silent.
    if answers.len() * 2 > servers {
        return SecurityFinding::Shut;
    }
    SecurityFinding::Silent(format!(
        "{} of {servers} servers told how they keep strangers out: import {SETTINGS_SUBJECT} \
         {REMEDY}",
        answers.len()
    ))
}

impl ListenerSettings {
    /// Returns the first listener that admits strangers, and what to set.
    fn find_fault(&self) -> Option<&'static str> {
        let Self { tls_required, cluster, gateway, leaf, websocket, mqtt } = self;
        let is_mutual = |tls_required: bool, tls_verify: bool| tls_required && tls_verify;
        // Servers first: a forged server outweighs every client permission.
        if cluster.cluster_port != 0 && !is_mutual(cluster.tls_required, cluster.tls_verify) {
            return Some(
                "lets any server join its cluster: set authorization and tls { verify: true } \
                 under `cluster`",
            );
        }
        if gateway.port != 0 && !is_mutual(gateway.tls_required, gateway.tls_verify) {
            return Some(
                "lets any cluster join it: set authorization and tls { verify: true } under \
                 `gateway`",
            );
        }
        if !tls_required {
            return Some("lets clients speak in clear: set `tls`, without allow_non_tls,");
        }
        if leaf.port != 0 && !leaf.tls_required {
            return Some("lets leaf nodes speak in clear: set tls under `leafnodes`");
        }
        if websocket.port != 0 || mqtt.port != 0 {
            return Some(
                "listens for WebSocket or MQTT, and does not tell how: leave `websocket` and \
                 `mqtt` out",
            );
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{SecurityFinding, judge_replies, parse_replies};

    fn of_three(settings: &[Value]) -> SecurityFinding {
        let answer = |data| json!({"server": {"name": "n"}, "data": data}).to_string().into();
        let answers: Vec<_> = settings.iter().map(answer).collect();
        judge_replies(&parse_replies(&answers), 3)
    }

    fn shut() -> Value {
        json!({
            "tls_required": true, "gateway": {}, "leaf": {}, "websocket": {}, "mqtt": {},
            "cluster": {"cluster_port": 6222, "tls_required": true, "tls_verify": true},
        })
    }

    #[test]
    fn one_way_in_is_enough() {
        assert_eq!(of_three(&[shut(), shut()]), SecurityFinding::Shut);
        for (way, settings, told) in [
            ("cluster", json!({"cluster_port": 1}), "under `cluster`"),
            ("cluster", json!({"cluster_port": 1, "tls_required": true}), "under `cluster`"),
            ("gateway", json!({"port": 1, "tls_required": true}), "under `gateway`"),
            ("tls_required", json!(false), "set `tls`"),
            ("leaf", json!({"port": 1}), "under `leafnodes`"),
            ("websocket", json!({"port": 1}), "leave `websocket`"),
            ("mqtt", json!({"port": 1}), "leave `websocket`"),
        ] {
            let mut open = shut();
            open[way] = settings;
            let SecurityFinding::Open(line) = of_three(&[shut(), open.clone(), shut()]) else {
                panic!("{open}");
            };
            assert!(line.contains(told) && line.contains("--insecure-cluster"), "{line}");
        }
    }

    #[test]
    fn silence_of_most_is_told() {
        let SecurityFinding::Silent(line) = of_three(&[shut()]) else { panic!() };
        assert!(line.contains("1 of 3") && line.contains("PING.VARZ"), "{line}");
    }
}
