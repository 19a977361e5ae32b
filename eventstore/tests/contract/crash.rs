//! Engines under `kill -9`: a child process appends and says what was acknowledged; after each kill
//! the log holds exactly that, and at most one commit more a writer.
//!
//! `CONVERGIO_CRASH_ROUNDS` sets the rounds.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{
    Durability, EventLog, LogError, LogReader, LogWriter, PayloadReader, StreamHead, jetstream,
};
use uuid::Uuid;

use crate::support::{Log, new_commit};

const FOLDER: &str = "CONVERGIO_TEST_CHILD_FOLDER";
const URL: &str = "CONVERGIO_TEST_CHILD_URL";
const WRITERS: u128 = 8;
const ROUNDS: usize = 8;

/// A writer's stream, the same in every round.
fn stream(writer: u128) -> StreamKey {
    StreamKey::for_request("default".parse().expect("a name"), Uuid::from_u128(writer + 1))
}

/// Not a test of its own: what the child process runs.
#[tokio::test(flavor = "multi_thread")]
async fn child_appends_until_it_is_killed() {
    let log: Log = match (std::env::var_os(FOLDER), std::env::var(URL)) {
        (Some(folder), _) => Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder)).unwrap()),
        (None, Ok(url)) => {
            let mut config = jetstream::JetStreamConfig::new(
                url.parse().unwrap(),
                convergio_test_support::nats::KEY,
            );
            config.required_durability = Durability::Fsync;
            config.insecure_cluster = true;
            Arc::new(convergio_test_support::nats::open_log(&config).await)
        }
        (None, Err(_)) => return,
    };
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(append_for_ever(Arc::clone(&log), writer));
    }
    writers.join_all().await;
}

async fn append_for_ever(log: Log, writer: u128) {
    let stream = stream(writer);
    let mut head = log.stream_head(&stream).await.expect("readable");
    loop {
        let commit = new_commit(&stream, head, "a text of some length, so that pages fill");
        head = Some(log.append(commit.clone()).await.expect("alone on its stream"));
        let line = format!("ack {writer} {} {}\n", head.map_or(0, |h| h.seq.0), commit.id);
        // One call, so that lines of writers do not mix.
        std::io::stdout().write_all(line.as_bytes()).expect("the parent reads");
    }
}

/// Lets a child append to a folder's log until it is killed.
pub(crate) fn round(
    folder: &Path,
    acknowledgements: usize,
    told: &mut BTreeMap<(u128, u64), Uuid>,
) {
    round_of(&[(FOLDER, folder.as_os_str())], acknowledgements, told);
}

/// Lets a child append until `acknowledgements` were read, kills it, and reads the rest.
pub(crate) fn round_of(
    variables: &[(&str, &OsStr)],
    acknowledgements: usize,
    told: &mut BTreeMap<(u128, u64), Uuid>,
) {
    let program = std::env::current_exe().expect("a path");
    let mut child = Command::new(program)
        .args(["--exact", "crash::child_appends_until_it_is_killed", "--nocapture"])
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let (mut line, mut seen) = (String::new(), 0);
    loop {
        line.clear();
        if lines.read_line(&mut line).expect("text") == 0 || !line.ends_with('\n') {
            break;
        }
        let Some(acknowledged) = line.trim().split("ack ").nth(1) else { continue };
        let words: Vec<&str> = acknowledged.split(' ').collect();
        let key = (words[0].parse().expect("a writer"), words[1].parse().expect("a number"));
        told.insert(key, words[2].parse().expect("an id"));
        seen += 1;
        if seen == acknowledgements {
            child.kill().expect("it is ours");
        }
    }
    child.wait().expect("ends");
    assert!(seen >= acknowledgements, "the child ended by itself after {seen}");
}

/// Everything that was told is there, in order, and at most one commit a writer that was not.
pub(crate) async fn check(log: &dyn EventLog, told: &mut BTreeMap<(u128, u64), Uuid>) {
    for writer in 0..WRITERS {
        let stream = stream(writer);
        let mut after = Seq(0);
        loop {
            let page = log.read_stream(&stream, after, 512).await.expect("readable");
            let Some(last) = page.last() else { break };
            after = last.last_seq();
            for record in page {
                let key = (writer, record.first_seq().0);
                let known = told.entry(key).or_insert(record.body.commit);
                assert_eq!(*known, record.body.commit, "{key:?}");
            }
        }
        let highest = told.range((writer, 0)..=(writer, u64::MAX)).next_back();
        assert_eq!(highest.map_or(0, |((_, seq), _)| *seq), after.0, "nothing told is missing");
    }
}

/// How often things die in a loop.
pub(crate) fn rounds() -> usize {
    let set = std::env::var("CONVERGIO_CRASH_ROUNDS").ok();
    set.map_or(ROUNDS, |rounds| rounds.parse().expect("CONVERGIO_CRASH_ROUNDS is a number"))
}

#[tokio::test]
async fn a_killed_process_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = BTreeMap::new();
    for number in 0..rounds() {
        let before = told.len();
        round(folder.path(), 20 + number * 37 % 400, &mut told);
        let acknowledged = told.len() - before;
        let log = EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).unwrap();
        let known = told.len();
        check(&log, &mut told).await;
        let more = told.len() - known;
        assert!(more as u128 <= WRITERS, "{more} commits that nobody was told of");
        let (records, _) = log.verify_chains().await.unwrap();
        assert_eq!(records as usize, told.len());
        log.close().await.unwrap();
        assert!(acknowledged >= 20);
    }
    println!("{} kills: {} commits", rounds(), told.len());
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    let mount = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::tmpfs(mount.path(), "6m") else {
        println!("skipped: a small file system can be mounted by root only");
        return;
    };
    let filler = mount.path().join("filler");
    std::fs::write(&filler, vec![1; 2 << 20]).unwrap();
    let log = EmbeddedLog::open(&EmbeddedConfig::new(mount.path().join("log"))).unwrap();
    let stream = stream(0);
    let (mut head, mut appended): (Option<StreamHead>, u64) = (None, 0);
    let refused = loop {
        let mut next = new_commit(&stream, head, "x");
        next.payloads[0].bytes = (0..20_000_u32).map(|n| (n * n % 253) as u8).collect();
        match log.append(next).await {
            Ok(done) => (head, appended) = (Some(done), appended + 1),
            Err(error) => break error,
        }
    };
    assert!(appended > 3, "there was room for some");
    assert!(matches!(refused, convergio_eventstore::AppendError::Full), "{refused}");
    assert_eq!(log.stream_head(&stream).await.unwrap(), head, "what was acknowledged is there");
    std::fs::remove_file(filler).unwrap();
    log.append(new_commit(&stream, head, "y")).await.unwrap();
    assert_eq!(log.verify_chains().await.unwrap().0, appended + 1);
    log.close().await.unwrap();
}

/// A file system of a few MiB; unmounted at the end.
pub(crate) struct Mounted(std::path::PathBuf);

impl Mounted {
    /// `None` where mounting is not allowed.
    pub(crate) fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        mount(at, &format!("size={size}")).then(|| Self(at.to_owned()))
    }

    /// Makes room.
    pub(crate) fn grow(&self, size: &str) {
        assert!(mount(&self.0, &format!("remount,size={size}")), "it is mounted");
    }
}

fn mount(at: &Path, options: &str) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).stderr(Stdio::null());
    mount.status().is_ok_and(|status| status.success())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn damage_in_any_file_is_told_or_recovered_from_and_never_silence() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = BTreeMap::new();
    // Killed, so that the write-ahead log is there too.
    round(folder.path(), 600, &mut told);
    let log = EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).unwrap();
    check(&log, &mut told).await;
    let good = copy(folder.path());
    log.close().await.unwrap();
    let files: Vec<_> = std::fs::read_dir(good.path()).unwrap().map(|e| e.unwrap()).collect();
    let (mut refused, mut recovered) = (0, 0);
    for file in files {
        let bytes = std::fs::read(file.path()).unwrap();
        for (number, damaged) in damages(&bytes).into_iter().enumerate() {
            let bad = copy(good.path());
            std::fs::write(bad.path().join(file.file_name()), damaged).unwrap();
            match outcome(bad.path(), &told).await {
                Outcome::Refused => refused += 1,
                Outcome::Whole => recovered += 1,
                Outcome::Shorter => {
                    let (name, length) = (file.file_name(), bytes.len());
                    panic!("silence: {}, damage {number} of {length} bytes", name.display());
                }
            }
        }
    }
    println!("damage: {refused} told, {recovered} without effect");
    assert!(refused > 0 && recovered > 0);
}

#[tokio::test]
async fn a_database_that_is_gone_is_told_and_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    round(folder.path(), 50, &mut BTreeMap::new());
    EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).unwrap().close().await.unwrap();
    std::fs::remove_file(folder.path().join("log.db")).unwrap();
    let error = EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).err().expect("told");
    assert!(error.to_string().contains("were acknowledged"), "{error}");
}

enum Outcome {
    Refused,
    Whole,
    Shorter,
}

async fn outcome(folder: &Path, told: &BTreeMap<(u128, u64), Uuid>) -> Outcome {
    let log = match EmbeddedLog::open(&EmbeddedConfig::new(folder)) {
        Ok(log) => log,
        Err(LogError::Corrupt { .. } | LogError::Unavailable(_)) => return Outcome::Refused,
        Err(error) => panic!("another kind: {error}"),
    };
    let verified = log.verify_chains().await;
    let mut payloads_hold = true;
    for writer in 0..WRITERS {
        for ((_, seq), _) in told.range((writer, 0)..=(writer, u64::MAX)) {
            let place = convergio_domain::payload::PayloadRef { seq: Seq(*seq), index: 0 };
            payloads_hold &= log.read_payload(&stream(writer), place).await.is_ok();
        }
    }
    // A log that is damaged may not end well either.
    let _closed = log.close().await;
    match verified {
        Err(_) => Outcome::Refused,
        Ok(_) if !payloads_hold => Outcome::Refused,
        Ok((records, _)) if records as usize == told.len() => Outcome::Whole,
        Ok(_) => Outcome::Shorter,
    }
}

/// A bit changed here and there, and the end cut off.
fn damages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let places = [0, 20, 100, bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(3)];
    for place in places.into_iter().filter(|place| *place < bytes.len()) {
        let mut flipped = bytes.to_vec();
        flipped[place] ^= 16;
        found.push(flipped);
    }
    for part in [0, 1, 2] {
        found.push(bytes[..bytes.len() * part / 3].to_vec());
    }
    found
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        // Shared memory is made anew from the write-ahead log.
        if path.extension().is_none_or(|ending| ending != "db-shm") {
            let name = path.file_name().expect("a name");
            std::fs::copy(&path, to.path().join(name)).expect("copied");
        }
    }
    to
}
