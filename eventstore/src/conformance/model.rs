//! Random histories: a log and the log in memory give the same results for the same operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use uuid::Uuid;

use super::{Log, new_commit, new_event, new_stream};
use crate::{AppendError, Commit, EventLog, MemoryLog, StreamHead};

/// Number of streams in a history.
pub const STREAMS: usize = 3;

/// Head that a writer expects.
#[derive(Debug, Clone, Copy)]
pub enum ExpectedHead {
    /// The stream's current head.
    Head,
    /// No head, as for a new stream.
    Nothing,
    /// The head some commits ago.
    Earlier(usize),
    /// The current head with another hash.
    Wrong,
}

/// An operation on a log.
#[derive(Debug, Clone)]
pub enum LogOperation {
    /// Appends so many events to the stream of this index.
    Append(usize, usize, ExpectedHead),
    /// Appends one of the earlier commits again.
    Again(usize),
    /// Appends one of the earlier commits with other events.
    Changed(usize),
    /// Erases the first payload of the record that begins with this event.
    Erase(usize, Seq),
    /// Closes and reopens the log.
    Reopen,
}

/// Result of an operation, without positions, which differ between logs.
#[derive(Debug, PartialEq, Eq)]
enum OperationResult {
    Appended(Seq, [u8; 32]),
    Conflict(Option<(Seq, [u8; 32])>),
    Mismatch,
    Erased(bool),
}

/// One of the two logs, with its own heads: positions differ between logs.
struct ComparedLog {
    log: Log,
    heads: BTreeMap<usize, Vec<StreamHead>>,
    tried_commits: Vec<(usize, Commit)>,
}

impl ComparedLog {
    fn expected_head(&self, stream: usize, expected: ExpectedHead) -> Option<StreamHead> {
        let heads = self.heads.get(&stream).map_or(&[][..], Vec::as_slice);
        match expected {
            ExpectedHead::Nothing => None,
            ExpectedHead::Head => heads.last().copied(),
            ExpectedHead::Earlier(back) => {
                heads.len().checked_sub(back + 1).and_then(|at| heads.get(at)).copied()
            }
            ExpectedHead::Wrong => heads.last().map(|head| StreamHead { hash: [7; 32], ..*head }),
        }
    }

    async fn append_commit(&mut self, stream: usize, commit: Commit) -> OperationResult {
        let short = |head: StreamHead| (head.seq, head.hash);
        self.tried_commits.push((stream, commit.clone()));
        match self.log.append(commit).await {
            Ok(head) => {
                let heads = self.heads.entry(stream).or_default();
                if heads.last().is_none_or(|last| last.seq < head.seq) {
                    heads.push(head);
                }
                OperationResult::Appended(head.seq, head.hash)
            }
            Err(AppendError::Conflict { actual }) => OperationResult::Conflict(actual.map(short)),
            Err(AppendError::CommitMismatch) => OperationResult::Mismatch,
            Err(error) => panic!("{error}"),
        }
    }

    async fn apply_operation(
        &mut self,
        op: &LogOperation,
        id: Uuid,
        streams: &[StreamKey],
    ) -> Option<OperationResult> {
        match op {
            LogOperation::Append(stream, events, expected) => {
                let expected = self.expected_head(*stream, *expected);
                let mut next = new_commit(&streams[*stream], expected, "text");
                next.id = id;
                next.events = (0..*events).map(|number| new_event(&number.to_string())).collect();
                Some(self.append_commit(*stream, next).await)
            }
            LogOperation::Again(which) | LogOperation::Changed(which) => {
                let at = which.checked_rem(self.tried_commits.len())?;
                let (stream, mut same) = self.tried_commits[at].clone();
                if matches!(op, LogOperation::Changed(_)) {
                    same.events.push(new_event("changed"));
                }
                Some(self.append_commit(stream, same).await)
            }
            LogOperation::Erase(stream, seq) => {
                let place = PayloadRef { seq: *seq, index: 0 };
                let erased = self.log.erase_payload(&streams[*stream], place).await;
                Some(OperationResult::Erased(erased.expect("readable")))
            }
            LogOperation::Reopen => None,
        }
    }
}

/// Applies the operations to both logs, and compares every result and finally everything that can
/// be read. The log under test must seal payloads with this key.
pub async fn assert_logs_agree(
    ops: &[LogOperation],
    key: [u8; 32],
    log: Log,
    reopen: impl AsyncFn(Log) -> Log,
) {
    let streams: Vec<StreamKey> = (0..STREAMS).map(|_| new_stream()).collect();
    let side = |log: Log| ComparedLog { log, heads: BTreeMap::new(), tried_commits: Vec::new() };
    let model = Arc::new(MemoryLog::sealed_with(key));
    let (mut model, mut real) = (side(model), side(log));
    for (number, op) in ops.iter().enumerate() {
        if matches!(op, LogOperation::Reopen) {
            real.log = reopen(real.log).await;
        }
        let id = Uuid::now_v7();
        let expected = model.apply_operation(op, id, &streams).await;
        assert_eq!(
            real.apply_operation(op, id, &streams).await,
            expected,
            "operation {number}: {op:?}"
        );
    }
    for stream in &streams {
        assert_same_stream(&*model.log, &*real.log, stream).await;
    }
    let due = Timestamp(9);
    let due = (model.log.due_streams(due, 99).await, real.log.due_streams(due, 99).await);
    let ours = |found: Vec<StreamKey>| -> Vec<StreamKey> {
        streams.iter().filter(|stream| found.contains(stream)).cloned().collect()
    };
    assert_eq!(ours(due.0.expect("readable")), ours(due.1.expect("readable")));
}

async fn assert_same_stream(model: &dyn EventLog, real: &dyn EventLog, stream: &StreamKey) {
    let (a, b) = (model.stream_head(stream).await, real.stream_head(stream).await);
    let short = |head: Option<StreamHead>| head.map(|head| (head.seq, head.hash));
    assert_eq!(short(a.expect("readable")), short(b.expect("readable")));
    let a = model.read_stream(stream, Seq(0), 1000).await.expect("readable");
    let b = real.read_stream(stream, Seq(0), 1000).await.expect("readable");
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!((a.prev_hash, a.hash, &a.body), (b.prev_hash, b.hash, &b.body));
        let place = PayloadRef { seq: a.first_seq(), index: 0 };
        let (a, b) =
            (model.read_payload(stream, place).await, real.read_payload(stream, place).await);
        assert_eq!(a.expect("readable"), b.expect("readable"));
    }
}
