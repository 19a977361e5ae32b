//! A log copied while it is used, archived, and made again from the archive.

use std::path::Path;

use serde_json::json;

use crate::harness::{Server, convergio, text};

/// Runs a command that must succeed; gives what it says.
fn done(data: &Path, arguments: &[&str]) -> String {
    let output = convergio(data, arguments);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {said}{}", text(&output.stderr));
    said
}

#[tokio::test]
async fn a_log_comes_back_from_a_backup_and_from_an_archive() {
    let root = tempfile::tempdir().expect("a folder");
    let path = |name: &str| root.path().join(name).display().to_string();
    let data = root.path().join("data");
    let server = Server::start(&data);
    let graph = server.register("small.yaml").await;
    let (_, accepted) = server.execute(&graph, &json!({"text": "a b c"}), None).await;
    let run = accepted["run_id"].as_str().expect("a run").to_owned();
    let view = server.ended(&run).await;
    done(&data, &["log", "backup", &path("copy")]);
    server.kill();

    let verified = done(&data, &["log", "verify"]);
    let opened = done(&data, &["log", "verify", "--payloads"]);
    assert!(opened.contains("0 erased") && !opened.contains(" 0 payloads"), "{opened}");
    done(&data, &["log", "export", &path("archive")]);
    let again = done(&data, &["log", "export", &path("archive")]);
    assert!(again.starts_with("0 records"), "{again}");
    let archived = done(&data, &["log", "verify", "--archive", &path("archive")]);
    assert_eq!(archived.split(": ").nth(1), verified.split(": ").nth(1));
    done(&data, &["log", "export", &path("one"), "--stream", &format!("run/{run}")]);

    let restored = root.path().join("restored");
    std::fs::create_dir(&restored).expect("a folder");
    std::fs::copy(data.join("payload.key"), restored.join("payload.key")).expect("copied");
    done(&restored, &["log", "restore", &path("archive")]);
    for folder in [root.path().join("copy"), restored] {
        assert_eq!(done(&folder, &["log", "verify"]), verified);
        let server = Server::start(&folder);
        let after = server.ended(&run).await;
        assert_eq!(after["output"], view["output"]);
        assert_eq!(after["seq"], view["seq"]);
    }
}
