//! Random histories: a log and the log in memory give the same results for the same operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use uuid::Uuid;

use super::{Log, commit, event, stream};
use crate::{AppendError, Commit, EventLog, Head, MemoryLog};

/// Number of streams in a history.
pub const STREAMS: usize = 3;

/// Head that a writer expects.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
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
pub enum Op {
    /// Appends so many events to the stream of this index.
    Append(usize, usize, Expected),
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
enum Answer {
    Appended(Seq, [u8; 32]),
    Conflict(Option<(Seq, [u8; 32])>),
    Mismatch,
    Erased(bool),
}

/// One of the two logs, with its own heads: positions differ between logs.
struct Side {
    log: Log,
    heads: BTreeMap<usize, Vec<Head>>,
    tried: Vec<(usize, Commit)>,
}

impl Side {
    fn expected(&self, stream: usize, expected: Expected) -> Option<Head> {
        let heads = self.heads.get(&stream).map_or(&[][..], Vec::as_slice);
        match expected {
            Expected::Nothing => None,
            Expected::Head => heads.last().copied(),
            Expected::Earlier(back) => {
                heads.len().checked_sub(back + 1).and_then(|at| heads.get(at)).copied()
            }
            Expected::Wrong => heads.last().map(|head| Head { hash: [7; 32], ..*head }),
        }
    }

    async fn append(&mut self, stream: usize, commit: Commit) -> Answer {
        let short = |head: Head| (head.seq, head.hash);
        self.tried.push((stream, commit.clone()));
        match self.log.append(commit).await {
            Ok(head) => {
                let heads = self.heads.entry(stream).or_default();
                if heads.last().is_none_or(|last| last.seq < head.seq) {
                    heads.push(head);
                }
                Answer::Appended(head.seq, head.hash)
            }
            Err(AppendError::Conflict { actual }) => Answer::Conflict(actual.map(short)),
            Err(AppendError::CommitMismatch) => Answer::Mismatch,
            Err(error) => panic!("{error}"),
        }
    }

    async fn take(&mut self, op: &Op, id: Uuid, streams: &[StreamKey]) -> Option<Answer> {
        match op {
            Op::Append(stream, events, expected) => {
                let expected = self.expected(*stream, *expected);
                let mut next = commit(&streams[*stream], expected, "text");
                next.id = id;
                next.events = (0..*events).map(|number| event(&number.to_string())).collect();
                Some(self.append(*stream, next).await)
            }
            Op::Again(which) | Op::Changed(which) => {
                let at = which.checked_rem(self.tried.len())?;
                let (stream, mut same) = self.tried[at].clone();
                if matches!(op, Op::Changed(_)) {
                    same.events.push(event("changed"));
                }
                Some(self.append(stream, same).await)
            }
            Op::Erase(stream, seq) => {
                let place = PayloadRef { seq: *seq, index: 0 };
                let erased = self.log.erase_payload(&streams[*stream], place).await;
                Some(Answer::Erased(erased.expect("readable")))
            }
            Op::Reopen => None,
        }
    }
}

/// Applies the operations to both logs, and compares every result and finally everything that can
/// be read. The log under test must seal payloads with this key.
pub async fn agree(ops: &[Op], key: [u8; 32], log: Log, reopen: impl AsyncFn(Log) -> Log) {
    let streams: Vec<StreamKey> = (0..STREAMS).map(|_| stream()).collect();
    let side = |log: Log| Side { log, heads: BTreeMap::new(), tried: Vec::new() };
    let model = Arc::new(MemoryLog::sealed_with(key));
    let (mut model, mut real) = (side(model), side(log));
    for (number, op) in ops.iter().enumerate() {
        if matches!(op, Op::Reopen) {
            real.log = reopen(real.log).await;
        }
        let id = Uuid::now_v7();
        let expected = model.take(op, id, &streams).await;
        assert_eq!(real.take(op, id, &streams).await, expected, "operation {number}: {op:?}");
    }
    for stream in &streams {
        same_stream(&*model.log, &*real.log, stream).await;
    }
    let due = Timestamp(9);
    let due = (model.log.due(due, 99).await, real.log.due(due, 99).await);
    let ours = |found: Vec<StreamKey>| -> Vec<StreamKey> {
        streams.iter().filter(|stream| found.contains(stream)).cloned().collect()
    };
    assert_eq!(ours(due.0.expect("readable")), ours(due.1.expect("readable")));
}

async fn same_stream(model: &dyn EventLog, real: &dyn EventLog, stream: &StreamKey) {
    let (a, b) = (model.head(stream).await, real.head(stream).await);
    let short = |head: Option<Head>| head.map(|head| (head.seq, head.hash));
    assert_eq!(short(a.expect("readable")), short(b.expect("readable")));
    let a = model.read_stream(stream, Seq(0), 1000).await.expect("readable");
    let b = real.read_stream(stream, Seq(0), 1000).await.expect("readable");
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!((a.prev_hash, a.hash, &a.body), (b.prev_hash, b.hash, &b.body));
        let place = PayloadRef { seq: a.first_seq(), index: 0 };
        let (a, b) = (model.payload(stream, place).await, real.payload(stream, place).await);
        assert_eq!(a.expect("readable"), b.expect("readable"));
    }
}
