//! The durable log of Convergio: one trait, [`EventLog`], three providers, and [`Repository`], the
//! only component that appends.
//!
//! A stream is the event history of one entity (a run, a graph, a memory subject, ...). A commit is
//! 1..n events of one stream, appended atomically as one record. The records of a stream form a
//! hash chain. Payloads (texts of people and models) are encrypted and stored beside the chain, so
//! that they can be erased without breaking it.
//!
//! Map, from the outside in:
//!
//! - `archive`, `run_file`: copies that leave the log, and their way back.
//! - `repository`, `execute`, `write_queue`, `family`, `memory_commands`: load, decide, append,
//!   evolve; most callers of other crates start here. `checkpoint` is the cache of folded states.
//! - `log`: the contract. `providers` implement it (`embedded`, `jetstream`, `memory`), and
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
mod error;
mod execute;
mod family;
mod heads;
mod health;
mod live;
mod log;
mod memories;
mod prepare;
pub mod private_files;
mod providers;
mod record;
mod repository;
mod reuse;
pub mod run_file;
mod seal;
mod share;
mod signature;
mod stream_tail;
mod tail;
mod verify;
mod write_queue;

pub use checkpoint::{Checkpoint, CheckpointFolder, Checkpoints};
pub use clock::{
    Clock, LEAD_LIMIT, SLEW_DIVISOR, SteadyClock, SystemClock, SystemTimeSource, TimeSource,
};
pub use commit::{Commit, Limits, Payload};
pub use error::{AppendError, LogError};
pub use health::{ComponentFailure, ComponentHealth, HealthRegistry};
pub use live::{LiveHub, LiveKind, LiveListener, LiveNote, StreamNote};
pub use log::{Archived, Durability, EventLog, Page, Scan};
pub use memories::Remember;
pub use providers::embedded;
pub use providers::jetstream;
pub use providers::memory::MemoryLog;
pub use record::{Body, Hash, Head, PayloadMeta, Position, RawRecord, Record};
pub use repository::{CommitError, Loaded, Repository};
pub use reuse::{Base, Quote, Reuse};
pub use seal::{Opening, PayloadKeys, TenantKey};
pub use share::{SLOTS, Share};
pub use signature::ExportSigner;
pub use verify::{Verified, verify};
pub use write_queue::WriteTurn;
