//! The checkout that is looked at: its files, and those among them that are production code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders whose Rust code never runs in production.
const TEST_FOLDERS: [&str; 6] =
    ["tests", "benches", "examples", "golden", "generated", "test-support"];

/// Files that are tests or come out of a generator, wherever they stand.
const TEST_FILES: [&str; 2] = ["tests.rs", "bindings.rs"];

/// A Rust file of production.
pub(crate) struct SourceFile {
    /// Relative to the workspace.
    pub(crate) path: PathBuf,
    /// The folder of the crate's `lib.rs` or `main.rs`; for a build script the script's own.
    pub(crate) crate_folder: PathBuf,
    pub(crate) text: String,
}

impl SourceFile {
    pub(crate) fn new(
        path: impl Into<PathBuf>,
        crate_folder: impl Into<PathBuf>,
        text: impl Into<String>,
    ) -> Self {
        Self { path: path.into(), crate_folder: crate_folder.into(), text: text.into() }
    }

    /// The code in front of the first part that only tests see.
    pub(crate) fn production_text(&self) -> &str {
        let mut length = 0;
        for line in self.text.split_inclusive('\n') {
            if line.trim_start().starts_with("#[cfg(test)]") {
                break;
            }
            length += line.len();
        }
        &self.text[..length]
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The output of a git command in the workspace.
fn git_lines(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("git");
    command.arg("--no-optional-locks").args(arguments).current_dir(root());
    let output = command.output().expect("git works").stdout;
    let output = String::from_utf8(output).expect("paths are UTF-8");
    output.lines().map(str::to_owned).collect()
}

/// Files of the checkout with one of these endings.
pub(crate) fn files(endings: &[&str]) -> Vec<PathBuf> {
    let lines = git_lines(&["ls-files", "--cached", "--others", "--exclude-standard"]);
    let has_ending = |path: &String| endings.iter().any(|ending| path.ends_with(ending));
    let paths = lines.into_iter().filter(has_ending).map(PathBuf::from);
    let files: BTreeSet<PathBuf> = paths.filter(|path| root().join(path).is_file()).collect();
    assert!(!files.is_empty(), "there are files to check");
    files.into_iter().collect()
}

/// Paths that differ from the last commit: mistakes in them are most likely new.
pub(crate) fn changed_paths() -> Vec<String> {
    let lines = git_lines(&["status", "--porcelain", "--no-renames", "--untracked-files=all"]);
    lines.iter().filter_map(|line| line.get(3..)).map(str::to_owned).collect()
}

pub(crate) fn read_text(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).expect("source is UTF-8")
}

/// Rust files of production, in the order of their paths.
pub(crate) fn production_files() -> Vec<SourceFile> {
    let mut paths = files(&[".rs"]);
    paths.retain(|path| is_production(path));
    let crate_folders = crate_folders(&paths);
    let load_file = |path: PathBuf| {
        let text = read_text(&path);
        SourceFile::new(&path, crate_folder(&path, &crate_folders), text)
    };
    paths.into_iter().map(load_file).collect()
}

fn is_production(path: &Path) -> bool {
    let is_test_folder = |part| TEST_FOLDERS.iter().any(|folder| part == *folder);
    let is_test_file = TEST_FILES.iter().any(|name| path.ends_with(name));
    !path.iter().any(is_test_folder) && !is_test_file
}

/// Folders that hold the root module of a crate.
fn crate_folders(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let roots = paths.iter().filter(|path| path.ends_with("lib.rs") || path.ends_with("main.rs"));
    roots.filter_map(|path| path.parent()).map(Path::to_owned).collect()
}

/// The outermost of the folders around a file that holds a crate.
fn crate_folder<'a>(path: &'a Path, crate_folders: &BTreeSet<PathBuf>) -> &'a Path {
    let around = path.ancestors().skip(1).filter(|folder| crate_folders.contains(*folder));
    around.last().or_else(|| path.parent()).unwrap_or(path)
}

#[test]
fn a_file_belongs_to_the_crate_around_it() {
    let paths = ["domain/src/lib.rs", "src/main.rs"].map(PathBuf::from);
    let folders = crate_folders(&paths);
    let folder_of = |path: &'static str| crate_folder(Path::new(path), &folders);
    assert_eq!(folder_of("domain/src/run/state.rs"), Path::new("domain/src"));
    assert_eq!(folder_of("src/cli/runs.rs"), Path::new("src"));
    assert_eq!(folder_of("kernel-c/build.rs"), Path::new("kernel-c"));
}

#[test]
fn tests_and_generated_files_are_no_production_code() {
    assert!(is_production(Path::new("domain/src/id.rs")));
    assert!(!is_production(Path::new("domain/tests/run/main.rs")));
    assert!(!is_production(Path::new("eventstore/src/seal/tests.rs")));
    assert!(!is_production(Path::new("kernel-c/rust/bindings.rs")));
}

#[test]
fn production_text_ends_where_tests_begin() {
    let file = |text: &str| SourceFile::new("src/x.rs", "src", text);
    let tested = file("struct A;\n    #[cfg(test)]\nmod tests {}\n");
    assert_eq!(tested.production_text(), "struct A;\n");
    assert_eq!(file("struct A;").production_text(), "struct A;");
}
