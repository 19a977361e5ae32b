//! The durable log: one trait, its providers, and the repository that alone appends.
//!
//! A stream is the history of one thing. A commit is 1..n events of one stream, appended atomically
//! as one record. Records of a stream are chained by hash; payloads lie sealed beside the chain.

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
