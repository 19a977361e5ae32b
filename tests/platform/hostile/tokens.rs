//! Tokens that were taken away, names that are the platform's, and a token that nobody should see.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{BINARY, Server, convergio, text};

/// A graph that waits, so that there is something to follow.
const WAITING: &str = "name: waiting\nnodes:\n  - {id: wait, signal: go}\n";

fn new_token(data: &Path, name: &str) -> String {
    let made = convergio(data, &["tokens", "new", name, "--role", "teacher"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let token = text(&made.stdout).trim().to_owned();
    assert!(token.starts_with("cvg_") && token.len() == 68, "the token alone is on stdout");
    token
}

async fn status(server: &Server, token: &str) -> u16 {
    let http = convergio_executor::provider::http_client().expect("a client");
    let asked = http.get(format!("{}/v1/runs", server.url)).bearer_auth(token).send();
    asked.await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn revoked_means_now_and_ends_what_is_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let token = new_token(folder.path(), "mallory");
    assert_eq!(status(&server, &token).await, 200, "no restart is needed");
    let http = convergio_executor::provider::http_client().expect("a client");
    let post = |path: String, body: String| {
        http.post(format!("{}{path}", server.url)).bearer_auth(&token).body(body)
    };
    let graph = post("/v1/graphs".into(), WAITING.into()).send().await.expect("an answer");
    let graph: Value = graph.json().await.expect("JSON");
    let graph = graph["id"].as_str().unwrap_or_else(|| panic!("{graph}")).to_owned();
    let (_, run) = server.execute(&graph, &json!({}), None).await;
    let run = run["run_id"].as_str().unwrap_or_else(|| panic!("{run}")).to_owned();
    let events = http.get(format!("{}/v1/runs/{run}/events", server.url)).bearer_auth(&token);
    let events = events.header("accept", "text/event-stream").send().await.expect("an answer");
    assert_eq!(events.status().as_u16(), 200);
    let revoked = convergio(folder.path(), &["tokens", "revoke", "mallory"]);
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    assert_eq!(status(&server, &token).await, 401);
    // The run waits for ever: only the revocation ends the stream.
    let heard = events.text().await.expect("it ends");
    assert!(heard.contains("run.created.v1"), "{heard}");
    let listed = convergio(folder.path(), &["tokens", "list", "--json"]);
    let page: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let actors: Vec<&str> = page["items"]
        .as_array()
        .expect("a page")
        .iter()
        .map(|token| token["actor"].as_str().expect("a name"))
        .collect();
    assert_eq!(actors, ["owner"]);
    server.wait_until_ready().await;
    let audit = server.get("/v1/audit?limit=100").await.to_string();
    assert!(audit.contains("token.issued.v1") && audit.contains("token.revoked.v1"), "{audit}");
    assert!(!audit.contains(token.trim_start_matches("cvg_")), "{audit}");
    drop(server);
    let server = Server::start(folder.path());
    assert_eq!(status(&server, &token).await, 401, "for ever");
}

#[test]
fn nobody_acts_under_a_name_of_the_platform() {
    let folder = tempfile::tempdir().expect("a folder");
    let _server = Server::start(folder.path());
    for name in ["executor", "fork", "owner", "convergio", "system"] {
        let refused = convergio(folder.path(), &["tokens", "new", name, "--role", "teacher"]);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(&format!("`{name}` is a name of the platform")), "{said}");
    }
}

#[test]
fn the_owners_token_is_not_printed_and_its_place_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .env("CONVERGIO_MODEL_URL", "http://127.0.0.1:9")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut said = String::new();
    let mut output = BufReader::new(server.stdout.take().expect("piped"));
    while !said.contains("curl") {
        assert!(output.read_line(&mut said).expect("readable") > 0, "{said}");
    }
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    server.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    let file = folder.path().join("token");
    let token = std::fs::read_to_string(&file).expect("a token");
    assert!(said.contains(file.to_str().expect("a path")), "{said}");
    assert!(!said.contains(token.trim().trim_start_matches("cvg_")), "{said}");
}

#[tokio::test]
async fn a_rotated_token_opens_nothing_and_the_new_one_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let owner = || {
        let token = std::fs::read_to_string(folder.path().join("token")).expect("a token");
        token.trim().to_owned()
    };
    let old = owner();
    let rotated = convergio(folder.path(), &["tokens", "rotate"]);
    assert!(rotated.status.success(), "{}", text(&rotated.stderr));
    let said = text(&rotated.stdout) + &text(&rotated.stderr);
    assert!(!said.contains(owner().trim_start_matches("cvg_")), "{said}");
    assert_eq!((status(&server, &old).await, status(&server, &owner()).await), (401, 200));
    let ann = new_token(folder.path(), "ann");
    let rotated = convergio(folder.path(), &["tokens", "rotate", "ann"]);
    let new = text(&rotated.stdout).trim().to_owned();
    assert_eq!((status(&server, &ann).await, status(&server, &new).await), (401, 200));
    drop(server);
    let server = Server::start(folder.path());
    assert_eq!((status(&server, &old).await, status(&server, &owner()).await), (401, 200));
    assert_eq!((status(&server, &ann).await, status(&server, &new).await), (401, 200));
    // A token that was put back from a copy stays revoked.
    drop(server);
    std::fs::write(folder.path().join("token"), format!("{old}\n")).expect("written");
    let server = Server::start(folder.path());
    assert_eq!((status(&server, &old).await, status(&server, &owner()).await), (401, 200));
}

#[test]
fn tokens_of_an_earlier_program_open_what_they_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let hash = convergio_domain::token::TokenHash::from_token("cvg_ann");
    let tokens = json!([{"actor": "ann", "roles": ["teacher"], "blake3": hash.to_string()}]);
    std::fs::write(folder.path().join("tokens.json"), tokens.to_string()).expect("written");
    let file = folder.path().join("ann.token");
    std::fs::write(&file, "cvg_ann").expect("written");
    let file = file.to_str().expect("a path");
    let listed = convergio(folder.path(), &["--token-file", file, "runs", "list"]);
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    assert!(text(&listed.stderr).contains("tokens.json.old"), "{}", text(&listed.stderr));
    assert!(convergio(folder.path(), &["tokens", "revoke", "ann"]).status.success());
    let refused = convergio(folder.path(), &["--token-file", file, "runs", "list"]);
    assert!(text(&refused.stderr).contains("auth.invalid"), "{}", text(&refused.stderr));
}
