//! What the tests write, kept after them when `CONVERGIO_TEST_KEEP` names a folder: all that a
//! whole suite wrote can then be looked through for keys (`deploy/canary.sh`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

/// A key that must stand nowhere.
pub(crate) const CANARY: &str = "sk-canary-0123456789abcdef";

/// A provider that is never reached and whose key every server of the tests has.
pub(crate) const KEY: [(&str, &str); 2] =
    [("ANTHROPIC_API_KEY", CANARY), ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")];

fn place() -> Option<PathBuf> {
    let folder = std::env::var_os("CONVERGIO_TEST_KEEP").filter(|folder| !folder.is_empty())?;
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder).expect("a folder to keep things in");
    Some(folder)
}

fn named(folder: &Path, prefix: &str) -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).disable_cleanup(true).tempdir_in(folder).expect("a folder")
}

/// A folder for what is written.
pub(crate) fn folder() -> TempDir {
    match place() {
        Some(place) => named(&place, "data-"),
        None => tempfile::tempdir().expect("a folder"),
    }
}

/// Keeps a copy of a folder that would go.
pub(crate) fn keep(folder: &Path) {
    let Some(place) = place() else { return };
    let copy = named(&place, "copy-");
    let copied = std::process::Command::new("cp").arg("-a").arg(folder).arg(copy.path()).status();
    let is_kept = copied.is_ok_and(|status| status.success());
    // A test that fails already says why.
    assert!(is_kept || std::thread::panicking(), "{} is kept", folder.display());
}

/// Where a server's words go: into a file that is kept, or to the test's own.
pub(crate) fn words() -> Stdio {
    let Some(place) = place() else { return Stdio::inherit() };
    let folder = named(&place, "words-");
    File::create(folder.path().join("server.err")).expect("a file").into()
}
