//! Data folders of earlier programs: they open, and their runs go on.

use std::path::Path;

use crate::harness::{Server, convergio, text};

/// A run that waits for a signal, one that failed, and one that was paused while it asks.
const RUNS: [&str; 3] = [
    "f57c6078-2904-89c4-bee1-34867e6a1561",
    "c610a502-53bc-8112-89da-04b1a28eb96b",
    "981cf9eb-4b6f-8110-a840-ea0813626969",
];

/// A copy of a sample: opening it changes it.
pub(crate) fn copy_of_sample(name: &str) -> tempfile::TempDir {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/platform/samples").join(name);
    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(sample).expect("the sample is there") {
        let path = entry.expect("readable").path();
        let to = folder.path().join(path.file_name().expect("a name"));
        std::fs::copy(&path, to).expect("copied");
    }
    folder
}

#[tokio::test]
async fn a_folder_of_c727e61_opens_and_its_runs_go_on() {
    let folder = copy_of_sample("c727e61");
    let verified = convergio(folder.path(), &["log", "verify", "--payloads"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    let server = Server::start(folder.path());
    let [waiting, failed, paused] = RUNS;
    for (run, status) in [(waiting, "running"), (failed, "failed"), (paused, "paused")] {
        assert_eq!(server.get(&format!("/v1/runs/{run}")).await["status"], status, "{run}");
    }
    for command in [
        vec!["runs", "signal", waiting, "pay", "--payload", r#"{"by": "Ann"}"#],
        vec!["runs", "resume", paused],
        vec!["runs", "retry", failed],
    ] {
        let steered = convergio(folder.path(), &command);
        assert!(steered.status.success(), "{command:?}: {}", text(&steered.stderr));
    }
    drop(server);
    for run in RUNS {
        let replayed = convergio(folder.path(), &["replay", run]);
        assert!(replayed.status.success(), "{run}: {}", text(&replayed.stderr));
    }
}
