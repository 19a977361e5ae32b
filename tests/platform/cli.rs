//! The command line: what it accepts, what it says when something is wrong, how it ends.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::harness::{BINARY, Server, convergio, repository, text};

#[test]
fn bad_manifests_are_refused_with_every_mistake_and_nothing_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad.yaml");
    std::fs::write(&bad, "name: A\nnodes:\n  - {id: x, slep: 1s}\n").expect("writable");
    let bad = bad.to_str().expect("a path");
    let data = folder.path().join("data");
    let validated = convergio(&data, &["graph", "validate", bad]);
    assert_eq!(validated.status.code(), Some(2));
    let said = text(&validated.stdout);
    assert!(said.contains("bad.yaml:1:") && said.contains("bad.yaml:3:"), "{said}");
    assert!(said.contains("did you mean `sleep`"), "{said}");
    assert_eq!(convergio(&data, &["graph", "run", bad]).status.code(), Some(2));
    assert!(!data.exists(), "nothing was stored");
}

#[tokio::test]
async fn the_server_refuses_bad_manifests_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let http = convergio_executor::provider::http_client().expect("a client");
    let token = std::fs::read_to_string(folder.path().join("token")).expect("a token");
    for bad in ["name: [", "name: a\nnodes: [{id: x, branch: {if: '1 +', then: x}}]", ""] {
        let request = http.post(format!("{}/v1/graphs", server.url)).bearer_auth(token.trim());
        let answer = request.body(bad).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 400);
        let problem: Value = answer.json().await.expect("a problem");
        assert_eq!(problem["code"], "graph.invalid");
        assert!(problem["mistakes"][0]["line"].as_u64() >= Some(1), "{problem}");
    }
    assert_eq!(server.get("/v1/graphs").await["items"], Value::Array(Vec::new()));
}

#[test]
fn a_graph_runs_without_a_server_and_its_output_is_all_that_stdout_gets() {
    let folder = tempfile::tempdir().expect("a folder");
    let example = repository("examples/parallel.yaml");
    let ran = convergio(folder.path(), &["graph", "run", example.to_str().expect("a path")]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert_eq!(text(&ran.stdout).trim(), "42925");
    let listed = convergio(folder.path(), &["runs", "list", "--json"]);
    let page: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(page["items"][0]["status"], "completed");
}

#[test]
fn a_second_process_on_the_folder_is_told_who_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let _server = Server::start(folder.path());
    let second = convergio(folder.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(3));
    let said = text(&second.stderr);
    assert!(said.contains("another convergio process (pid"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_port_that_is_taken_is_one_clear_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let served = convergio(folder.path(), &["serve", "--listen", &address]);
    assert_eq!(served.status.code(), Some(3));
    let said = text(&served.stderr);
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}

#[test]
fn a_folder_that_cannot_be_used_is_one_clear_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("writable");
    let served = convergio(&file.join("data"), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(served.status.code(), Some(3));
    let said = text(&served.stderr);
    assert!(said.contains("cannot use the data folder"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn the_token_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let _server = Server::start(folder.path());
    for file in ["token", "payload.key"] {
        let mode = std::fs::metadata(folder.path().join(file)).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn every_command_has_an_example() {
    for command in [
        "serve",
        "graph validate",
        "graph run",
        "runs list",
        "runs show",
        "runs events",
        "runs tail",
        "runs cancel",
        "runs pause",
        "runs resume",
        "runs signal",
        "runs retry",
        "runs resolve",
        "runs fork",
        "runs diff",
        "runs state",
        "runs checkpoints save",
        "runs checkpoints list",
        "runs checkpoints drop",
        "runs export",
        "runs import",
        "runs migrate",
        "runs debug",
        "crash-test",
        "bench replay",
        "replay",
        "approvals list",
        "approvals answer",
        "ledger",
        "usage",
        "audit",
        "models list",
        "models install",
        "models up",
        "models trust",
        "tokens new",
        "tokens rotate",
        "tokens revoke",
        "trust",
        "projections rebuild",
        "projections check",
        "log verify",
        "doctor",
        "bench steps",
        "bench resume",
        "bench waiting",
        "demo",
    ] {
        let mut help = Command::new(BINARY);
        let help = help.args(command.split(' ')).arg("--help").output().expect("it runs");
        assert!(text(&help.stdout).contains("Example:\n"), "{command}");
    }
}

#[test]
fn listings_take_only_what_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    for (command, words) in [
        (&["runs", "list", "--status", "finished"], ["finished", "completed"]),
        (&["runs", "list", "--limit", "0"], ["--limit", "1 to 1000"]),
        (&["runs", "list", "--statu", "failed"], ["--statu", "--status"]),
    ] {
        let refused = convergio(folder.path(), command);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{command:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}
