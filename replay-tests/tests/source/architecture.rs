//! The order of the crates: dependencies go strictly down, and nothing appends past the repository.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::checkout::{SourceFile, production_files};

/// A crate's place; an edge leads to a smaller number.
const RANKS: [(&str, u32); 18] = [
    ("convergio-domain", 0),
    ("convergio-kernel-c", 0),
    ("convergio-process", 0),
    ("convergio-schemas", 0),
    ("convergio-evaluation", 1),
    ("convergio-eventstore", 1),
    ("convergio-application", 2),
    ("convergio-executor", 3),
    ("convergio-projections", 3),
    ("convergio-gateway", 4),
    ("convergio-local-models", 4),
    ("convergio-test-support", 4),
    ("convergio-replay", 4),
    ("convergio-crash-test", 5),
    ("convergio-server", 5),
    ("convergio-bench", 6),
    ("convergio", 7),
    ("convergio-replay-tests", 7),
];

const FORBIDDEN: [(&str, &str); 1] = [("convergio-gateway", "convergio-executor")];

/// Types by which something could be appended past the repository, each with the places outside of
/// the event store that may name it.
const WRITING_TYPES: [(&str, &[&str]); 4] = [
    // Whoever opens a log makes the repository of it, or restores an archive into it.
    ("LogWriter", &["server/", "bench/", "crash-test/"]),
    ("UndecidedCommit", &["bench/"]),
    ("LogInterceptor", &["crash-test/"]),
    ("InterceptedLog", &["crash-test/"]),
];

/// Files that name a writing type and are not declared to.
fn undeclared_writers(files: &[SourceFile]) -> Vec<String> {
    let ours = files.iter().filter(|file| !file.path.starts_with("eventstore"));
    let mut found = Vec::new();
    for file in ours {
        let is_word_end = |letter: char| !letter.is_alphanumeric() && letter != '_';
        for word in file.production_text().split(is_word_end) {
            let places = WRITING_TYPES.iter().find(|(name, _)| *name == word);
            let path = file.path.display().to_string();
            let is_declared = |place: &&str| path.starts_with(*place);
            if places.is_some_and(|(_, places)| !places.iter().any(is_declared)) {
                found.push(format!("{path} names {word}"));
            }
        }
    }
    found
}

/// What is wrong with a set of edges.
fn violations(edges: &[(String, String)]) -> Vec<String> {
    let ranks: BTreeMap<_, _> = RANKS.into_iter().collect();
    let mut found = Vec::new();
    for (from, to) in edges {
        match (ranks.get(from.as_str()), ranks.get(to.as_str())) {
            (Some(upper), Some(lower)) if upper > lower => {}
            (Some(_), Some(_)) => found.push(format!("{from} -> {to} does not go down")),
            (None, _) => found.push(format!("{from} has no rank: give it one")),
            (_, None) => found.push(format!("{to} has no rank: give it one")),
        }
        if FORBIDDEN.contains(&(from, to)) {
            found.push(format!("{from} -> {to} is forbidden: they meet only in the log"));
        }
    }
    found
}

fn packages() -> Vec<Package> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata works");
    metadata.packages
}

#[test]
fn dependencies_go_strictly_down() {
    let mut edges = Vec::new();
    for package in packages() {
        let ours = package.dependencies.iter().filter(|dependency| {
            dependency.name.starts_with("convergio")
                && dependency.kind != DependencyKind::Development
        });
        edges.extend(ours.map(|dependency| (package.name.to_string(), dependency.name.clone())));
    }
    assert!(edges.len() > 8, "the crates depend on each other");
    assert_eq!(violations(&edges), Vec::<String>::new());
}

#[test]
fn a_wrong_edge_is_found() {
    let edge = |from: &str, to: &str| vec![(from.to_owned(), to.to_owned())];
    assert_eq!(violations(&edge("convergio-kernel-c", "convergio-domain")).len(), 1);
    assert_eq!(violations(&edge("convergio-executor", "convergio-projections")).len(), 1);
    assert_eq!(violations(&edge("convergio-gateway", "convergio-executor")).len(), 1);
    assert_eq!(violations(&edge("convergio-new", "convergio-domain")).len(), 1);
    assert!(violations(&edge("convergio-gateway", "convergio-eventstore")).is_empty());
}

#[test]
fn nothing_appends_past_the_repository() {
    assert_eq!(undeclared_writers(&production_files()), Vec::<String>::new());
}

#[test]
fn an_undeclared_writer_is_found() {
    let text = "use convergio_eventstore::{LogWriter, LogWriters};\n#[cfg(test)]\nLogInterceptor";
    let found = |path: &str| undeclared_writers(&[SourceFile::new(path, "", text)]);
    assert_eq!(found("gateway/src/http/runs.rs"), ["gateway/src/http/runs.rs names LogWriter"]);
    assert!(found("server/src/log_location.rs").is_empty());
}

#[test]
fn crates_are_private_and_have_few_features() {
    for package in packages() {
        assert_eq!(package.publish.as_deref(), Some(&[][..]), "{} is published", package.name);
        assert!(package.features.len() <= 3, "{} has too many features", package.name);
        assert_eq!(package.license.as_deref(), Some("MIT OR Apache-2.0"), "{}", package.name);
    }
}
