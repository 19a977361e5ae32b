//! Sealed payloads as they lie in files: each under a nonce of its own, old ones still opened.

use std::collections::BTreeSet;
use std::path::Path;

use crate::earlier::copy_of_sample;
use crate::harness::{convergio, repository, text};

/// The first byte of what this program seals; a nonce of 24 bytes follows.
const FORM: u8 = 2;

fn done(data: &Path, arguments: &[&str]) -> String {
    let output = convergio(data, arguments);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {said}{}", text(&output.stderr));
    said
}

/// Every sealed payload of a log.
fn sealed(data: &Path) -> Vec<Vec<u8>> {
    let database = rusqlite::Connection::open(data.join("log.db")).expect("there");
    let mut statement = database.prepare("SELECT sealed FROM payload ORDER BY id").expect("SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a payload")).collect()
}

fn version(data: &Path) -> i64 {
    let database = rusqlite::Connection::open(data.join("log.db")).expect("there");
    database.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number")
}

fn run_examples(data: &Path) {
    let example = repository("examples/small.yaml");
    let example = example.to_str().expect("a path");
    for word in ["one", "two", "three"] {
        done(data, &["graph", "run", example, "--input", &format!("text={word} {word}")]);
    }
}

#[test]
fn no_two_payloads_share_a_nonce_and_a_copy_has_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    run_examples(&data);
    let payloads = sealed(&data);
    assert!(payloads.len() > 6, "there is something to look at");
    assert!(payloads.iter().all(|sealed| sealed[0] == FORM));
    let nonces: BTreeSet<&[u8]> = payloads.iter().map(|sealed| &sealed[1..25]).collect();
    assert_eq!(nonces.len(), payloads.len());
    assert_eq!(version(&data), 4, "an older program refuses the file");
    let archive = folder.path().join("archive").display().to_string();
    done(&data, &["log", "export", &archive]);
    std::fs::create_dir(&copy).expect("a folder");
    std::fs::copy(data.join("payload.key"), copy.join("payload.key")).expect("copied");
    done(&copy, &["log", "restore", &archive]);
    assert_eq!(sealed(&copy), payloads);
}

#[test]
fn payloads_of_an_earlier_program_open_where_they_are_and_in_an_archive() {
    let sample = copy_of_sample("c727e61");
    let data = sample.path();
    let before = sealed(data);
    let opened = done(data, &["log", "verify", "--payloads"]);
    assert!(!opened.contains(" 0 payloads"), "{opened}");
    assert_eq!(sealed(data), before, "what lies there is left as it is");
    assert_eq!(version(data), 4);
    run_examples(data);
    let archive = data.join("archive").display().to_string();
    done(data, &["log", "export", &archive]);
    let copy = tempfile::tempdir().expect("a folder");
    std::fs::copy(data.join("payload.key"), copy.path().join("payload.key")).expect("copied");
    done(copy.path(), &["log", "restore", &archive]);
    assert!(sealed(copy.path()).iter().all(|sealed| sealed[0] == FORM), "sealed anew");
    let verify = ["log", "verify", "--payloads"];
    assert_eq!(done(copy.path(), &verify), done(data, &verify), "and nothing is lost");
}

#[test]
fn a_changed_payload_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    run_examples(data);
    for at in [0, 1, 30] {
        let database = rusqlite::Connection::open(data.join("log.db")).expect("there");
        let flip = |sealed: &[u8]| {
            let mut sealed = sealed.to_vec();
            sealed[at] ^= 1;
            sealed
        };
        let sql = "SELECT sealed FROM payload WHERE id = (SELECT min(id) FROM payload)";
        let whole: Vec<u8> = database.query_row(sql, [], |row| row.get(0)).expect("a payload");
        let sql = "UPDATE payload SET sealed = ? WHERE id = (SELECT min(id) FROM payload)";
        database.execute(sql, [flip(&whole)]).expect("changed");
        let found = convergio(data, &["log", "verify", "--payloads"]);
        assert_eq!(found.status.code(), Some(1), "{}", text(&found.stdout));
        assert!(text(&found.stdout).contains("was changed"), "{}", text(&found.stdout));
        database.execute(sql, [whole]).expect("changed back");
    }
    done(data, &["log", "verify", "--payloads"]);
}
