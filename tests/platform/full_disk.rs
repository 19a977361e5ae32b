//! A full disk: one clear answer, nothing lost, and work goes on when there is space again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Server, convergio, text};

/// A small file system of its own. Only root can mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(folder);
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        is_mounted.then(|| Self(folder.to_owned()))
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).expect("writable");
        while file.write_all(&[7; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_a_full_disk_and_work_goes_on_when_it_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    };
    let server = Server::start(folder.path());
    let graph = server.register("small.yaml").await;
    disk.fill();
    let inputs = json!({"text": "x".repeat(20_000)});
    let mut accepted = Vec::new();
    let refused = loop {
        let (status, answer) = server.execute(&graph, &inputs, None).await;
        if status != 202 {
            break (status, answer);
        }
        accepted.push(answer["run_id"].as_str().expect("a run").to_owned());
    };
    assert_eq!((refused.0, &refused.1["code"]), (507, &json!("log.full")));
    let detail = refused.1["detail"].as_str().expect("a text");
    assert!(detail.contains("full") && detail.lines().count() == 1, "{detail}");
    disk.free();
    let (status, answer) = server.execute(&graph, &inputs, None).await;
    assert_eq!(status, 202, "{answer}");
    accepted.push(answer["run_id"].as_str().expect("a run").to_owned());
    for run in &accepted {
        assert_eq!(server.ended(run).await["status"], "completed");
    }
    server.kill();
    for check in [["log", "verify"], ["projections", "check"]] {
        let checked = convergio(folder.path(), &check);
        assert!(checked.status.success(), "{}", text(&checked.stderr));
    }
    drop(disk);
}
