//! The environment: it is read in few places, and `docs/configuration.md` has all of it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::checkout::{SourceFile, production_files, read_text};

/// Files that read variables or name those that others read; options name theirs by `env`.
const READERS: [&str; 7] = [
    "executor/src/catalog/environment.rs",
    "kernel-c/build.rs",
    "local-models/src/child_environment.rs",
    "local-models/src/store/hub.rs",
    "process/src/user_folders.rs",
    "server/src/config/environment.rs",
    "src/target.rs",
];
/// Variables that reach only a build, or the programs of others that are started.
const ELSEWHERE: [&str; 10] = [
    "CARGO_CFG_TARGET_FAMILY",
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LC_ALL",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_CACHE_HOME",
];

/// True for the form of a variable's name: capitals with an underscore within.
fn is_variable(word: &str) -> bool {
    let is_plain = |letter: u8| letter.is_ascii_uppercase() || letter == b'_';
    let inner = word.trim_matches('_');
    inner == word && word.contains('_') && word.bytes().all(is_plain)
}

/// Names of variables in the string literals of a file: all in a reader, else those of options.
fn named_variables(file: &SourceFile) -> Vec<&str> {
    let is_reader = READERS.iter().any(|reader| file.path == Path::new(reader));
    let pieces: Vec<&str> = file.production_text().split('"').collect();
    let literals = pieces.windows(2).filter(|pair| is_variable(pair[1]));
    let named = literals.filter(|pair| is_reader || pair[0].ends_with("env = "));
    named.map(|pair| pair[1]).collect()
}

/// Variables in the first column of the page's table.
fn documented_variables(page: &str) -> BTreeSet<&str> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    cells.flat_map(|cell| cell.split('`')).filter(|word| is_variable(word)).collect()
}

#[test]
fn the_page_has_every_variable() {
    let files = production_files();
    let mut named: BTreeSet<&str> = files.iter().flat_map(named_variables).collect();
    ELSEWHERE.iter().for_each(|name| assert!(named.remove(name), "{name} is named"));
    let page = read_text(Path::new("docs/configuration.md"));
    assert_eq!(named, documented_variables(&page));
}

#[test]
fn few_files_read_the_environment() {
    let is_reader = |file: &SourceFile| READERS.iter().any(|path| file.path == Path::new(path));
    let files = production_files().into_iter();
    let others =
        files.filter(|file| file.production_text().contains("env::var") && !is_reader(file));
    let others: Vec<_> = others.map(|file| file.path.display().to_string()).collect();
    assert_eq!(others, Vec::<String>::new(), "options and their places are in server/src/config");
}

#[test]
fn variables_are_found() {
    let text = "#[arg(long, env = \"A_B\")]\nconst C: &str = \"C_D\";\n";
    assert_eq!(named_variables(&SourceFile::new("src/cli.rs", "src", text)), ["A_B"]);
    assert_eq!(named_variables(&SourceFile::new("src/target.rs", "src", text)), ["A_B", "C_D"]);
    let page = "| variable |\n|---|\n| `A_B`, `C_D` | `E_F` |\nand `G_H`\n";
    assert_eq!(documented_variables(page), BTreeSet::from(["A_B", "C_D"]));
}
