//! Laws that hold on every provider. Each takes a fresh log.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use convergio_eventstore::{AppendError, Limits, Position};
use futures_util::StreamExt;
use tokio::task::JoinSet;

use crate::support::{Log, commit, event, stream};

pub(crate) async fn of_n_rivals_exactly_one_wins(log: Log) {
    let stream = stream();
    let mut head = None;
    for round in 0..20 {
        let mut rivals = JoinSet::new();
        for rival in 0..8 {
            let commit = commit(&stream, head, &format!("{round} {rival}"));
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
    assert_eq!(log.head(&stream).await.expect("readable"), head);
}

pub(crate) async fn stale_future_and_missing_heads_are_conflicts(log: Log) {
    let stream = stream();
    let first = log.append(commit(&stream, None, "a")).await.expect("new");
    let second = log.append(commit(&stream, Some(first), "b")).await.expect("next");
    let mut future = second;
    future.seq = Seq(9);
    for expected in [None, Some(first), Some(future)] {
        let refused = log.append(commit(&stream, expected, "c")).await;
        assert!(matches!(refused, Err(AppendError::Conflict { actual }) if actual == Some(second)));
    }
    assert_eq!(log.read_stream(&stream, Seq(0), 10).await.expect("readable").len(), 2);
}

pub(crate) async fn the_same_commit_is_appended_once_for_ever(log: Log) {
    let stream = stream();
    let first = commit(&stream, None, "a");
    let head = log.append(first.clone()).await.expect("new");
    log.append(commit(&stream, Some(head), "rival")).await.expect("next");
    let mut later = first.clone();
    later.time = Timestamp(99);
    assert_eq!(log.append(later).await.expect("known"), head, "a retry takes a new time");
    let mut other = first;
    other.events = vec![event("other")];
    assert!(matches!(log.append(other).await, Err(AppendError::CommitMismatch)));
    assert_eq!(log.read_stream(&stream, Seq(0), 10).await.expect("readable").len(), 2);
}

pub(crate) async fn a_follower_sees_every_record_once_and_in_order_while_64_append(log: Log) {
    let mut tail = log.tail(Position::START);
    let mut writers = JoinSet::new();
    for _ in 0..64 {
        let log = Arc::clone(&log);
        writers.spawn(async move {
            let (stream, mut head) = (stream(), None);
            for number in 0..20 {
                let commit = commit(&stream, head, &number.to_string());
                head = Some(log.append(commit).await.expect("alone on its stream"));
            }
        });
    }
    let mut seen = Vec::new();
    while seen.len() < 64 * 20 {
        seen.push(tail.next().await.expect("more").expect("readable").position);
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

pub(crate) async fn payloads_come_back_and_what_is_unknown_is_nothing(log: Log) {
    let stream = stream();
    let text = "long ".repeat(120_000);
    log.append(commit(&stream, None, &text)).await.expect_err("too long an event");
    let mut large = commit(&stream, None, "x");
    large.payloads[0].bytes = Bytes::from(text.clone());
    log.append(large).await.map(drop).expect("a large payload is fine");
    let place = |seq, index| PayloadRef { seq: Seq(seq), index };
    let opened = log.payload(&stream, place(1, 0)).await.expect("readable");
    assert_eq!(opened, Some(Bytes::from(text)));
    for missing in [place(1, 1), place(2, 0), place(0, 0)] {
        assert_eq!(log.payload(&stream, missing).await.expect("readable"), None);
    }
}

pub(crate) async fn limits_are_told(log: Log) {
    let stream = stream();
    let mut none = commit(&stream, None, "x");
    none.events.clear();
    let mut many = commit(&stream, None, "x");
    many.events = vec![event("e"); Limits::EVENTS + 1];
    let mut payloads = commit(&stream, None, "x");
    payloads.payloads = vec![payloads.payloads[0].clone(); Limits::PAYLOADS + 1];
    for commit in [none, many, payloads] {
        let refused = log.append(commit).await;
        assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    }
    assert_eq!(log.head(&stream).await.expect("readable"), None);
}

pub(crate) async fn the_wake_index_follows_the_last_commit(log: Log) {
    let (stream, mut head) = (stream(), None);
    let steps = [
        (Wake::Now, true, None),
        (Wake::At(Timestamp(500)), false, Some(Timestamp(500))),
        (Wake::At(Timestamp(50)), true, None),
        (Wake::Parked, false, None),
        (Wake::Done, false, None),
    ];
    for (wake, is_due, next) in steps {
        let mut commit = commit(&stream, head, "x");
        commit.wake = wake;
        head = Some(log.append(commit).await.expect("next"));
        let due = log.due(Timestamp(100), 10).await.expect("readable");
        assert_eq!(due.contains(&stream), is_due, "{wake:?}");
        assert_eq!(log.next_due(Timestamp(100)).await.expect("readable"), next, "{wake:?}");
    }
}

/// Every law, as tests of the providers that need nothing else, and as a list for the others.
macro_rules! laws {
    ($($law:ident)*) => {
        mod local {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                let (providers, _folder) = crate::support::providers();
                for log in providers {
                    super::$law(log).await;
                }
            })*
        }

        /// Holds every law against logs that are made for it.
        pub(crate) async fn hold(fresh: impl AsyncFn(usize) -> Log) {
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

laws! {
    of_n_rivals_exactly_one_wins
    stale_future_and_missing_heads_are_conflicts
    the_same_commit_is_appended_once_for_ever
    a_follower_sees_every_record_once_and_in_order_while_64_append
    payloads_come_back_and_what_is_unknown_is_nothing
    limits_are_told
    the_wake_index_follows_the_last_commit
}
