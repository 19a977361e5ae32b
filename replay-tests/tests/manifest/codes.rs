//! The one list of failure codes has every code that a step fails with, and no other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use convergio_domain::run::{FAILURE_CODES, retryable_codes};
use serde_json::Value;

use crate::schema::schema;

/// Folders whose code makes failures of steps.
const FOLDERS: [&str; 2] = ["executor/src", "domain/src"];
/// The file that has the list.
const LIST: &str = "failure_code.rs";
/// Words by which a failure is made, as they stand before its code.
const MAKERS: [&str; 5] = ["failure(", "failed_outcome(", "code: ", "ModelError::new(", "=> ("];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The text of the sources without their tests.
fn texts() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    FOLDERS.iter().for_each(|folder| sources(&root.join(folder), &mut files));
    files.retain(|file| file.file_name().is_some_and(|name| name != LIST));
    let text = |file: &PathBuf| std::fs::read_to_string(file).expect("readable");
    let without_tests = |text: String| match text.split_once("#[cfg(test)]") {
        Some((code, _)) => code.to_owned(),
        None => text,
    };
    files.iter().map(text).map(without_tests).collect()
}

/// Codes that stand right behind a maker of failures.
fn made(text: &str) -> impl Iterator<Item = &str> {
    MAKERS.iter().flat_map(move |maker| {
        text.split(maker).skip(1).filter_map(|rest| {
            let (code, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
            let is_code = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
            (code.contains('.') && code.chars().all(is_code)).then_some(code)
        })
    })
}

#[test]
fn every_code_that_is_made_is_in_the_list() {
    let texts = texts();
    let made: BTreeSet<&str> = texts.iter().flat_map(|text| made(text)).collect();
    let known: BTreeSet<&str> = FAILURE_CODES.iter().map(|known| known.code).collect();
    let missing: Vec<_> = made.difference(&known).collect();
    assert!(missing.is_empty(), "codes of failures that domain's list does not know: {missing:?}");
    assert!(made.len() > 15, "the sources are read: {made:?}");
}

#[test]
fn every_code_of_the_list_is_made_somewhere() {
    let texts = texts();
    for known in FAILURE_CODES {
        let quoted = format!("\"{}\"", known.code);
        assert!(texts.iter().any(|text| text.contains(&quoted)), "{} is made", known.code);
    }
}

#[test]
fn guide_and_schema_list_the_codes_that_are_repeated() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/manifest.md");
    let guide = std::fs::read_to_string(guide).expect("the guide is there");
    let (_, listed) = guide.split_once("without it all of these are: ").expect("the guide's list");
    let (listed, _) = listed.split_once(". ").expect("its end");
    let listed: Vec<_> = listed.split(',').map(|code| code.trim().trim_matches('`')).collect();
    let codes: Vec<_> = retryable_codes().collect();
    assert_eq!(listed, codes);
    let schema = schema();
    let on = schema.pointer("/$defs/retry/properties/on/items/enum").and_then(Value::as_array);
    let on: Vec<_> = on.expect("the schema's list").iter().filter_map(Value::as_str).collect();
    assert_eq!(on, codes);
}
