//! The SDKs of OpenAI and Anthropic, as their users have them, at the doors.

use std::process::Command;

use crate::harness::Server;
use crate::upstream::Upstream;

/// A Python with both SDKs, as `make test` sets it up; tests that need one are skipped without it.
fn python() -> Option<String> {
    std::env::var("CONVERGIO_TEST_SDKS").ok().filter(|path| !path.is_empty())
}

fn run(script: &str, server: &Server, model: &str) {
    let Some(python) = python() else {
        eprintln!("skipped: CONVERGIO_TEST_SDKS names no Python with the SDKs");
        return;
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/front");
    let output = Command::new(python)
        .arg(format!("{folder}/{script}"))
        .args([&server.url, &server.token, model])
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_sdk_works_in_front_of_a_fixture() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    tokio::task::block_in_place(|| run("sdk_openai.py", &server, "local/fix"));
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropics_sdk_works_in_front_of_a_fixture() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    tokio::task::block_in_place(|| run("sdk_anthropic.py", &server, "local/fix"));
}

/// A script that starts servers of its own, in front of upstreams of every interface.
fn run_alone(script: &str) {
    let Some(python) = python() else {
        eprintln!("skipped: CONVERGIO_TEST_SDKS names no Python with the SDKs");
        return;
    };
    let output = Command::new(python)
        .arg(format!("{}/tests/front/{script}", env!("CARGO_MANIFEST_DIR")))
        .env("CONVERGIO_BIN", env!("CARGO_BIN_EXE_convergio"))
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
}

#[test]
fn every_field_of_the_sdks_is_kept_or_told_or_refused_by_name() {
    run_alone("sdk_fields.py");
}

#[test]
fn conversations_pass_whole_from_every_door_to_every_interface() {
    run_alone("conversations.py");
}

/// A Node with both SDKs for TypeScript.
fn run_typescript(server: &Server, arguments: &[&str]) {
    let folder = std::env::var_os("CONVERGIO_TEST_TYPESCRIPT").filter(|path| !path.is_empty());
    let Some(folder) = folder else {
        eprintln!("skipped: CONVERGIO_TEST_TYPESCRIPT names no folder with the SDKs");
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/front/sdk_typescript.mjs");
    // Node looks for packages beside the script.
    let copy = folder.join("sdk_typescript.mjs");
    std::fs::copy(script, &copy).expect("copied");
    let output = Command::new("node")
        .arg(copy)
        .args([&server.url, &server.token])
        .args(arguments)
        .output()
        .expect("node runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_for_typescript_work_too() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    tokio::task::block_in_place(|| run_typescript(&server, &["local/fix"]));
    if let Some(url) = real_model() {
        let server = Server::start(&url);
        tokio::task::block_in_place(|| run_typescript(&server, &["local", "real"]));
    }
}

fn real_model() -> Option<String> {
    std::env::var("CONVERGIO_TEST_MODEL_URL").ok().filter(|url| !url.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sdks_work_in_front_of_a_real_model() {
    let Some(url) = real_model() else {
        eprintln!("skipped: CONVERGIO_TEST_MODEL_URL names no model server");
        return;
    };
    let server = Server::start(&url);
    tokio::task::block_in_place(|| run("sdk_real.py", &server, "local"));
}
