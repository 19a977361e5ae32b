//! A run as a file: JSON lines that hold the graph versions, every record as it was written with
//! its hashes, and the payloads with the salts of their commitments. Whoever has the file can check
//! it, replay it, and put it into a log of their own.
//!
//! ```text
//! {"run": {"format": 2, "tenant", "run", "seq", "hash", "payloads"}}     first line
//! {"ancestor": {"run", "seq"}}      of a fork: a run that it begins in, up to there; oldest first
//! {"graph": {"graph", "version", "manifest"}}      before the first record that names the version
//! {"record": {"prev_hash", "hash", "recorded_at", "body"}}   body: the canonical bytes themselves
//! {"payload": {"ref", "salt", "text" | "base64"}}            after the record that commits to it
//! {"signature": {"key", "signature"}}      last line: Ed25519 over SHA-256 of all lines before it
//! ```
//!
//! The hashes show that a file is whole; who exported it, only the signature shows. Files of format
//! 1 have none.

mod contents;
mod export;
mod import;
mod line;
mod read;
mod whole;

pub use export::export;
pub use import::{ImportError, ImportOptions, Imported, import};
pub use line::Header;
pub use read::{Item, Reader};
pub use whole::{AncestorFile, RunFile};

/// The form that is written: signed.
pub const FORMAT: u32 = 2;
/// The form without a signature, which is read too.
const UNSIGNED_FORMAT: u32 = 1;
/// Bytes of one line at most.
const LINE_BYTES: usize = 40 << 20;
/// Bytes of a file that is held in memory at most.
const FILE_BYTES: u64 = 1 << 30;

/// What is wrong with a file, and in which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct FileError {
    /// From 1.
    pub line: u64,
    /// What is wrong, and what would be right.
    pub reason: String,
}
