//! Run files: a run as JSON lines with its graph versions, every record as it was written with its
//! hashes, and the payloads with the salts of their commitments. Whoever has the file can check it,
//! replay it, and import it into another log.
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
//! The hashes prove that a file is complete; only the signature proves who exported it. Files of
//! format 1 have none.
//!
//! Map: `line` is the form of the lines. `export` writes files; `reader` reads and checks them line
//! by line, for `in_memory` (a whole [`RunFile`]) and for `contents`, which `import` puts into a
//! log. Not here: copies of whole logs (`archive`).

mod contents;
mod export;
mod import;
mod in_memory;
mod line;
mod reader;

pub use export::export_run;
pub use import::{RunImportError, RunImportOptions, RunImportReport, import_run};
pub use in_memory::{AncestorFile, RunFile};
pub use line::RunFileHeader;
pub use reader::{RunFileItem, RunFileReader};

/// Format that is written: signed.
pub const FORMAT: u32 = 2;
/// Format without a signature, which can be read too.
const UNSIGNED_FORMAT: u32 = 1;
/// Maximum bytes of one line. A payload of 16 MiB takes about 22 MiB in base 64.
const LINE_BYTES: usize = 40 << 20;
/// Maximum bytes of a file that is held in memory.
const FILE_BYTES: u64 = 1 << 30;

/// Error of reading a run file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct RunFileError {
    /// Number of the line, from 1.
    pub line: u64,
    /// Description of the error, and what would be right.
    pub reason: String,
}
