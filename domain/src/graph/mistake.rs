//! Diagnostics: what is wrong with a manifest, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::manifest::Graph;

/// One error or warning. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mistake {
    /// Line of the manifest's text, from 1.
    pub line: usize,
    /// Column in that line, from 1.
    pub column: usize,
    /// Path within the manifest, as `nodes[2].map.over`; empty for the manifest as a whole.
    pub path: String,
    /// The error, and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, path, message } = self;
        let at = if path.is_empty() { "manifest" } else { path };
        write!(f, "{line}:{column} {at}: {message}")
    }
}

/// A graph that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The decoded graph, with every default filled in.
    pub graph: Graph,
    /// Uses that are allowed and probably not meant.
    pub warnings: Vec<Mistake>,
}

/// Most errors, and most warnings, that are kept: a longer list helps nobody.
const LIMIT: usize = 100;
/// Most names for which a spelling hint is looked for: each costs a comparison with all known
/// names.
const HINTS_LIMIT: usize = 20;

/// Line and column of the text, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Errors and warnings collected so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    /// Position of the first error beyond the limit.
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

    /// True if further errors are dropped: a search for more of them may stop.
    pub(super) fn is_full(&self) -> bool {
        self.mistakes.len() == LIMIT
    }

    /// Returns `; did you mean ...?` if a known name is close, else an empty text.
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
        // Checks run by topic; readers fix a manifest from top to bottom.
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

/// The known name that is probably meant: the nearest of those at most two edits away.
fn close<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|candidate| (distance(name, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= 2).min().map(|(_, candidate)| candidate)
}

/// Levenshtein distance of two names, of which the first 40 characters count.
fn distance(a: &str, b: &str) -> usize {
    // One row of the table is enough: `row[j]` is the distance of the prefixes so far, `diagonal`
    // the value up and to the left of it.
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
