//! What the tests write, kept after them when `CONVERGIO_TEST_KEEP` names a folder: all that a
//! whole suite wrote can then be looked through for keys (`scripts/canary.sh`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

/// A key that must stand nowhere.
pub const CANARY: &str = "sk-canary-0123456789abcdef";

/// A provider that is never reached and whose key every server of the tests has.
pub const CANARY_VARIABLES: [(&str, &str); 2] =
    [("ANTHROPIC_API_KEY", CANARY), ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")];

fn keep_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("CONVERGIO_TEST_KEEP").filter(|folder| !folder.is_empty())?;
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder).expect("a folder to keep things in");
    Some(folder)
}

fn create_kept_folder(folder: &Path, prefix: &str) -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).disable_cleanup(true).tempdir_in(folder).expect("a folder")
}

/// A folder for what is written.
pub fn create_folder() -> TempDir {
    match keep_folder() {
        Some(place) => create_kept_folder(&place, "data-"),
        None => tempfile::tempdir().expect("a folder"),
    }
}

/// Keeps a copy of a folder that would go.
pub fn keep_copy(folder: &Path) {
    let Some(place) = keep_folder() else { return };
    let copy = create_kept_folder(&place, "copy-");
    let copied = std::process::Command::new("cp").arg("-a").arg(folder).arg(copy.path()).status();
    let is_kept = copied.is_ok_and(|status| status.success());
    // A test that fails already says why.
    assert!(is_kept || std::thread::panicking(), "{} is kept", folder.display());
}

/// Where a server's words go: into a file that is kept, or to the test's own.
pub fn error_output() -> Stdio {
    let Some(place) = keep_folder() else { return Stdio::inherit() };
    let folder = create_kept_folder(&place, "words-");
    File::create(folder.path().join("server.err")).expect("a file").into()
}
