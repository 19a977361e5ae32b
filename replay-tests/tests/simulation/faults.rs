//! A log that is slow and refuses now and then, a clock that is not real, and numbers that follow
//! from a seed.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use convergio_domain::stream::{Seq, StreamKind};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{
    AppendError, Commit, InterceptedLog, LogError, LogInterceptor, LogRead, LogReader, LogWriter,
    MemoryLog, Position, Record, StreamHead, WallClock,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// Numbers that follow from a seed (splitmix64).
pub(crate) struct Random(pub(crate) AtomicU64);

impl Random {
    pub(crate) fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Time that goes on from life to life; within one it is that of its runtime, which is paused.
#[derive(Clone)]
pub(crate) struct Fake {
    before: Arc<AtomicI64>,
    life: Arc<Mutex<Option<tokio::time::Instant>>>,
}

impl Fake {
    /// A clock that begins long after the epoch.
    pub(crate) fn new() -> Self {
        Self { before: Arc::new(AtomicI64::new(1_000_000)), life: Arc::default() }
    }

    pub(crate) fn begin(&self) {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(tokio::time::Instant::now());
    }

    pub(crate) fn end(&self) {
        self.before.store(self.now().0 + 1, Ordering::Relaxed);
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl WallClock for Fake {
    fn now(&self) -> Timestamp {
        let life = *self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = life.map_or(0, |begun| begun.elapsed().as_millis());
        Timestamp(self.before.load(Ordering::Relaxed) + i64::try_from(passed).unwrap_or(0))
    }
}

/// Makes a log slow, and lets it refuse now and then; what it says is true all the same.
pub(crate) struct Faults {
    pub(crate) log: MemoryLog,
    random: Arc<Random>,
    /// Of so many calls one is refused; 0 is none.
    pub(crate) one_in: AtomicU64,
    /// Events of a run that it takes at once.
    events_limit: AtomicUsize,
    early: broadcast::Sender<Arc<Record>>,
}

impl Faults {
    pub(crate) fn new(random: &Arc<Random>) -> Self {
        let (log, one_in) = (MemoryLog::new(), AtomicU64::new(0));
        let early = broadcast::channel(64).0;
        let events_limit = AtomicUsize::new(usize::MAX);
        Self { log, random: Arc::clone(random), one_in, events_limit, early }
    }

    /// The log with its faults.
    pub(crate) fn faulty_log(self: &Arc<Self>) -> Arc<dyn LogWriter> {
        Arc::new(InterceptedLog::new(Arc::new(self.log.clone()), Arc::clone(self)))
    }

    /// Takes no more events of a run at once from now on.
    pub(crate) fn limit_events(&self, limit: usize) {
        self.events_limit.store(limit, Ordering::Relaxed);
    }

    async fn hesitate(&self) -> Result<(), LogError> {
        let one_in = self.one_in.load(Ordering::Relaxed);
        if one_in == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(self.random.below(20))).await;
        match self.random.below(one_in) {
            0 => Err(LogError::Unavailable("simulated".into())),
            _ => Ok(()),
        }
    }

    /// Tells of a commit as it will stand in the log, if it comes to stand there, and nobody is
    /// faster.
    async fn tell_early(&self, commit: Commit) -> Result<(), LogError> {
        let (scratch, stream) = (MemoryLog::new(), commit.stream.clone());
        if scratch.append(commit).await.is_ok() {
            let written = scratch.read_stream(&stream, Seq(0), 1).await?;
            let end = self.log.read_all(Position::START, 0).await?.tail;
            let told = written.first().map(|record| Record::clone(record));
            let told = told.map(|record| Record { position: Position(end.0 + 1), ..record });
            // Nobody listening is fine.
            let _listeners = told.map(|record| self.early.send(Arc::new(record)));
        }
        Ok(())
    }
}

#[async_trait]
impl LogInterceptor for Faults {
    async fn before_read(&self, read: LogRead) -> Result<(), LogError> {
        match read {
            LogRead::All | LogRead::NextDueTime => Ok(()),
            _ => self.hesitate().await,
        }
    }

    async fn append(
        &self,
        log: &Arc<dyn LogWriter>,
        commit: Commit,
    ) -> Result<StreamHead, AppendError> {
        if commit.expected.is_none() {
            self.tell_early(commit.clone()).await?;
        }
        self.hesitate().await?;
        let limit = self.events_limit.load(Ordering::Relaxed);
        if commit.stream.kind == StreamKind::Run && commit.events.len() > limit {
            return Err(AppendError::TooLarge { what: "a commit of the simulation", limit });
        }
        let appended = log.append(commit).await;
        // Who dies here has appended and does not know it.
        if self.one_in.load(Ordering::Relaxed) != 0 {
            tokio::time::sleep(Duration::from_millis(self.random.below(20))).await;
        }
        appended
    }

    fn tail_pending(
        &self,
        _tail: BoxStream<'static, Arc<Record>>,
    ) -> BoxStream<'static, Arc<Record>> {
        let early = BroadcastStream::new(self.early.subscribe());
        early.filter_map(async |record| record.ok()).boxed()
    }
}
