//! What others can reach is encrypted, and every answer is for its caller alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Certificate;
use reqwest::header::{HOST, HeaderMap};

use crate::harness::{BINARY, Server, text};

/// A certificate for `localhost` and its key, in files of a folder.
fn write_certificate(folder: &Path) -> (PathBuf, PathBuf, String) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let pem = signed.cert.pem();
    std::fs::write(&certificate, &pem).expect("written");
    std::fs::write(&key, signed.signing_key.serialize_pem()).expect("written");
    (certificate, key, pem)
}

fn serve_refused(data: &Path, options: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.args(["serve", "--data"]).arg(data).args(options);
    let output = command.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{options:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn an_address_that_others_reach_is_refused_in_clear() {
    let data = tempfile::tempdir().expect("a folder");
    for address in ["0.0.0.0:0", "[::]:0"] {
        let error = serve_refused(data.path(), &["--listen", address]);
        assert!(error.contains("--tls-cert") && error.contains("--behind-proxy"), "{error}");
    }
    let error = serve_refused(data.path(), &["--tls-cert", "cert.pem"]);
    assert!(error.contains("--tls-key"), "{error}");
    let files = ["--tls-cert", "missing.pem", "--tls-key", "missing.pem"];
    assert!(serve_refused(data.path(), &files).contains("missing.pem"));
    let readable = std::fs::read_dir(data.path()).map(Iterator::count).unwrap_or_default();
    assert_eq!(readable, 0, "nothing was begun");
}

#[tokio::test]
async fn over_tls_a_caller_that_knows_the_certificate_is_answered() {
    let data = tempfile::tempdir().expect("a folder");
    let files = tempfile::tempdir().expect("a folder");
    let (certificate, key, pem) = write_certificate(files.path());
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let server = Server::start_as(
        data.path(),
        &["--listen", "0.0.0.0:0", "--tls-cert", &certificate, "--tls-key", &key],
    );
    let url = server.url.replace("0.0.0.0", "localhost");
    assert!(url.starts_with("https://"), "{url}");
    let root = Certificate::from_pem(pem.as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([root]).build().expect("a client");
    let health = client.get(format!("{url}/healthz")).send().await.expect("an answer");
    assert_eq!(health.status().as_u16(), 200);
    assert!(health.headers().contains_key("strict-transport-security"));
    let clear = reqwest::Client::new();
    let clear = clear.get(format!("{}/healthz", url.replace("https", "http"))).send().await;
    assert!(clear.is_err(), "nothing is answered in clear");
    let command = crate::harness::convergio(data.path(), &["runs", "list", "--json"]);
    assert!(command.status.success(), "commands of this machine: {}", text(&command.stderr));
}

fn check_headers(headers: &HeaderMap, path: &str) {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    assert!(is("cache-control", "no-store"), "{path}");
    assert!(is("x-content-type-options", "nosniff"), "{path}");
    assert!(is("x-frame-options", "DENY"), "{path}");
    assert!(is("referrer-policy", "no-referrer"), "{path}");
    let policy = headers.get("content-security-policy").expect("a policy");
    assert!(policy.to_str().expect("text").contains("default-src 'none'"), "{path}");
}

#[tokio::test]
async fn every_answer_says_that_it_is_for_its_caller_alone() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(data.path());
    let http = reqwest::Client::new();
    for path in
        ["/healthz", "/readyz", "/openapi.json", "/v1/runs", "/nothing", "/openai/v1/models"]
    {
        let answer = http.get(format!("{}{path}", server.url)).send().await.expect("an answer");
        check_headers(answer.headers(), path);
    }
    let answer = server.request("/v1/runs").send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    check_headers(answer.headers(), "/v1/runs");
}

#[tokio::test]
async fn a_name_that_was_made_to_point_here_is_refused() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start_as(data.path(), &["--host", "convergio.example.org"]);
    for (host, status) in [
        ("evil.example:7420", 400),
        ("convergio.example.org", 200),
        ("CONVERGIO.example.org:443", 200),
        ("localhost:1", 200),
        ("[::1]:7420", 200),
    ] {
        let answer = server.request("/v1/runs").header(HOST, host).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{host}");
    }
}

#[tokio::test]
async fn the_scheme_of_a_token_is_taken_in_any_case() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(data.path());
    let token = std::fs::read_to_string(data.path().join("token")).expect("a token");
    let http = reqwest::Client::new();
    for (scheme, status) in [("bearer", 200), ("BEARER", 200), ("Bearer ", 200), ("Basic", 401)] {
        let request = http.get(format!("{}/v1/runs", server.url));
        let request = request.header("authorization", format!("{scheme} {}", token.trim()));
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{scheme}");
    }
}
