//! The durable log of Convergio: one contract, three providers, and [`Repository`], the only
//! component that appends. Everybody else has an [`EventLog`], which cannot.
//!
//! A stream is the event history of one entity (a run, a graph, a memory subject, ...). A commit is
//! 1..n events of one stream, appended atomically as one record. The records of a stream form a
//! hash chain. Payloads (texts of people and models) are encrypted and stored beside the chain, so
//! that they can be erased without breaking it.
//!
//! Map, from the outside in:
//!
//! - `archive`, `run_file`: copies that leave the log, and their way back.
//! - `repository`, `execute`, `write_queue`, `family`: load, decide, append,
//!   evolve; most callers of other crates start here. `checkpoint` is the cache of folded states.
//! - `log`: the contract, and who may do what. `interceptor` is the base of logs that fail on
//!   purpose, for tests. `providers` implement it (`embedded`, `jetstream`, `memory`), and
//!   `conformance` holds every provider against it. `verify` walks a whole log.
//! - `prepare`: encodes, chains and seals a commit before a provider writes it. `seal` encrypts,
//!   `dedup` stores shared text once, `canonical` is RFC 8785 JSON, `signature` signs run files.
//! - `record`, `commit`, `error`: the data that all of them exchange.
//! - `tail`, `stream_tail`, `heads`: followers and caches that providers share. `slot_set` divides
//!   streams among processes.
//! - `clock`, `health`, `live`, `private_files`: services of a process.
//!
//! Not here: rules about runs (crate `domain`), read models (crate `projections`), HTTP.

pub mod archive;
mod canonical;
mod checkpoint;
mod clock;
mod commit;
#[cfg(feature = "test-util")]
pub mod conformance;
mod dedup;
mod error;
mod execute;
mod family;
mod heads;
mod health;
mod interceptor;
mod live;
mod log;
mod prepare;
pub mod private_files;
mod providers;
mod record;
mod repository;
pub mod run_file;
mod seal;
mod signature;
mod slot_set;
mod stream_tail;
mod tail;
mod verify;
mod write_queue;

pub use checkpoint::{Checkpoint, CheckpointFolder, CheckpointStore};
pub use clock::{
    LEAD_LIMIT, SLEW_DIVISOR, SteadyClock, SystemClock, SystemTimeSource, TimeSource, WallClock,
};
pub use commit::{Commit, LogLimits, Payload, UndecidedCommit};
pub use dedup::{DeltaBase, DeltaCopy, PayloadDelta};
pub use error::{AppendError, LogError};
pub use health::{ComponentFailure, ComponentHealth, HealthRegistry};
pub use interceptor::{InterceptedLog, LogInterceptor, LogRead};
pub use live::{LiveHub, LiveKind, LiveListener, LiveNote, NoteFilter, StreamNote};
pub use log::{
    ArchivedRecord, Durability, EventLog, LogReader, LogWriter, PayloadReader, RawScan, RecordPage,
    WakeIndex,
};
pub use providers::embedded;
pub use providers::jetstream;
pub use providers::memory::MemoryLog;
pub use record::{Hash, PayloadMeta, Position, RawRecord, Record, RecordBody, StreamHead};
pub use repository::{CommitError, LoadedStream, Repository};
pub use seal::{Opening, PayloadKeys, TenantKey};
pub use signature::ExportSigner;
pub use slot_set::{SLOT_COUNT, SlotSet};
pub use verify::{LogVerification, verify_log};
pub use write_queue::WriteTurn;
