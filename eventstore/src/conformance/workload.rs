//! Writers that keep appending through crashes and restarts, and the check that every
//! acknowledgement was true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use convergio_domain::stream::{Seq, StreamKey};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Log, eventually, new_commit, new_stream};
use crate::{AppendError, EventLog, StreamHead};

/// A writer's acknowledged commits in order, with their heads.
type AcknowledgedCommits = Vec<(Uuid, StreamHead)>;

/// Running writers, each alone on its own stream.
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: JoinSet<(StreamKey, AcknowledgedCommits)>,
}

impl Writers {
    /// Starts so many writers.
    pub fn start(log: &Log, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tasks.spawn(append_until_stopped(Arc::clone(log), stop, acknowledged));
        }
        Self { stop, acknowledged, tasks }
    }

    /// Returns the number of commits acknowledged so far.
    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more commits are acknowledged.
    pub async fn wait_for_commits(&self, count: u64) {
        let goal = self.acknowledged_count() + count;
        eventually("the writers get on", async || {
            (self.acknowledged_count() >= goal).then_some(())
        })
        .await;
    }

    /// Lets every writer finish its commit, and checks each stream; returns the number of commits.
    ///
    /// # Panics
    /// An acknowledged commit is missing or differs.
    pub async fn finish_and_check(self, log: Log) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let acknowledged: BTreeMap<_, _> = self.tasks.join_all().await.into_iter().collect();
        let mut total = 0;
        for (stream, told) in &acknowledged {
            check_stream(&*log, stream, told).await;
            total += told.len() as u64;
        }
        total
    }
}

async fn append_until_stopped(
    log: Log,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> (StreamKey, AcknowledgedCommits) {
    let (stream, mut head, mut commits) = (new_stream(), None, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let mut commit = new_commit(&stream, head, &commits.len().to_string());
        // Few payloads keep the writers fast: on a cluster each costs messages of its own.
        if commits.len() % 8 != 0 {
            commit.payloads.clear();
        }
        let appended = loop {
            match log.append(commit.clone()).await {
                Ok(appended) => break appended,
                // Retrying with the same id is safe: the commit is appended at most once.
                Err(AppendError::Unavailable(_) | AppendError::Busy) => {}
                Err(error) => panic!("alone on its stream, and told: {error}"),
            }
        };
        commits.push((commit.id, appended));
        head = Some(appended);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    (stream, commits)
}

/// Checks that the stream holds exactly the acknowledged commits, in order.
async fn check_stream(log: &dyn EventLog, stream: &StreamKey, expected: &AcknowledgedCommits) {
    let mut found = Vec::new();
    loop {
        let after = found.last().map_or(Seq(0), |(_, head): &(Uuid, StreamHead)| head.seq);
        let page = log.read_stream(stream, after, 256).await.expect("readable");
        found.extend(page.iter().map(|record| (record.body.commit, record.stream_head())));
        if page.is_empty() {
            break;
        }
    }
    assert!(found == *expected, "{stream}: {} told, {} found", expected.len(), found.len());
}
