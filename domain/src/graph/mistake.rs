//! What is wrong with a manifest, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::manifest::Graph;

/// One mistake. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mistake {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// Where in the manifest, as `nodes[2].map.over`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, path, message } = self;
        let at = if path.is_empty() { "manifest" } else { path };
        write!(f, "{line}:{column} {at}: {message}")
    }
}

/// A valid manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The graph.
    pub graph: Graph,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Mistake>,
}

/// Mistakes kept at most: a manifest with more is not worth a longer list.
const LIMIT: usize = 100;
/// Names that are looked for among those that are near them: each is compared with all there are.
const HINTS_LIMIT: usize = 20;

/// A place in the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Mistakes and warnings as they are found.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    /// The first mistake that is not listed.
    left_out: Option<Place>,
    hints: usize,
}

impl Mistakes {
    pub(super) fn add(&mut self, place: Place, path: &str, message: impl Into<String>) {
        if self.is_full() {
            self.left_out.get_or_insert(place);
        } else {
            self.mistakes.push(mistake(place, path, message));
        }
    }

    /// Whether no more are listed: who looks for them may stop.
    pub(super) fn is_full(&self) -> bool {
        self.mistakes.len() == LIMIT
    }

    /// `; did you mean ...?`, when a known name is close. The first names only are looked for.
    pub(super) fn hint<'a>(&mut self, name: &str, known: impl Iterator<Item = &'a str>) -> String {
        if self.hints == HINTS_LIMIT || self.is_full() {
            return String::new();
        }
        self.hints += 1;
        close(name, known).map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
    }

    pub(super) fn warn(&mut self, place: Place, path: &str, message: impl Into<String>) {
        if self.warnings.len() < LIMIT {
            self.warnings.push(mistake(place, path, message));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mistakes.is_empty()
    }

    pub(super) fn warnings(self) -> Vec<Mistake> {
        self.warnings
    }

    pub(super) fn sorted(mut self) -> Vec<Mistake> {
        self.mistakes.sort();
        self.mistakes.dedup();
        if let Some(place) = self.left_out {
            let message = format!("more than {LIMIT} mistakes: those after them are not listed");
            self.mistakes.push(mistake(place, "", message));
        }
        self.mistakes
    }
}

pub(super) fn mistake(place: Place, path: &str, message: impl Into<String>) -> Mistake {
    let Place { line, column } = place;
    Mistake { line, column, path: path.to_owned(), message: message.into() }
}

/// The known name that is meant, most likely: at most two letters away.
fn close<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|candidate| (distance(name, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= 2).min().map(|(_, candidate)| candidate)
}

/// Levenshtein's distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().take(40).enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
