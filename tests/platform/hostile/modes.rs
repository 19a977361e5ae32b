//! Other users of the machine: they read none of our files, links lead no write elsewhere, and the
//! memory of the process is dumped nowhere.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{BINARY, Server, convergio, repository, text};

/// Runs a command as a shell would whose files everybody may read.
fn in_wide_shell(data: &Path, arguments: &[&str]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 022; exec \"$@\"", "sh", BINARY, "--data"]).arg(data);
    shell.args(arguments).output().expect("the binary runs")
}

/// Everything below a folder, itself included.
fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    if std::fs::symlink_metadata(folder).expect("it is there").is_dir() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            found.extend(all_below(&entry.expect("readable").path()));
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).expect("it is there").mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("ours");
}

#[test]
fn nothing_that_is_written_is_for_others() {
    let root = tempfile::tempdir().expect("a folder");
    let place = root.path().join("all");
    let (data, place_name) = (place.join("data"), place.to_str().expect("a path"));
    let small = repository("examples/small.yaml");
    let graph = ["graph", "run", small.to_str().expect("a path"), "--input", "text=hello"];
    let ran = in_wide_shell(&data, &[&["--json"], &graph[..]].concat());
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let page = in_wide_shell(&data, &["--json", "runs", "list"]);
    let page: Value = serde_json::from_slice(&page.stdout).expect("JSON");
    let run = page["items"][0]["id"].as_str().expect("a run").to_owned();
    let path = |name: &str| format!("{place_name}/{name}");
    for command in [
        vec!["runs", "export", &run, "-o", &path("run.jsonl")],
        vec!["log", "backup", &path("backup")],
        vec!["log", "export", &path("archive")],
        vec!["projections", "rebuild"],
    ] {
        let done = in_wide_shell(&data, &command);
        assert!(done.status.success(), "{command:?}: {}", text(&done.stderr));
    }
    let _server = Server::start(&data);
    let all = all_below(&place);
    let has = |name: &str| all.iter().any(|path| path.ends_with(name));
    for name in ["log.db", "log.db-wal", "log.db-shm", "read.db", "read.db-wal", "server.json"] {
        assert!(has(&format!("data/{name}")), "{name}: {all:?}");
    }
    assert!(has("backup/log.db") && has("backup/payload.key") && has("run.jsonl"), "{all:?}");
    for path in &all {
        assert_eq!(mode(path) & 0o077, 0, "{}: {:o}", path.display(), mode(path));
    }
}

#[test]
fn a_folder_of_an_earlier_program_is_narrowed_and_it_says_so() {
    let root = tempfile::tempdir().expect("a folder");
    let data = root.path().join("data");
    assert!(convergio(&data, &["runs", "list"]).status.success());
    let widen = || {
        set_mode(&data, 0o755);
        set_mode(&data.join("log.db"), 0o644);
        set_mode(&data.join("read.db"), 0o644);
    };
    let is_narrow = || ["", "log.db", "read.db"].iter().all(|n| mode(&data.join(n)) & 0o077 == 0);
    widen();
    let doctor = convergio(&data, &["--model-url", "http://127.0.0.1:9", "doctor", "--json"]);
    let checks: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let modes = checks.as_array().expect("checks").iter().find(|check| check["name"] == "modes");
    let modes = modes.expect("a check of modes");
    assert_eq!(modes["status"], "warn", "{modes}");
    let message = modes["message"].as_str().expect("text");
    assert!(message.contains("log.db (mode 644)") && message.contains("755"), "{message}");
    assert!(is_narrow());
    widen();
    let listed = convergio(&data, &["runs", "list"]);
    let said = text(&listed.stderr);
    assert!(said.contains("log.db (mode 644)") && said.contains("now only you can"), "{said}");
    assert!(is_narrow());
    assert!(text(&convergio(&data, &["runs", "list"]).stderr).is_empty(), "once is enough");
}

#[test]
fn no_link_leads_a_write_elsewhere() {
    let root = tempfile::tempdir().expect("a folder");
    let data = root.path().join("data");
    let small = repository("examples/small.yaml");
    let graph = ["graph", "run", small.to_str().expect("a path"), "--input", "text=hello"];
    assert!(convergio(&data, &graph).status.success());
    let page = convergio(&data, &["--json", "runs", "list"]);
    let page: Value = serde_json::from_slice(&page.stdout).expect("JSON");
    let run = page["items"][0]["id"].as_str().expect("a run").to_owned();
    let victim = root.path().join("victim");
    std::fs::write(&victim, "mine").expect("written");
    let output = root.path().join("run.jsonl");
    for link in [output.clone(), output.with_extension("part"), output.with_extension("new")] {
        symlink(&victim, link).expect("linked");
    }
    let exported =
        convergio(&data, &["runs", "export", &run, "-o", output.to_str().expect("a path")]);
    assert!(exported.status.success(), "{}", text(&exported.stderr));
    assert!(!output.is_symlink(), "the link gave way");
    for name in ["server.json", "token.new", "log.end", "read.db"] {
        let path = data.join(name);
        let _removed = std::fs::remove_file(&path);
        symlink(&victim, path).expect("linked");
        let listed = convergio(&data, &["runs", "list"]);
        assert_eq!(std::fs::read(&victim).expect("readable"), b"mine", "{name}");
        let is_refused = text(&listed.stderr).contains("link");
        assert!(is_refused || listed.status.success(), "{name}: {}", text(&listed.stderr));
        let _removed = std::fs::remove_file(data.join(name));
    }
}

/// A server's process, as another user than root if that is possible: what root may do tells
/// nothing.
fn start_as_nobody(root: &Path) -> std::process::Child {
    let (binary, data) = (root.join("convergio"), root.join("data"));
    std::fs::copy(BINARY, &binary).expect("copied");
    set_mode(&binary, 0o755);
    set_mode(root, 0o755);
    std::fs::create_dir(&data).expect("a folder");
    let mut command = Command::new(&binary);
    if std::os::unix::fs::chown(&data, Some(65534), Some(65534)).is_ok() {
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
    }
    command.args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"]).arg(&data);
    command.env("CONVERGIO_MODEL_URL", "http://127.0.0.1:9").current_dir(root);
    command.stdout(Stdio::piped()).spawn().expect("the binary starts")
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_of_the_process_is_dumped_nowhere() {
    use std::io::{BufRead, BufReader};
    let root = tempfile::tempdir().expect("a folder");
    let mut server = start_as_nobody(root.path());
    let mut line = String::new();
    let output = server.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut line).expect("the server speaks");
    let proc = PathBuf::from(format!("/proc/{}", server.id()));
    let limits = std::fs::read_to_string(proc.join("limits"));
    // The files of a process that must not be looked into belong to root.
    let owner = std::fs::metadata(proc.join("mem")).map(|found| found.uid());
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    let limits = limits.expect("readable");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    let core: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(core, ["0", "0"]);
    assert_eq!(owner.expect("it runs"), 0);
}
