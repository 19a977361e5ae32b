//! Commits, and the providers that need nothing but a folder.

use std::sync::Arc;

use convergio_eventstore::MemoryLog;
pub(crate) use convergio_eventstore::conformance::{Log, new_commit, new_event, new_stream};
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};

/// A fresh log in memory.
pub(crate) fn memory() -> (Log, ()) {
    (Arc::new(MemoryLog::new()), ())
}

/// A fresh log in a folder, which lives as long as the test.
pub(crate) fn embedded() -> (Log, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).expect("opens");
    (Arc::new(log), folder)
}
