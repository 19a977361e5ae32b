//! [`EmbeddedLog`]: the log on one machine. SQLite in WAL mode with full sync, one writer thread,
//! group commit.
//!
//! One folder belongs to one process. Callers encode, chain and seal; the writer thread compares
//! heads and writes up to [`writer::GROUP_COMMITS`] commits in one transaction with one fsync.
//! Reads use connections of their own and check every hash.
//!
//! Map: this file sends `job_queue` jobs to the `writer` thread; `atomic_batch` and `recovery` are
//! parts of the writer, and `ack_marker` detects a lost end of the log. `reader` answers reads by
//! way of `scan`. `codec` and `shape` encode bodies, `schema` and `sql_values` are the database's
//! form, `folder` is the lock and the key, `recent_payloads` a cache. Only `writer` and its parts
//! may write to the database.

mod codec;
mod folder;
mod fresh;
mod jobs;
mod reader;
mod recovery;
mod rows;
mod scan;
mod schema;
mod shape;
mod whole;
mod witness;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::BroadcastStream;

use crate::commit::Commit;
use crate::error::{AppendError, LogError};
use crate::log::{Archived, Durability, EventLog, Page, Scan};
use crate::prepare::{Prepared, prepare};
use crate::record::{Head, Position, RawRecord, Record};
use crate::seal::{MasterKey, Opening};
use crate::signature::ExportSigner;
use crate::stream_tail::follow_stream;
use crate::tail;
use crate::verify::verify;
use folder::Folder;
use jobs::{Append, Job, Jobs};
use reader::Readers;
use writer::{Followers, Writer, payload_id};

/// Capacity of the writer's queue. When it is full, callers wait for a place (back-pressure).
const QUEUE: usize = 1024;

/// Configuration of an [`EmbeddedLog`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the log; created if it does not exist.
    pub folder: PathBuf,
}

impl Config {
    /// Configures a log in this folder.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self { folder: folder.as_ref().to_owned() }
    }
}

/// Counters of the writer since the log was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of commits acknowledged.
    pub commits: u64,
    /// Number of transactions, each with one fsync.
    pub syncs: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) syncs: AtomicU64,
}

/// A log in a folder, open in this process alone.
pub struct EmbeddedLog {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    ended: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Arc<Readers>,
    keys: MasterKey,
    followers: Followers,
    counters: Arc<Counters>,
    folder: Folder,
}

impl EmbeddedLog {
    /// Opens the log of a folder and locks it for this process.
    ///
    /// # Errors
    /// Another process has it open, the folder cannot be used, or the file is not a log.
    pub fn open(config: &Config) -> Result<Self, LogError> {
        // The lock comes first, since opening may migrate the file; then the key, since a log
        // without its key must not be opened.
        let folder = Folder::lock(&config.folder)?;
        let keys = folder.master_key()?;
        let connection = schema::open(&folder.database())?;
        let readers = Arc::new(Readers::open(&folder.database(), Arc::new(keys.clone()))?);
        let counters = Arc::new(Counters::default());
        let (jobs, queue) = mpsc::channel(QUEUE);
        let followers = Followers::new();
        let writer =
            Writer::new(connection, followers.clone(), Arc::clone(&counters), &folder.database())?;
        let thread = std::thread::Builder::new().name("log-writer".into());
        let ended = thread
            .spawn(move || writer.run(Jobs::new(queue)))
            .map_err(|error| LogError::Unavailable(format!("no thread for the log: {error}")))?;
        let (jobs, ended) = (Mutex::new(Some(jobs)), Mutex::new(Some(ended)));
        Ok(Self { jobs, ended, readers, keys, followers, counters, folder })
    }

    /// Returns the writer's counters since the log was opened.
    pub fn stats(&self) -> Stats {
        Stats {
            commits: self.counters.commits.load(Ordering::Relaxed),
            syncs: self.counters.syncs.load(Ordering::Relaxed),
        }
    }

    /// Returns the bytes of the database, after its write-ahead log is checkpointed into it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn bytes(&self) -> Result<u64, LogError> {
        self.readers.clone().run(reader::database_bytes).await
    }

    /// Verifies every hash chain from its first record; returns the numbers of records and events.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names the first record that is damaged.
    pub async fn verify(&self) -> Result<(u64, u64), LogError> {
        let found = verify(self, false).await?;
        Ok((found.records, found.events))
    }

    async fn write(&self, prepared: Prepared) -> Result<Head, AppendError> {
        let body = codec::pack(&prepared.canonical, &prepared.row());
        self.ask(|reply| Job::Append(Box::new(Append { prepared, body, reply }))).await
    }

    /// Sends a job to the writer and waits for its reply.
    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, AppendError>>) -> Job,
    ) -> Result<T, AppendError> {
        let jobs = self.sender().ok_or_else(|| AppendError::from(LogError::Closed))?;
        let (reply, answer) = oneshot::channel();
        jobs.send(job(reply)).await.map_err(|_| AppendError::from(LogError::Closed))?;
        answer.await.unwrap_or_else(|_| Err(AppendError::from(LogError::Closed)))
    }

    fn sender(&self) -> Option<mpsc::Sender<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn durability(&self) -> Durability {
        Durability::Fsync
    }

    async fn check_writable(&self) -> Result<(), AppendError> {
        self.ask(|reply| Job::Check { reply }).await
    }

    async fn append(&self, commit: Commit) -> Result<Head, AppendError> {
        self.write(prepare(commit, &self.keys)?).await
    }

    async fn restore(&self, archived: Archived) -> Result<Head, AppendError> {
        self.write(archived.into_prepared()).await
    }

    async fn restore_all(&self, archived: Vec<Archived>) -> Result<(), AppendError> {
        let packed = archived.into_iter().map(|archived| {
            let prepared = archived.into_prepared();
            let body = codec::pack(&prepared.canonical, &prepared.row());
            (prepared, body)
        });
        let commits = packed.collect();
        self.ask(|reply| Job::AppendAll { commits, reply }).await
    }

    fn export_signer(&self) -> Option<ExportSigner> {
        Some(ExportSigner::of(&self.keys))
    }

    async fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        let stream = stream.clone();
        self.readers.clone().run(move |reader| reader.head(&stream)).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        let stream = stream.clone();
        self.readers.clone().run(move |reader| reader.stream(&stream, after, limit)).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Page, LogError> {
        self.readers.clone().run(move |reader| reader.all(after, limit)).await
    }

    async fn read_raw(&self, scan: Scan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        let readers = self.readers.clone();
        match scan {
            Scan::All(after) => readers.run(move |reader| reader.all_raw(after, limit)).await,
            Scan::Stream(stream, after) => {
                let stream = stream.clone();
                readers.run(move |reader| reader.stream_raw(&stream, after, limit)).await
            }
        }
    }

    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let (feed, readers) = (self.followers.feeds.subscribe(stream), Arc::clone(&self.readers));
        let stream = stream.clone();
        let read = Box::new(move |after, limit| {
            let (readers, stream) = (Arc::clone(&readers), stream.clone());
            let records = readers.run(move |reader| reader.stream(&stream, after, limit));
            Box::pin(records) as _
        });
        follow_stream(read, feed, after)
    }

    fn tail(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let (live, readers) = (self.followers.live.subscribe(), Arc::clone(&self.readers));
        let read = Arc::new(move |after, limit| {
            let readers = Arc::clone(&readers);
            Box::pin(async move { readers.run(move |reader| reader.all(after, limit)).await }) as _
        });
        tail::follow(read, live, after)
    }

    fn early(&self) -> BoxStream<'static, Arc<Record>> {
        // A subscriber that lags misses records; it finds them in the log.
        let early = BroadcastStream::new(self.followers.early.subscribe());
        early.filter_map(|record| std::future::ready(record.ok())).boxed()
    }

    async fn opening(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        if let Some(opening) = self.followers.fresh.find(stream, reference) {
            return Ok(Some(opening));
        }
        let stream = stream.clone();
        self.readers.clone().run(move |reader| reader.opening(&stream, reference)).await
    }

    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        let before = Seq(reference.seq.0.saturating_sub(1));
        let records = self.read_stream(stream, before, 1).await?;
        // Row ids are computed from the reference: without this check a wrong index would erase the
        // payload of another record.
        let found = records.first().filter(|record| {
            let named = record.body.payloads.get(usize::from(reference.index));
            record.first_seq() == reference.seq && named.is_some()
        });
        let Some(record) = found else { return Ok(false) };
        let id = payload_id(record.position, reference.index);
        self.ask(|reply| Job::Erase { id, stream: stream.clone(), reply }).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        self.readers.clone().run(move |reader| reader.due(now, limit)).await
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        self.readers.clone().run(move |reader| reader.next_due(now)).await
    }

    async fn close(&self) -> Result<(), LogError> {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Dropping the last sender ends the writer thread, which finishes its queue first.
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = ended {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(LogError::Unavailable("the log's writer did not end well".into()));
            }
        }
        self.folder.unlock();
        Ok(())
    }
}
