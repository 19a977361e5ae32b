//! Many writers to one stream at once: all get through, each on the state that the one before has
//! left, in one process and between processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use convergio_domain::decider::{Decider, DecisionContext, RecordedEvent, Wake};
use convergio_domain::event::Event;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{CommitError, EventLog, Repository, SystemClock};
use convergio_test_support::nats::{Cluster, SyncMode, open_log};
use tokio::task::JoinSet;

use crate::support::{Log, embedded, memory, new_event, new_stream};

const WRITERS: usize = 1000;

/// How many events were folded, by all tests of this process.
static FOLDED: AtomicU64 = AtomicU64::new(0);

/// A noun whose events are numbered by the states that they were decided on.
struct Count;

impl Decider for Count {
    type State = u64;
    type Command = ();
    type Event = Event;
    type Rejection = std::convert::Infallible;

    fn decide(
        state: &u64,
        (): (),
        _: &DecisionContext,
        _: Seq,
    ) -> Result<Vec<Event>, Self::Rejection> {
        Ok(vec![new_event(&(state + 1).to_string())])
    }

    fn evolve(state: &mut u64, _: RecordedEvent<'_>) {
        FOLDED.fetch_add(1, Ordering::Relaxed);
        *state += 1;
    }

    fn next_wake(_: &u64) -> Wake {
        Wake::Parked
    }
}

fn context() -> DecisionContext {
    DecisionContext { now: Timestamp(7), actor: "tester".parse().expect("a name") }
}

fn process(log: &Log) -> Repository {
    Repository::new(Arc::clone(log), Arc::new(SystemClock))
}

/// Writes once for each writer, all at once; every other one needs the state that follows.
fn begin_writers(repository: &Repository, stream: &StreamKey, writers: usize) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..writers {
        let (repository, stream) = (repository.clone(), stream.clone());
        tasks.spawn(async move {
            let context = context();
            let command = |_: &u64, _| ((), Vec::new());
            if number.is_multiple_of(2) {
                let loaded = repository.execute::<Count>(&stream, &context, command).await;
                let loaded = loaded.expect("its turn comes");
                assert_eq!(loaded.head.map(|head| head.seq), Some(Seq(loaded.state)));
            } else {
                let submitted =
                    repository.submit_command::<Count>(&stream, &context, command).await;
                submitted.expect("its turn comes");
            }
        });
    }
    tasks
}

/// Every event stands where the state that it was decided on says.
async fn check_dense(log: &dyn EventLog, stream: &StreamKey, count: usize) {
    let records = log.read_stream(stream, Seq(0), count + 1).await.expect("readable");
    let events: Vec<_> = records.iter().flat_map(|record| record.body.events.clone()).collect();
    let expected: Vec<_> = (1..=count).map(|number| new_event(&number.to_string())).collect();
    assert!(events == expected, "{} events, or others than expected", events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_writers_at_once_all_get_through() {
    let ((memory, _), (embedded, _folder)) = (memory(), embedded());
    for log in [memory, embedded] {
        let stream = new_stream();
        begin_writers(&process(&log), &stream, WRITERS).join_all().await;
        check_dense(&*log, &stream, WRITERS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_writer_folds_again_what_the_one_before_has_folded() {
    let (log, _folder) = embedded();
    let stream = new_stream();
    let before = FOLDED.load(Ordering::Relaxed);
    begin_writers(&process(&log), &stream, WRITERS).join_all().await;
    let folded = FOLDED.load(Ordering::Relaxed) - before;
    // In a process of its own it is one for each; other tests may run beside it.
    assert!(folded < 20 * WRITERS as u64, "{folded} events folded for {WRITERS} writers");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_several_processes_all_get_through() {
    let ((memory, _), (embedded, _folder)) = (memory(), embedded());
    for log in [memory, embedded] {
        let stream = new_stream();
        let processes = [process(&log), process(&log), process(&log)];
        let writers = processes.each_ref().map(|it| begin_writers(it, &stream, WRITERS / 5));
        for tasks in writers {
            tasks.join_all().await;
        }
        check_dense(&*log, &stream, WRITERS / 5 * 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_two_processes_on_a_cluster_all_get_through() {
    for servers in [1, 3] {
        let cluster = Cluster::start(servers, SyncMode::Always);
        let first: Log = Arc::new(cluster.log("Q").await);
        let second: Log = Arc::new(open_log(&cluster.config("Q")).await);
        let stream = new_stream();
        let writers = [&first, &second].map(|log| begin_writers(&process(log), &stream, 250));
        for tasks in writers {
            tasks.join_all().await;
        }
        check_dense(&*second, &stream, 500).await;
    }
}

/// Who holds a state takes its turn, comes up to date and decides then: nobody comes between.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_its_turn_first_is_not_overtaken_among_a_thousand_writers() {
    let (log, _folder) = embedded();
    let (stream, repository) = (new_stream(), process(&log));
    // The first commit of a stream takes no turn.
    begin_writers(&repository, &stream, 1).join_all().await;
    let mut state = repository.load::<Count>(&stream).await.expect("readable");
    let writers = begin_writers(&repository, &stream, WRITERS);
    for _ in 0..10 {
        let turn = repository.take_turn(&stream).await;
        if repository.is_behind(&state) {
            repository.refresh(&mut state).await.expect("readable");
        }
        let context = context();
        let written = repository.commit_in_turn(&turn, &mut state, (), Vec::new(), &context).await;
        assert_eq!(written.expect("nobody was faster"), 1);
    }
    writers.join_all().await;
    check_dense(&*log, &stream, 1 + WRITERS + 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_behind_is_brought_up_to_date_in_place_of_being_written_on() {
    let (log, _kept) = memory();
    let (stream, repository) = (new_stream(), process(&log));
    let other = process(&log);
    let mut state = repository.load::<Count>(&stream).await.expect("readable");
    for rival in [&repository, &other] {
        let command = |_: &u64, _| ((), Vec::new());
        rival.submit_command::<Count>(&stream, &context(), command).await.expect("written");
        let written = repository.commit(&mut state, (), Vec::new(), &context()).await;
        assert!(matches!(written, Err(CommitError::Conflict)), "{written:?}");
        let written = repository.commit(&mut state, (), Vec::new(), &context()).await;
        assert_eq!(written.expect("it is up to date"), 1);
    }
    check_dense(&*log, &stream, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_waiting_holds_up_nobody() {
    let (log, _folder) = embedded();
    let (stream, repository) = (new_stream(), process(&log));
    let mut gone = begin_writers(&repository, &stream, WRITERS / 2);
    let rest = begin_writers(&repository, &stream, WRITERS / 2);
    gone.abort_all();
    while gone.join_next().await.is_some() {}
    rest.join_all().await;
    let head = log.stream_head(&stream).await.expect("readable").expect("written");
    let count = usize::try_from(head.seq.0).expect("few");
    assert!((WRITERS / 2..=WRITERS).contains(&count), "{count}");
    check_dense(&*log, &stream, count).await;
}

#[tokio::test]
async fn a_turn_that_does_not_come_is_a_conflict_that_changed_nothing() {
    let (log, _kept) = memory();
    let (stream, repository) = (new_stream(), process(&log));
    let repository = repository.with_write_timeout(Duration::from_millis(20));
    let turn = repository.take_turn(&stream).await;
    let command = |_: &u64, _| ((), Vec::new());
    let late = repository.submit_command::<Count>(&stream, &context(), command).await;
    assert!(matches!(late, Err(CommitError::Conflict)), "{late:?}");
    assert_eq!(log.stream_head(&stream).await.expect("readable"), None);
    drop(turn);
    repository.submit_command::<Count>(&stream, &context(), command).await.expect("its turn comes");
}
