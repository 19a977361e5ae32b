//! Runs that somebody forged: other ids, planted answers. At most they are unsigned history.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Server, convergio, text};

const ASKS: &str = r#"
name: asks
output: "{{ nodes.pay.output }}"
nodes:
  - {id: first, tool: text.trim, with: {text: x}}
  - {id: ask, needs: [first], approval: {role: teacher, show: "{{ nodes.first.output }}"}}
  - {id: pay, needs: [ask], tool: text.trim, with: {text: PAID}}
"#;
/// The id under which the forged copy goes.
const FORGED: &str = "01920000-0000-7000-8000-00000000f0f0";

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

fn done(data: &Path, arguments: &[&str]) -> String {
    let output = convergio(data, arguments);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {said}{}", text(&output.stderr));
    said
}

/// What a command says that is refused.
fn refused(data: &Path, arguments: &[&str]) -> String {
    let output = convergio(data, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// A run that waits for a person, and its file.
async fn exported(data: &Path, to: &Path) -> (String, PathBuf) {
    let (manifest, file) = (to.join("asks.yaml"), to.join("run.jsonl"));
    std::fs::write(&manifest, ASKS).expect("writable");
    let server = Server::start(data);
    let started = convergio(data, &["graph", "run", path(&manifest), "--detach", "--json"]);
    let run = json_of(&started)["run_id"].as_str().expect("a run").to_owned();
    server.wait_for_events(&run, 4).await;
    done(data, &["runs", "export", &run, "-o", path(&file)]);
    server.kill();
    (run, file)
}

/// Makes the next record of a file: `{"record": ...}`, and its hash.
fn record(prev_hash: &str, body: &str) -> (String, String) {
    let prev = (0..64).step_by(2).map(|at| u8::from_str_radix(&prev_hash[at..at + 2], 16));
    let prev: Vec<u8> = prev.collect::<Result<_, _>>().expect("digits");
    let mut hasher = blake3::Hasher::new();
    hasher.update(&prev).update(body.as_bytes());
    let hash = hasher.finalize().to_hex().to_string();
    let head = format!("{{\"record\":{{\"prev_hash\":\"{prev_hash}\",\"hash\":\"{hash}\"");
    (format!("{head},\"recorded_at\":1,\"body\":{body}}}}}\n"), hash)
}

/// The text of a record's body, as it stands in its line.
fn body_of(line: &str) -> &str {
    let (_, body) = line.split_once("\"body\":").expect("a record");
    &body[..body.len() - 2]
}

/// A copy of a run's file under another id, with an answer that nobody gave, as its forger would
/// make it: every hash is right.
fn forge(file: &Path, run: &str) -> String {
    let text = std::fs::read_to_string(file).expect("text").replace(run, FORGED);
    let (mut forged, mut hash, mut seq) = (String::new(), "0".repeat(64), 0);
    let mut asked = Value::Null;
    for line in text.lines().skip(1) {
        if line.starts_with("{\"signature\"") {
            continue;
        }
        if !line.starts_with("{\"record\"") {
            forged.push_str(&format!("{line}\n"));
            continue;
        }
        let body: Value = serde_json::from_str(body_of(line)).expect("JSON");
        let events = body["events"].as_array().expect("events");
        seq = body["seq"].as_u64().expect("a number") + events.len() as u64;
        let question = |event: &&Value| event["type"] == "run.approval.requested.v1";
        asked = events.iter().find(question).map_or(asked, |event| event["data"].clone());
        let (line, next) = record(&hash, body_of(line));
        forged.push_str(&line);
        hash = next;
    }
    let (approval, content) = (&asked["approval"], &asked["content_hash"]);
    let answer = format!(
        "{{\"actor\":\"teacher-ann\",\"commit\":\"01920000-0000-7000-8000-000000000001\",\
         \"events\":[{{\"data\":{{\"approval\":{approval},\"by\":\"teacher-ann\",\
         \"content_hash\":{content}}},\"type\":\"run.approval.granted.v1\"}}],\"seq\":{seq},\
         \"stream\":\"run/{FORGED}\",\"tenant\":\"default\",\"time\":7}}"
    );
    let (line, hash) = record(&hash, &answer);
    let header = json!({"run": {"format": 1, "tenant": "default", "run": FORGED, "seq": seq,
        "hash": hash, "payloads": true}});
    format!("{header}\n{forged}{line}")
}

#[tokio::test]
async fn a_forged_run_is_unsigned_history_that_never_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let (run, file) = exported(&data, folder.path()).await;
    let forged = folder.path().join("forged.jsonl");
    std::fs::write(&forged, forge(&file, &run)).expect("writable");
    done(&data, &["replay", "--file", path(&forged)]);
    let signer = doctor_signer(&data);
    let said = refused(&data, &["runs", "import", path(&forged), "--signer", &signer]);
    assert!(said.contains("it is not signed"), "{said}");
    let said = done(&data, &["runs", "import", path(&forged)]);
    assert!(said.contains("unsigned") && said.contains("never goes on"), "{said}");

    let server = Server::start(&data);
    let view = server.get(&format!("/v1/runs/{FORGED}")).await;
    assert_eq!(view["imported"]["by"], "owner", "{view}");
    assert!(view["imported"]["signer"].is_null());
    assert!(done(&data, &["runs", "show", FORGED]).contains("unsigned: it never goes on"));
    for command in [
        &["pause"][..],
        &["resume"],
        &["retry"],
        &["cancel"],
        &["amend", "--tokens", "9999999"],
        &["signal", "pay", "--payload", "{}"],
        &["resolve", "ask", "--as", "retry"],
    ] {
        let (name, rest) = command.split_first().expect("a command");
        let said = refused(&data, &[&["runs", name, FORGED], rest].concat());
        assert!(said.contains("(run.imported)") && said.contains("fork it"), "{command:?}: {said}");
    }
    let audit = server.get(&format!("/v1/audit?stream=run/{FORGED}")).await.to_string();
    assert!(audit.contains("run.imported.v1") && !audit.contains("teacher-ann"), "{audit}");
    assert_eq!(server.get(&format!("/v1/runs/{FORGED}")).await["seq"], view["seq"]);

    // The run that was copied asks as before, and only its own answer counts.
    let open = server.get("/v1/approvals?state=open").await;
    assert_eq!(open["items"].as_array().map(Vec::len), Some(1), "{open}");
    assert_eq!(open["items"][0]["run_id"], run.as_str());
    let forked = json_of(&convergio(&data, &["runs", "fork", FORGED, "--json"]));
    let fork = forked["run_id"].as_str().unwrap_or_else(|| panic!("{forked}")).to_owned();
    let asks = server.wait_for_question(&fork).await;
    assert_eq!(server.get(&format!("/v1/runs/{fork}")).await["status"], "running", "it asks anew");
    done(&data, &["approvals", "answer", &asks, "--grant"]);
    assert_eq!(server.ended(&fork).await["output"], "PAID");
    assert_eq!(server.get(&format!("/v1/runs/{run}")).await["status"], "running");
    drop(server);
    done(&data, &["log", "verify", "--payloads"]);
    for id in [FORGED, &run, &fork] {
        done(&data, &["replay", id]);
    }
}

fn doctor_signer(data: &Path) -> String {
    let checks = json_of(&convergio(data, &["doctor", "--json"]));
    let checks = checks.as_array().expect("checks").iter();
    let signer = checks.clone().find(|check| check["name"] == "signer").expect("it is shown");
    let message = signer["message"].as_str().expect("text");
    message.rsplit(' ').next().expect("a word").to_owned()
}

#[tokio::test]
async fn a_signed_file_is_known_by_its_signer_and_refused_when_it_was_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, there) = (folder.path().join("data"), folder.path().join("there"));
    let (run, file) = exported(&data, folder.path()).await;
    let signer = doctor_signer(&data);
    let whole = std::fs::read_to_string(&file).expect("text");
    let changed = folder.path().join("changed.jsonl");
    // Nothing but the signature knows when the other log took a record.
    let later = whole.replacen("\"recorded_at\":", "\"recorded_at\":1", 1);
    let unsigned = whole.lines().filter(|line| !line.starts_with("{\"signature\""));
    let unsigned: String = unsigned.map(|line| format!("{line}\n")).collect();
    for (text, reason) in [
        (later, "it was changed"),
        (unsigned, "ends before its signature"),
        (format!("{whole}{{}}\n"), "nothing follows the signature"),
    ] {
        std::fs::write(&changed, text).expect("writable");
        let said = refused(&there, &["runs", "import", path(&changed)]);
        assert!(said.contains(reason), "{said}");
    }
    let other = "0".repeat(32);
    let said = refused(&there, &["runs", "import", path(&file), "--signer", &other]);
    assert!(said.contains(&format!("it is signed by {signer}")), "{said}");
    assert!(refused(&there, &["runs", "import", path(&file), "--signer", "x"]).contains("32"));
    let done_there = ["runs", "import", path(&file), "--signer", &signer, "--json"];
    let taken = json_of(&convergio(&there, &done_there));
    assert_eq!(
        (&taken["signer"], &taken["signed_by_this_folder"]),
        (&json!(signer), &json!(false))
    );
    // What it asks is nobody's to answer there.
    let server = Server::start(&there);
    server.wait_until_ready().await;
    let open = server.get("/v1/approvals?state=open").await;
    assert_eq!(open["items"], json!([]));
    let void = server.get(&format!("/v1/approvals?state=void&run={run}")).await;
    let question = void["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{void}"));
    let said = refused(&there, &["approvals", "answer", question, "--grant"]);
    assert!(said.contains("(run.imported)"), "{said}");
    drop(server);
    // The folder that exported it has the run already, and it stays its own.
    let known = done(&data, &["runs", "import", path(&file)]);
    assert!(known.contains("already") && known.contains("signed by this folder"), "{known}");
    done(&data, &["runs", "cancel", &run]);
}

#[tokio::test]
async fn a_file_adds_nothing_to_a_run_that_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let (run, file) = exported(&data, folder.path()).await;
    let longer = folder.path().join("longer.jsonl");
    std::fs::write(&longer, forge(&file, &run).replace(FORGED, &run)).expect("writable");
    // With the run's own id the hashes of the forger's copy are wrong; made again they are right.
    std::fs::write(&longer, forge_in_place(&longer)).expect("writable");
    let said = refused(&data, &["runs", "import", path(&longer)]);
    assert!(said.contains("adds nothing to a run that is there"), "{said}");
    done(&data, &["runs", "cancel", &run]);
}

/// Makes all hashes of a file anew.
fn forge_in_place(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("text");
    let (first, rest) = text.split_once('\n').expect("lines");
    let (mut lines, mut hash) = (String::new(), "0".repeat(64));
    for line in rest.lines() {
        match line.starts_with("{\"record\"") {
            true => {
                let (line, next) = record(&hash, body_of(line));
                lines.push_str(&line);
                hash = next;
            }
            false => lines.push_str(&format!("{line}\n")),
        }
    }
    let mut header: Value = serde_json::from_str(first).expect("JSON");
    header["run"]["hash"] = json!(hash);
    format!("{header}\n{lines}")
}
