//! The form of the source: openings, lengths, words that must not stand in it.

use std::path::Path;

use crate::checkout::{files, read_text};
use crate::declarations::find_functions;

const FILE_LINES: usize = 600;
/// A header of the kernel is read as a whole by whoever embeds it.
const HEADER_LINES: usize = 499;
const LINE_CHARS: usize = 100;
const FUNCTION_LINES: usize = 70;

/// Words, and where they may stand all the same.
fn banned() -> Vec<(String, &'static [&'static str])> {
    let word = |parts: [&str; 2]| parts.concat();
    vec![
        (word(["todo", "!("]), &[]),
        (word(["unimplemented", "!("]), &[]),
        (word(["TO", "DO"]), &[]),
        (word(["FIX", "ME"]), &[]),
        (word(["dbg", "!("]), &[]),
        (word(["#[", "allow("]), &["kernel-c/rust/"]),
        (word(["unsafe", " {"]), &["kernel-c/rust/ffi.rs"]),
        (word(["unsafe", " fn"]), &["kernel-c/rust/ffi.rs", "kernel-c/rust/bindings.rs"]),
        (word(["::", "*;"]), &["kernel-c/"]),
        (word(["/ro", "ot/"]), &[]),
        (word(["/ho", "me/"]), &[]),
    ]
}

fn is_generated(path: &Path) -> bool {
    path.ends_with("kernel-c/rust/bindings.rs")
}

/// What is wrong with a file.
fn mistakes(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let shown = path.display();
    let is_rust = path.extension().is_some_and(|ending| ending == "rs");
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    let opens = if is_rust { "//!" } else { "/*" };
    let is_c = path.extension().is_some_and(|ending| ending == "c" || ending == "h");
    if (is_rust || is_c) && !first.is_some_and(|line| line.starts_with(opens)) {
        found.push(format!("{shown}: must open with {opens} and what it is about"));
    }
    let is_header = path.extension().is_some_and(|ending| ending == "h");
    let limit = if is_header { HEADER_LINES } else { FILE_LINES };
    if text.lines().count() > limit {
        found.push(format!("{shown}: more than {limit} lines"));
    }
    let banned = banned();
    for (number, line) in text.lines().enumerate() {
        let is_data = line.contains("data:") || line.contains("://") || line.contains("(\"");
        if (is_rust || is_c) && line.chars().count() > LINE_CHARS && !is_data {
            found.push(format!("{shown}:{}: more than {LINE_CHARS} characters", number + 1));
        }
        for (word, places) in &banned {
            let is_allowed = || places.iter().any(|place| shown.to_string().starts_with(place));
            if line.contains(word) && !is_allowed() {
                found.push(format!("{shown}:{}: `{word}`", number + 1));
            }
        }
    }
    if is_rust {
        for function in find_functions(text) {
            let (name, lines) = (function.name, function.length);
            if lines > FUNCTION_LINES {
                found.push(format!("{shown}: `{name}` has {lines} lines"));
            }
        }
    }
    found
}

#[test]
fn the_source_is_tidy() {
    let mut found = Vec::new();
    for path in files(&[".rs", ".c", ".h", ".py", ".sh"]) {
        if !is_generated(&path) {
            let text = read_text(&path);
            found.extend(mistakes(&path, &text));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Folders of crates that the binary alone is made of: they speak to people.
const SPEAKING_FOLDERS: [&str; 7] =
    ["src", "bench", "crash-test", "local-models", "process", "replay", "server"];
const PRINTING_FILE: &str = "process/src/terminal.rs";

/// Calls that print, where the binary has one place for them.
fn prints(path: &Path, text: &str) -> Vec<String> {
    let is_speaking = SPEAKING_FOLDERS.iter().any(|folder| path.starts_with(folder));
    if !is_speaking || path == Path::new(PRINTING_FILE) {
        return Vec::new();
    }
    let words = ["print!(", "println!(", "io::stdout().lock()", "io::stderr().lock()"];
    let is_print = |line: &str| words.iter().any(|word| line.contains(word));
    let lines = text.lines().enumerate().filter(|(_, line)| is_print(line));
    lines.map(|(number, _)| format!("{}:{}", path.display(), number + 1)).collect()
}

#[test]
fn the_binary_prints_in_one_place() {
    let mut found = Vec::new();
    for path in files(&[".rs"]) {
        let text = read_text(&path);
        found.extend(prints(&path, &text));
    }
    assert!(found.is_empty(), "what is printed goes through {PRINTING_FILE}\n{}", found.join("\n"));
    let wrong = ["print", "ln!(\"{}\", run.name);"].concat();
    assert_eq!(prints(Path::new("src/view.rs"), &wrong).len(), 1);
}

#[test]
fn untidy_source_is_found() {
    let check = |text: &str| mistakes(Path::new("domain/src/x.rs"), text).len();
    assert_eq!(check("//! Fine.\n"), 0);
    assert_eq!(check("use a;\n"), 1);
    assert_eq!(check(&format!("//! Fine.\n{}\n", "x".repeat(101))), 1);
    assert_eq!(check(&format!("//! Fine.\n{}", "\n".repeat(FILE_LINES))), 1);
    assert_eq!(check(&["//! Fine.\ntodo", "!()\n"].concat()), 1);
    let body = "    x();\n".repeat(FUNCTION_LINES);
    assert_eq!(check(&format!("//! Fine.\nfn long() {{\n{body}}}\n")), 1);
}

#[test]
fn decisions_have_their_form() {
    let decisions = files(&[".md"]).into_iter().filter(|path| path.starts_with("docs/adr"));
    for path in decisions {
        let text = read_text(&path);
        for part in ["Status", "Context", "Decision", "Consequences"] {
            assert!(text.contains(&format!("## {part}")), "{} lacks {part}", path.display());
        }
    }
}
