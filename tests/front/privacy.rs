//! Privacy `local` in a network of its own, whose only way out counts its packets.

use std::process::Command;

use convergio_test_support::kept_output;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::upstream::Upstream;

const CHAT: &str = "/openai/v1/chat/completions";
/// A network with a loopback and a way out that leads nowhere.
const NETWORK: &str = "ip link set lo up && ip link add out0 type veth peer name in0 \
    && echo 1 > /proc/sys/net/ipv6/conf/out0/disable_ipv6 \
    && echo 1 > /proc/sys/net/ipv6/conf/in0/disable_ipv6 \
    && ip addr add 10.99.0.1/24 dev out0 && ip link set in0 up && ip link set out0 up \
    && ip route add default via 10.99.0.2 && exec \"$0\" \"$@\"";

/// Clouds by address and by name, and a proxy: each would be a packet on the way out.
const CLOUDS: [(&str, &str); 6] = [
    ("OPENAI_BASE_URL", "https://203.0.113.7/v1"),
    ("ANTHROPIC_API_KEY", "canary"),
    ("GEMINI_API_KEY", "canary"),
    ("HTTPS_PROXY", "http://203.0.113.9:3128"),
    ("HTTP_PROXY", "http://203.0.113.9:3128"),
    ("ALL_PROXY", "http://203.0.113.9:3128"),
];

fn packets_out() -> u64 {
    let devices = std::fs::read_to_string("/proc/self/net/dev").expect("told");
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("out0:"));
    let sent = line.expect("the way out").split_whitespace().nth(9).expect("a count");
    sent.parse().expect("a number")
}

fn chat(model: &str) -> Value {
    json!({"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]})
}

#[test]
fn not_one_packet_leaves_the_machine() {
    let trial = "ip link add out0 type veth peer name in0";
    let can = Command::new("unshare").args(["-rn", "sh", "-c", trial]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this machine gives no network of one's own");
        return;
    }
    let test = std::env::current_exe().expect("a path");
    let output = Command::new("unshare")
        .args(["-rn", "sh", "-c", NETWORK])
        .arg(test)
        .args(["privacy::inside", "--exact", "--ignored", "--nocapture"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{errors}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs within the network that the test above makes"]
async fn inside() {
    let upstream = Upstream::start().await;
    let mut held = CLOUDS.to_vec();
    held.push(("CONVERGIO_PRIVACY", "local"));
    let server = Server::with(&upstream.url, &held);
    for model in ["auto", "local", "local/fix", "fix"] {
        let response = server.post(CHAT, &chat(model)).await;
        assert_eq!(response.status().as_u16(), 200, "{model}: {:?}", response.text().await);
    }
    for model in ["openai", "openai/gpt-6-sol", "anthropic/claude-opus-5", "gemini/gemini-x"] {
        assert_eq!(server.post(CHAT, &chat(model)).await.status().as_u16(), 403, "{model}");
    }
    let listed = server.get("/openai/v1/models").await;
    let listed = listed["data"].as_array().expect("a list");
    assert!(!listed.is_empty() && listed.iter().all(|model| model["owned_by"] == "local"));
    drop(server);
    // The same by the tenant's policy alone, and by a request's own word.
    let data = kept_output::create_folder();
    std::fs::write(data.path().join("privacy.json"), r#"{"default": "local"}"#).expect("written");
    let server = Server::on(data, &upstream.url, &CLOUDS);
    assert_eq!(server.post(CHAT, &chat("auto")).await.status().as_u16(), 200);
    assert_eq!(server.post(CHAT, &chat("openai/gpt-6-sol")).await.status().as_u16(), 403);
    drop(server);
    let server = Server::with(&upstream.url, &CLOUDS);
    let private = ("x-convergio-privacy", "local");
    assert_eq!(server.post_as(CHAT, &chat("auto"), private).await.status().as_u16(), 200);
    let denied = server.post_as(CHAT, &chat("anthropic/claude-opus-5"), private).await;
    assert_eq!(denied.status().as_u16(), 403);
    drop(server);
    assert_eq!(packets_out(), 0);
    // The counter counts: without privacy the same call knocks at the cloud.
    let server = Server::with(&upstream.url, &CLOUDS);
    assert_ne!(server.post(CHAT, &chat("openai/gpt-6-sol")).await.status().as_u16(), 200);
    assert!(packets_out() > 0);
}
