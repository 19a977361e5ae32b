//! Who may use a cluster's log is said by a file that nobody else can read.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use convergio_test_support::nats::{Cluster, READY, SyncMode};
use convergio_test_support::shut_cluster::{ShutCluster, write_seed};

use crate::harness::{convergio, repository, text};

/// Asks until it is done: the servers may still be finding each other.
fn until_done(ask: impl Fn() -> (bool, String)) {
    let until = Instant::now() + READY;
    loop {
        match ask() {
            (true, _) => return,
            (false, line) => assert!(Instant::now() < until, "{line}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What `log create` says of a log to who has a file.
fn create(data: &Path, url: &str, credentials: &Path) -> (bool, String) {
    let file = credentials.to_str().expect("a path");
    let create = ["log", "create", "--replicas", "1", "--log-gib", "1", "--payload-gib", "1"];
    let place = ["--durability", "fsync", "--log", url, "--log-creds", file];
    let done = convergio(data, &[&create[..], &place].concat());
    (done.status.success(), text(&done.stderr))
}

#[test]
fn a_key_in_a_file_opens_the_log_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let (ours, public) = write_seed(root, "log.nk");
    let (theirs, _) = write_seed(root, "other.nk");
    let mut cluster = Cluster::prepare(1, SyncMode::Always);
    let user = format!("{{nkey: {public}}}");
    cluster.change_settings(0, "{user: cvg, password: secret}", &user);
    cluster.start_all();
    let url = format!("nats://127.0.0.1:{}/K", cluster.servers[0].client_port);

    until_done(|| create(root, &url, &ours));
    let seed = std::fs::read_to_string(&ours).expect("readable");
    let refused = |credentials: &Path, expected: &str| {
        let (is_done, line) = create(root, &url, credentials);
        assert!(!is_done && line.contains(expected), "{expected}: {line}");
        assert!(!line.contains(seed.trim()), "{line}");
    };
    refused(&theirs, "refuses the credentials: check");
    refused(&root.join("missing.nk"), "missing.nk are not used");
    let broken = root.join("broken.nk");
    std::fs::copy(&ours, &broken).expect("copied");
    std::fs::write(&broken, format!("{seed}\n{seed}")).expect("written");
    refused(&broken, "holds neither credentials");
    std::fs::set_permissions(&ours, Permissions::from_mode(0o644)).expect("ours");
    refused(&ours, "others may use it: chmod 600");
    let (_, line) = create(root, &url.replace("nats://", "nats://u:p@"), &theirs);
    assert!(line.contains("give one of them"), "{line}");
    let alone = convergio(root, &["log", "verify", "--log-creds", "x"]);
    assert!(text(&alone.stderr).contains("name it with --log"), "{}", text(&alone.stderr));
}

#[test]
fn a_run_completes_on_a_shut_cluster() {
    let cluster = ShutCluster::start("CLI");
    let data = tempfile::tempdir().expect("a folder");
    let (url, file) = (cluster.url(), |path: &Path| path.display().to_string());
    let (maker, worker) = (file(&cluster.maker), file(&cluster.worker));
    let authority = file(&cluster.authority);
    let meet = |command: &[&str], credentials: &str| {
        let place = ["--log", &url, "--log-creds", credentials, "--log-ca", &authority];
        let done = convergio(data.path(), &[command, &place].concat());
        (done.status.success(), text(&done.stdout) + &text(&done.stderr))
    };
    until_done(|| meet(&["log", "create", "--log-gib", "1", "--payload-gib", "1"], &maker));
    let graph = repository("examples/small.yaml").display().to_string();
    let (is_done, said) = meet(&["graph", "run", &graph, "--input", "text=hello"], &worker);
    assert!(is_done, "{said}");
    let (is_done, said) = meet(&["log", "verify", "--payloads"], &worker);
    assert!(is_done, "{said}");
    let unknown = ["log", "verify", "--log", &url, "--log-creds", &worker];
    let refused = text(&convergio(data.path(), &unknown).stderr);
    assert!(refused.contains("cannot be reached by TLS"), "{refused}");
    assert!(refused.contains("--log-ca"), "{refused}");
}
