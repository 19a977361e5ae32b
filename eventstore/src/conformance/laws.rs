//! Laws that every provider obeys. Each takes a fresh log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use futures_util::StreamExt;
use tokio::task::JoinSet;

use super::{Log, READY_TIMEOUT, new_commit, new_event, new_stream};
use crate::{AppendError, Commit, LogLimits, Position, RawScan, Record, StreamHead, verify_log};

/// Waits for the next record of a tail.
async fn next_record(
    tail: &mut (impl StreamExt<Item = Result<Arc<Record>, crate::LogError>> + Unpin),
) -> Arc<Record> {
    let next = tokio::time::timeout(READY_TIMEOUT, tail.next()).await;
    next.expect("in time").expect("more").expect("readable")
}

/// Appends `count` commits one after the other; returns the last head.
async fn append_commits(log: &Log, stream: &StreamKey, count: usize) -> StreamHead {
    let mut head = log.stream_head(stream).await.expect("readable");
    for number in 0..count {
        head = Some(log.append(new_commit(stream, head, &number.to_string())).await.expect("next"));
    }
    head.expect("at least one")
}

/// Of writers that expect the same head one wins; the others get the winner's head.
pub async fn of_n_rivals_exactly_one_wins(log: Log) {
    let stream = new_stream();
    let mut head = None;
    for round in 0..20 {
        let mut rivals = JoinSet::new();
        for rival in 0..8 {
            let commit = new_commit(&stream, head, &format!("{round} {rival}"));
            let log = Arc::clone(&log);
            rivals.spawn(async move { log.append(commit).await });
        }
        let answers = rivals.join_all().await;
        let won: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let told = |error: &AppendError| match error {
            AppendError::Conflict { actual } => *actual,
            other => panic!("{other}"),
        };
        let actual = answers.iter().filter_map(|answer| answer.as_ref().err()).map(told);
        assert!(actual.into_iter().all(|actual| actual == Some(*won[0])));
        head = Some(*won[0]);
    }
    assert_eq!(log.stream_head(&stream).await.expect("readable"), head);
}

/// Many writers on one stream: each makes progress, nothing is duplicated, nothing is lost.
pub async fn writers_that_try_again_all_get_their_turn(log: Log) {
    const WRITERS: usize = 24;
    const EACH: usize = 5;
    let stream = new_stream();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (log, stream) = (Arc::clone(&log), stream.clone());
        writers.spawn(async move {
            let (mut head, mut done) = (None, Vec::new());
            while done.len() < EACH {
                let next = new_commit(&stream, head, &format!("{writer} {}", done.len()));
                match log.append(next.clone()).await {
                    Ok(appended) => {
                        done.push(next.id);
                        head = Some(appended);
                    }
                    Err(AppendError::Conflict { actual }) => head = actual,
                    Err(error) => panic!("{error}"),
                }
            }
            done
        });
    }
    let told: BTreeSet<_> = writers.join_all().await.into_iter().flatten().collect();
    let found = log.read_stream(&stream, Seq(0), WRITERS * EACH + 1).await.expect("readable");
    let ids: BTreeSet<_> = found.iter().map(|record| record.body.commit).collect();
    assert_eq!(found.len(), WRITERS * EACH);
    assert_eq!(ids, told);
}

/// A rejected commit does not affect others that are written in the same group.
pub async fn a_conflict_leaves_the_others_alone(log: Log) {
    let streams: Vec<_> = (0..32).map(|_| new_stream()).collect();
    let mut heads = Vec::new();
    for stream in &streams {
        heads.push(append_commits(&log, stream, 2).await);
    }
    let mut tries = JoinSet::new();
    for (number, (stream, head)) in streams.iter().zip(&heads).enumerate() {
        let expected = if number % 2 == 0 { Some(*head) } else { None };
        let (log, commit) = (Arc::clone(&log), new_commit(stream, expected, "x"));
        tries.spawn(async move { (number, log.append(commit).await) });
    }
    for (number, answer) in tries.join_all().await {
        match answer {
            Ok(head) => assert!(number % 2 == 0 && head.seq == Seq(3)),
            Err(AppendError::Conflict { actual }) => {
                assert!(number % 2 == 1 && actual == Some(heads[number]));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// An expected head that is not the stream's is a conflict, be it stale, future or missing.
pub async fn stale_future_and_missing_heads_are_conflicts(log: Log) {
    let stream = new_stream();
    let first = log.append(new_commit(&stream, None, "a")).await.expect("new");
    let second = log.append(new_commit(&stream, Some(first), "b")).await.expect("next");
    let mut future = second;
    future.seq = Seq(9);
    let mut other = second;
    other.hash = [9; 32];
    for expected in [None, Some(first), Some(future), Some(other)] {
        let refused = log.append(new_commit(&stream, expected, "c")).await;
        assert!(matches!(refused, Err(AppendError::Conflict { actual }) if actual == Some(second)));
    }
    assert_eq!(log.read_stream(&stream, Seq(0), 10).await.expect("readable").len(), 2);
}

/// Appending a commit again returns its first head, also after other commits; the same id with
/// another body is an error.
pub async fn the_same_commit_is_appended_once_for_ever(log: Log) {
    let stream = new_stream();
    let first = new_commit(&stream, None, "a");
    let head = log.append(first.clone()).await.expect("new");
    log.append(new_commit(&stream, Some(head), "rival")).await.expect("next");
    let mut later = first.clone();
    later.time = Timestamp(99);
    assert_eq!(log.append(later).await.expect("known"), head, "a retry takes a new time");
    let mut other = first;
    other.events = vec![new_event("other")];
    assert!(matches!(log.append(other).await, Err(AppendError::CommitMismatch)));
    assert_eq!(log.read_stream(&stream, Seq(0), 10).await.expect("readable").len(), 2);
}

/// A retry that overtakes its first try: both get the same head.
pub async fn a_commit_that_races_itself_is_one_commit(log: Log) {
    let stream = new_stream();
    let mut head = None;
    for round in 0..10 {
        let same = new_commit(&stream, head, &round.to_string());
        let mut tries = JoinSet::new();
        for _ in 0..6 {
            let (log, same) = (Arc::clone(&log), same.clone());
            tries.spawn(async move { log.append(same).await.expect("the same commit") });
        }
        let heads = tries.join_all().await;
        assert!(heads.iter().all(|other| *other == heads[0]), "{heads:?}");
        head = Some(heads[0]);
    }
    assert_eq!(head.map(|head| head.seq), Some(Seq(10)));
}

/// A cancelled append leaves a whole commit or none, and may be retried.
pub async fn an_append_that_nobody_waits_for_is_whole_or_absent(log: Log) {
    let (stream, mut head) = (new_stream(), None);
    for round in 0..30_u64 {
        let next = new_commit(&stream, head, &round.to_string());
        // Delays from 0 to 3 ms cancel the append before, during and after its write.
        let waited = Duration::from_micros(round * round * 7 % 3000);
        // Given up early or late.
        let _given_up = tokio::time::timeout(waited, log.append(next.clone())).await;
        let appended = log.append(next).await.expect("the same commit");
        assert_eq!(appended.seq, Seq(round + 1));
        head = Some(appended);
    }
    assert_eq!(log.read_stream(&stream, Seq(0), 100).await.expect("readable").len(), 30);
}

/// Tails and pages return the same records in the same order while many writers append.
pub async fn a_follower_sees_every_record_once_and_in_order_while_64_append(log: Log) {
    let mut tail = log.tail_all(Position::START);
    let mut writers = JoinSet::new();
    for _ in 0..64 {
        let log = Arc::clone(&log);
        writers.spawn(async move { append_commits(&log, &new_stream(), 20).await });
    }
    let mut seen = Vec::new();
    while seen.len() < 64 * 20 {
        seen.push(next_record(&mut tail).await.position);
    }
    writers.join_all().await;
    assert!(seen.is_sorted() && seen.iter().collect::<BTreeSet<_>>().len() == seen.len());
    let mut all = Vec::new();
    loop {
        let after = all.last().copied().unwrap_or(Position::START);
        let page = log.read_all(after, 300).await.expect("readable");
        all.extend(page.records.iter().map(|record| record.position));
        if page.records.is_empty() {
            break;
        }
    }
    assert_eq!(seen, all);
}

/// A tail of one stream returns all of it from any event on, and nothing else.
pub async fn a_follower_of_one_stream_sees_it_and_no_other(log: Log) {
    let (ours, others) = (new_stream(), new_stream());
    let mut first = new_commit(&ours, None, "a");
    first.events = vec![new_event("1"), new_event("2"), new_event("3")];
    let mut head = log.append(first).await.expect("new");
    let mut tails: Vec<_> = [0, 2, 3].map(|after| log.tail_stream(&ours, Seq(after))).into();
    let writer = {
        let log = Arc::clone(&log);
        tokio::spawn(async move { append_commits(&log, &others, 200).await })
    };
    for number in 0..200 {
        head = log.append(new_commit(&ours, Some(head), &number.to_string())).await.expect("next");
        if number == 100 {
            tails.push(log.tail_stream(&ours, Seq(50)));
        }
    }
    writer.await.expect("no panic");
    // One that is far behind, and one of a stream that begins later.
    tails.push(log.tail_stream(&ours, Seq(0)));
    for (mut tail, first) in tails.into_iter().zip([1, 1, 4, 51, 1]) {
        let mut expected = Seq(first);
        while expected <= head.seq {
            let record = next_record(&mut tail).await;
            assert_eq!((&record.stream, record.first_seq()), (&ours, expected));
            expected = record.last_seq().offset_by(1);
        }
    }
    let later = new_stream();
    let mut tail = log.tail_stream(&later, Seq(0));
    append_commits(&log, &later, 2).await;
    assert_eq!(next_record(&mut tail).await.first_seq(), Seq(1));
    assert_eq!(next_record(&mut tail).await.first_seq(), Seq(2));
}

/// Pages of any size and start are parts of the same history.
pub async fn pages_are_parts_of_one_history(log: Log) {
    let stream = new_stream();
    let mut head = None;
    for number in 1..=40 {
        let mut next = new_commit(&stream, head, "x");
        next.events = vec![new_event(&number.to_string()); number];
        head = Some(log.append(next).await.expect("next"));
        // Others in between.
        append_commits(&log, &super::new_stream(), 1).await;
    }
    let all = log.read_stream(&stream, Seq(0), 100).await.expect("readable");
    assert_eq!(all.len(), 40);
    for after in [0, 780, 1, 400, 2, 210, 3, 300, 30, 819, 77, 78, 630, 79, 820, 821] {
        for limit in [0, 1, 3, 100] {
            let page = log.read_stream(&stream, Seq(after), limit).await.expect("readable");
            let part = all.iter().filter(|record| record.first_seq() > Seq(after)).take(limit);
            assert!(page.iter().eq(part), "after {after}, {limit}");
        }
    }
}

/// Raw and decoded reads agree, and every hash is that of the chain.
pub async fn raw_records_are_what_is_read(log: Log) {
    let streams = [new_stream(), new_stream(), new_stream()];
    for round in 1..=4 {
        for stream in &streams {
            append_commits(&log, stream, round).await;
        }
    }
    let raw = log.read_raw(RawScan::All(Position::START), 100).await.expect("readable");
    let page = log.read_all(Position::START, 100).await.expect("readable");
    assert_eq!(raw.len(), 30);
    for (raw, record) in raw.iter().zip(&page.records) {
        assert_eq!((raw.position, &raw.stream), (record.position, &record.stream));
        assert_eq!((raw.seq, raw.hash), (record.first_seq(), record.hash));
        assert_eq!(raw.body, record.body.to_canonical_json().expect("canonical"));
        let mut hasher = blake3::Hasher::new();
        hasher.update(&raw.prev_hash).update(&raw.body);
        assert_eq!(*hasher.finalize().as_bytes(), raw.hash);
    }
    let ours = log.read_raw(RawScan::Stream(&streams[1], Seq(3)), 5).await.expect("readable");
    let expected: Vec<_> = raw.into_iter().filter(|raw| raw.stream == streams[1]).collect();
    assert_eq!(ours, expected[3..8]);
}

/// The same stream id of another tenant is another stream.
pub async fn tenants_do_not_share_streams(log: Log) {
    let ours = new_stream();
    let mut theirs = ours.clone();
    theirs.tenant = "other".parse().expect("a name");
    let head = append_commits(&log, &ours, 3).await;
    assert_eq!(log.stream_head(&theirs).await.expect("readable"), None);
    let place = PayloadRef { seq: Seq(1), index: 0 };
    assert_eq!(log.read_payload(&theirs, place).await.expect("readable"), None);
    let first = log.append(new_commit(&theirs, None, "a")).await.expect("new");
    assert_eq!(first.seq, Seq(1));
    assert_eq!(log.stream_head(&ours).await.expect("readable"), Some(head));
}

/// Payloads are read as they were written; a payload that never existed is `None`.
pub async fn payloads_come_back_and_what_is_unknown_is_nothing(log: Log) {
    let stream = new_stream();
    let text = "long ".repeat(120_000);
    log.append(new_commit(&stream, None, &text)).await.expect_err("too long an event");
    let mut large = new_commit(&stream, None, "x");
    large.payloads[0].bytes = Bytes::from(text.clone());
    let mut empty = large.payloads[0].clone();
    empty.bytes = Bytes::new();
    large.payloads.push(empty);
    log.append(large).await.map(drop).expect("a large payload is fine");
    let place = |seq, index| PayloadRef { seq: Seq(seq), index };
    let opened = log.read_payload(&stream, place(1, 0)).await.expect("readable");
    assert_eq!(opened, Some(Bytes::from(text)));
    let opened = log.read_payload(&stream, place(1, 1)).await.expect("readable");
    assert_eq!(opened, Some(Bytes::new()), "an empty payload is not an erased one");
    for missing in [place(1, 2), place(2, 0), place(0, 0)] {
        assert_eq!(log.read_payload(&stream, missing).await.expect("readable"), None);
    }
}

/// An erased payload stays erased, even if its commit is appended again, and the chain holds.
pub async fn an_erased_payload_is_gone_and_the_chain_holds(log: Log) {
    let stream = new_stream();
    let first = new_commit(&stream, None, "personal");
    let head = log.append(first.clone()).await.expect("new");
    log.append(new_commit(&stream, Some(head), "kept")).await.expect("next");
    let place = |seq| PayloadRef { seq: Seq(seq), index: 0 };
    assert!(log.erase_payload(&stream, place(1)).await.expect("erased"));
    assert!(!log.erase_payload(&stream, place(1)).await.expect("nothing left"));
    assert!(!log.erase_payload(&stream, place(7)).await.expect("never there"));
    assert_eq!(log.append(first).await.expect("known"), head);
    assert_eq!(log.read_payload(&stream, place(1)).await.expect("readable"), None);
    assert_eq!(log.read_payload(&stream, place(2)).await.expect("readable").expect("kept"), "kept");
    let found = verify_log(&*log, true).await.expect("the chain holds");
    assert_eq!((found.records, found.payloads, found.erased), (2, 1, 1));
}

/// A commit that exceeds a limit is rejected as a whole.
pub async fn limits_are_told(log: Log) {
    let stream = new_stream();
    let base = || new_commit(&stream, None, "x");
    let with = |change: fn(&mut Commit)| {
        let mut commit = base();
        change(&mut commit);
        commit
    };
    let tries = [
        with(|commit| commit.events.clear()),
        with(|commit| commit.events = vec![new_event("e"); LogLimits::EVENTS + 1]),
        with(|commit| commit.events = vec![new_event(&"e".repeat(1 << 10)); 512]),
        with(|c| c.payloads = vec![c.payloads[0].clone(); LogLimits::PAYLOADS + 1]),
        with(|c| c.payloads[0].bytes = vec![1; LogLimits::PAYLOAD_BYTES + 1].into()),
        with(|commit| {
            commit.payloads[0].bytes = vec![1; LogLimits::PAYLOAD_BYTES].into();
            commit.payloads = vec![commit.payloads[0].clone(); 3];
        }),
    ];
    for commit in tries {
        let refused = log.append(commit).await;
        assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    }
    assert_eq!(log.stream_head(&stream).await.expect("readable"), None);
}

/// The largest commit that the limits allow is accepted.
pub async fn the_largest_commit_is_taken_whole(log: Log) {
    let stream = new_stream();
    let mut many = new_commit(&stream, None, "x");
    many.events = vec![new_event("e"); LogLimits::EVENTS];
    let bytes: Vec<u8> = (0..LogLimits::PAYLOAD_BYTES).map(|n| (n * 31 % 251) as u8).collect();
    many.payloads[0].bytes = bytes.clone().into();
    let head = log.append(many).await.expect("within the limits");
    assert_eq!(head.seq, Seq(LogLimits::EVENTS as u64));
    let mut wide = new_commit(&stream, Some(head), "x");
    wide.events = vec![new_event(&"e".repeat(1000)); 490];
    let head = log.append(wide).await.expect("within the limits");
    let back = log.read_payload(&stream, PayloadRef { seq: Seq(1), index: 0 }).await;
    assert!(back.expect("readable").expect("kept") == bytes);
    let found = log.read_stream(&stream, Seq(0), 10).await.expect("readable");
    assert_eq!(found.last().map(|record| record.stream_head()), Some(head));
}

/// The wake index holds what each stream's last commit says.
pub async fn the_wake_index_follows_the_last_commit(log: Log) {
    let (stream, mut head) = (new_stream(), None);
    let steps = [
        (Wake::Now, true, None),
        (Wake::At(Timestamp(500)), false, Some(Timestamp(500))),
        (Wake::At(Timestamp(50)), true, None),
        (Wake::Parked, false, None),
        (Wake::Done, false, None),
    ];
    for (wake, is_due, next) in steps {
        let mut commit = new_commit(&stream, head, "x");
        commit.wake = wake;
        head = Some(log.append(commit).await.expect("next"));
        let due = log.due_streams(Timestamp(100), 10).await.expect("readable");
        assert_eq!(due.contains(&stream), is_due, "{wake:?}");
        assert_eq!(log.next_due_time(Timestamp(100)).await.expect("readable"), next, "{wake:?}");
    }
}

/// Calls a macro with the name of every law.
#[macro_export]
macro_rules! for_each_law {
    ($use:ident) => {
        $use! {
            of_n_rivals_exactly_one_wins
            writers_that_try_again_all_get_their_turn
            a_conflict_leaves_the_others_alone
            stale_future_and_missing_heads_are_conflicts
            the_same_commit_is_appended_once_for_ever
            a_commit_that_races_itself_is_one_commit
            an_append_that_nobody_waits_for_is_whole_or_absent
            a_follower_sees_every_record_once_and_in_order_while_64_append
            a_follower_of_one_stream_sees_it_and_no_other
            pages_are_parts_of_one_history
            raw_records_are_what_is_read
            tenants_do_not_share_streams
            payloads_come_back_and_what_is_unknown_is_nothing
            an_erased_payload_is_gone_and_the_chain_holds
            limits_are_told
            the_largest_commit_is_taken_whole
            the_wake_index_follows_the_last_commit
        }
    };
}

macro_rules! hold {
    ($($law:ident)*) => {
        /// Holds every law against logs that are made for it; a log is asked for by its number.
        pub async fn hold(fresh: impl AsyncFn(usize) -> Log) {
            let mut number = 0;
            $(
                eprintln!("law: {}", stringify!($law));
                $law(fresh(number).await).await;
                number += 1;
            )*
            assert!(number > 0);
        }
    };
}

for_each_law!(hold);
