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

mod ack_marker;
mod atomic_batch;
mod codec;
mod folder;
mod job_queue;
mod reader;
mod recent_payloads;
mod recovery;
mod scan;
mod schema;
mod shape;
mod sql_values;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
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
use crate::log::{
    ArchivedRecord, Durability, EventLog, LogReader, LogWriter, PayloadReader, RawScan, RecordPage,
    WakeIndex,
};
use crate::prepare::{PreparedCommit, prepare_commit};
use crate::record::{Position, RawRecord, Record, StreamHead};
use crate::seal::{MasterKey, Opening};
use crate::signature::ExportSigner;
use crate::stream_tail::follow_stream;
use crate::tail;
use crate::verify::verify_log;
use folder::LogFolder;
use job_queue::{AppendJob, JobQueue, WriteJob};
use reader::ReaderPool;
use sql_values::payload_row_id;
use writer::{EmbeddedWriter, LogSubscribers, WriterCounters};

/// Capacity of the writer's queue. When it is full, callers wait for a place (back-pressure).
const QUEUED_COMMITS: usize = 1024;

/// Configuration of an [`EmbeddedLog`].
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Folder of the log; created if it does not exist.
    pub folder: PathBuf,
}

impl EmbeddedConfig {
    /// Configures a log in this folder.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self { folder: folder.as_ref().to_owned() }
    }
}

/// Counters of the writer since the log was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Number of commits acknowledged.
    pub commits: u64,
    /// Number of transactions, each with one fsync.
    pub syncs: u64,
}

/// A log in a folder, open in this process alone.
pub struct EmbeddedLog {
    jobs: Mutex<Option<mpsc::Sender<WriteJob>>>,
    writer_thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Arc<ReaderPool>,
    keys: MasterKey,
    subscribers: LogSubscribers,
    counters: Arc<WriterCounters>,
    folder: LogFolder,
}

impl EmbeddedLog {
    /// Opens the log of a folder and locks it for this process.
    ///
    /// # Errors
    /// Another process has it open, the folder cannot be used, or the file is not a log.
    pub fn open(config: &EmbeddedConfig) -> Result<Self, LogError> {
        // The lock comes first, since opening may migrate the file; then the key, since a log
        // without its key must not be opened.
        let folder = LogFolder::lock_folder(&config.folder)?;
        let keys = folder.master_key()?;
        let connection = schema::open_writer(&folder.database_path())?;
        let readers = Arc::new(ReaderPool::open(&folder.database_path(), Arc::new(keys.clone()))?);
        let counters = Arc::new(WriterCounters::default());
        let (jobs, queue) = mpsc::channel(QUEUED_COMMITS);
        let followers = LogSubscribers::new();
        let writer = EmbeddedWriter::new(
            connection,
            followers.clone(),
            Arc::clone(&counters),
            &folder.database_path(),
        )?;
        let thread = std::thread::Builder::new().name("log-writer".into());
        let ended = thread
            .spawn(move || writer.run_jobs(JobQueue::new(queue)))
            .map_err(|error| LogError::Unavailable(format!("no thread for the log: {error}")))?;
        let (jobs, ended) = (Mutex::new(Some(jobs)), Mutex::new(Some(ended)));
        Ok(Self {
            jobs,
            writer_thread: ended,
            readers,
            keys,
            subscribers: followers,
            counters,
            folder,
        })
    }

    /// Returns the writer's counters since the log was opened.
    pub fn writer_stats(&self) -> WriterStats {
        WriterStats {
            commits: self.counters.commits.load(Ordering::Relaxed),
            syncs: self.counters.syncs.load(Ordering::Relaxed),
        }
    }

    /// Returns the bytes of the database, after its write-ahead log is checkpointed into it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn database_bytes(&self) -> Result<u64, LogError> {
        self.readers.clone().run_blocking(reader::database_bytes).await
    }

    /// Verifies every hash chain from its first record; returns the numbers of records and events.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names the first record that is damaged.
    pub async fn verify_chains(&self) -> Result<(u64, u64), LogError> {
        let found = verify_log(self, false).await?;
        Ok((found.records, found.events))
    }

    async fn write_commit(&self, prepared: PreparedCommit) -> Result<StreamHead, AppendError> {
        let body = codec::pack_body(&prepared.canonical, &prepared.row_columns());
        self.send_job(|reply| WriteJob::Append(Box::new(AppendJob { prepared, body, reply }))).await
    }

    /// Sends a job to the writer and waits for its reply.
    async fn send_job<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, AppendError>>) -> WriteJob,
    ) -> Result<T, AppendError> {
        let jobs = self.job_sender().ok_or_else(|| AppendError::from(LogError::Closed))?;
        let (reply, answer) = oneshot::channel();
        jobs.send(job(reply)).await.map_err(|_| AppendError::from(LogError::Closed))?;
        answer.await.unwrap_or_else(|_| Err(AppendError::from(LogError::Closed)))
    }

    fn job_sender(&self) -> Option<mpsc::Sender<WriteJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl LogReader for EmbeddedLog {
    async fn stream_head(&self, stream: &StreamKey) -> Result<Option<StreamHead>, LogError> {
        let stream = stream.clone();
        self.readers.clone().run_blocking(move |reader| reader.read_head(&stream)).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        let stream = stream.clone();
        self.readers
            .clone()
            .run_blocking(move |reader| reader.read_stream(&stream, after, limit))
            .await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<RecordPage, LogError> {
        self.readers.clone().run_blocking(move |reader| reader.read_all(after, limit)).await
    }

    async fn read_raw(&self, scan: RawScan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        let readers = self.readers.clone();
        match scan {
            RawScan::All(after) => {
                readers.run_blocking(move |reader| reader.read_all_raw(after, limit)).await
            }
            RawScan::Stream(stream, after) => {
                let stream = stream.clone();
                readers
                    .run_blocking(move |reader| reader.read_stream_raw(&stream, after, limit))
                    .await
            }
        }
    }

    fn tail_all(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let (live, readers) = (self.subscribers.live.subscribe(), Arc::clone(&self.readers));
        let read = Arc::new(move |after, limit| {
            let readers = Arc::clone(&readers);
            Box::pin(async move {
                readers.run_blocking(move |reader| reader.read_all(after, limit)).await
            }) as _
        });
        tail::follow_log(read, live, after)
    }

    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let (feed, readers) =
            (self.subscribers.feeds.subscribe_stream(stream), Arc::clone(&self.readers));
        let stream = stream.clone();
        let read = Box::new(move |after, limit| {
            let (readers, stream) = (Arc::clone(&readers), stream.clone());
            let records =
                readers.run_blocking(move |reader| reader.read_stream(&stream, after, limit));
            Box::pin(records) as _
        });
        follow_stream(read, feed, after)
    }

    fn tail_pending(&self) -> BoxStream<'static, Arc<Record>> {
        // A subscriber that lags misses records; it finds them in the log.
        let early = BroadcastStream::new(self.subscribers.pending.subscribe());
        early.filter_map(|record| std::future::ready(record.ok())).boxed()
    }
}

#[async_trait]
impl PayloadReader for EmbeddedLog {
    async fn open_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        if let Some(opening) = self.subscribers.recent_payloads.find_payload(stream, reference) {
            return Ok(Some(opening));
        }
        let stream = stream.clone();
        self.readers
            .clone()
            .run_blocking(move |reader| reader.open_payload(&stream, reference))
            .await
    }
}

#[async_trait]
impl WakeIndex for EmbeddedLog {
    async fn due_streams(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        self.readers.clone().run_blocking(move |reader| reader.due_streams(now, limit)).await
    }

    async fn next_due_time(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        self.readers.clone().run_blocking(move |reader| reader.next_due_time(now)).await
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn durability(&self) -> Durability {
        Durability::Fsync
    }

    fn export_signer(&self) -> Option<ExportSigner> {
        Some(ExportSigner::from_master_key(&self.keys))
    }

    async fn close(&self) -> Result<(), LogError> {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Dropping the last sender ends the writer thread, which finishes its queue first.
        let ended = self.writer_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = ended {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(LogError::Unavailable("the log's writer did not end well".into()));
            }
        }
        self.folder.unlock_folder();
        Ok(())
    }
}

#[async_trait]
impl LogWriter for EmbeddedLog {
    async fn append(&self, commit: Commit) -> Result<StreamHead, AppendError> {
        self.write_commit(prepare_commit(commit, &self.keys)?).await
    }

    async fn check_writable(&self) -> Result<(), AppendError> {
        self.send_job(|reply| WriteJob::CheckWritable { reply }).await
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
        let id = payload_row_id(record.position, reference.index);
        self.send_job(|reply| WriteJob::Erase { id, stream: stream.clone(), reply }).await
    }

    async fn restore_record(&self, archived: ArchivedRecord) -> Result<StreamHead, AppendError> {
        self.write_commit(archived.into_prepared()).await
    }

    async fn restore_records(&self, archived: Vec<ArchivedRecord>) -> Result<(), AppendError> {
        let packed = archived.into_iter().map(|archived| {
            let prepared = archived.into_prepared();
            let body = codec::pack_body(&prepared.canonical, &prepared.row_columns());
            (prepared, body)
        });
        let commits = packed.collect();
        self.send_job(|reply| WriteJob::AppendAll { commits, reply }).await
    }
}
