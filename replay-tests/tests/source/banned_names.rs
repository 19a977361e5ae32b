//! Words that production code names nothing by, and what to write in their place.

use crate::checkout::{SourceFile, production_files};
use crate::naming::{collect_functions, collect_types};

/// A word, and what says more; functions may not open with it, types not consist of it.
const BANNED: &[(&str, &str)] = &[
    ("told", "report_x, notify_x; of a value the noun: report, result"),
    ("said", "the noun: text, message, answer"),
    ("asked", "request, question; of a call that is made: ask_x, call_x"),
    ("held", "hold, reservation; reserved_x of money, cached_x of rows"),
    ("made", "build_x, create_x; created_x of a time"),
    ("known", "find_x, lookup_x; registered_x, catalogued_x of a set"),
    ("found", "find_x; of a value what was searched for"),
    ("wanted", "requested_x, required_x; of a value request, requirement"),
    ("kept", "stored_x, retained_x; keep_x of the act"),
    ("judged", "verdict; judge_x, check_x of the act"),
    ("stood", "paused_x, waited_x; position of a place"),
];

/// Names that stay, each with the reason why no better one says it.
const ALLOWED: &[(&str, &str)] = &[];

/// Advice for a function, whose first word counts.
fn function_advice(name: &str) -> Option<&'static str> {
    let first_word = name.trim_matches('_').split('_').next().unwrap_or(name);
    word_advice(name, first_word)
}

/// Advice for a type, whose name counts as a whole.
fn type_advice(name: &str) -> Option<&'static str> {
    let has_inner_words = name.chars().skip(1).any(|letter| letter.is_ascii_uppercase());
    if has_inner_words { None } else { word_advice(name, &name.to_ascii_lowercase()) }
}

/// The words that the table has beside a banned one, unless the name is allowed.
fn word_advice(name: &str, word: &str) -> Option<&'static str> {
    let is_allowed = ALLOWED.iter().any(|(allowed, _)| *allowed == name);
    let entry = BANNED.iter().find(|(banned, _)| *banned == word && !is_allowed);
    entry.map(|(_, replacement)| *replacement)
}

/// Functions and types with a banned name, each with what to write.
fn find_banned_names(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for function in collect_functions(files) {
        let advice = function_advice(function.declaration.name);
        complaints.extend(advice.map(|advice| format!("{}: {advice}", function.describe())));
    }
    for definition in collect_types(files) {
        let advice = type_advice(definition.declaration.name);
        complaints.extend(advice.map(|advice| format!("{}: {advice}", definition.describe())));
    }
    complaints
}

#[test]
fn names_say_what_things_are() {
    let complaints = find_banned_names(&production_files());
    let text = complaints.join("\n");
    assert!(complaints.is_empty(), "{} banned names\n{text}", complaints.len());
}

#[test]
fn banned_names_are_found() {
    let text = "fn told() {}\nfn _held_by_run() {}\nfn holder() {}\nfn is_known() {}\n\
                struct Asked;\nstruct AskedTwice;\nenum Held {}\n";
    let complaints = find_banned_names(&[SourceFile::new("a.rs", "src", text)]);
    let names = complaints.iter().filter_map(|line| line.split_once(": "));
    let names: Vec<&str> = names.map(|(place, _)| place).collect();
    assert_eq!(names, ["a.rs:1 told", "a.rs:2 _held_by_run", "a.rs:5 Asked", "a.rs:7 Held"]);
    assert!(complaints[0].contains("report_x"), "the message says what to write");
}

#[test]
fn traits_choose_the_names_in_their_impls() {
    let text = "impl Log for Memory {\n    fn held(&self) {}\n}\n";
    assert!(find_banned_names(&[SourceFile::new("a.rs", "src", text)]).is_empty());
}
