//! Diagnostics: what is wrong with a manifest, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::manifest::Graph;

/// One error or warning. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Line of the manifest's text, from 1.
    pub line: usize,
    /// Column in that line, from 1.
    pub column: usize,
    /// Path within the manifest, as `nodes[2].map.over`; empty for the manifest as a whole.
    pub path: String,
    /// The error, and what would be right.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, path, message } = self;
        let at = if path.is_empty() { "manifest" } else { path };
        write!(f, "{line}:{column} {at}: {message}")
    }
}

/// A graph that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidManifest {
    /// The decoded graph, with every default filled in.
    pub graph: Graph,
    /// Uses that are allowed and probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Most errors, and most warnings, that are kept: a longer list helps nobody.
const DIAGNOSTICS_LIMIT: usize = 100;
/// Most names for which a spelling hint is looked for: each costs a comparison with all known
/// names.
const HINTS_LIMIT: usize = 20;

/// Line and column of the text, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TextPosition {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Errors and warnings collected so far.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// Position of the first error beyond the limit.
    first_omitted: Option<TextPosition>,
    hint_count: usize,
}

impl Diagnostics {
    pub(super) fn add_error(
        &mut self,
        position: TextPosition,
        path: &str,
        message: impl Into<String>,
    ) {
        if self.is_full() {
            self.first_omitted.get_or_insert(position);
        } else {
            self.errors.push(diagnostic_at(position, path, message));
        }
    }

    /// True if further errors are dropped: a search for more of them may stop.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() == DIAGNOSTICS_LIMIT
    }

    /// Returns `; did you mean ...?` if a known name is close, else an empty text.
    pub(super) fn spelling_hint<'a>(
        &mut self,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> String {
        if self.hint_count == HINTS_LIMIT || self.is_full() {
            return String::new();
        }
        self.hint_count += 1;
        closest_name(name, known)
            .map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
    }

    pub(super) fn add_warning(
        &mut self,
        position: TextPosition,
        path: &str,
        message: impl Into<String>,
    ) {
        if self.warnings.len() < DIAGNOSTICS_LIMIT {
            self.warnings.push(diagnostic_at(position, path, message));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn into_warnings(self) -> Vec<Diagnostic> {
        self.warnings
    }

    pub(super) fn into_sorted_errors(mut self) -> Vec<Diagnostic> {
        // Checks run by topic; readers fix a manifest from top to bottom.
        self.errors.sort();
        self.errors.dedup();
        if let Some(place) = self.first_omitted {
            let message =
                format!("more than {DIAGNOSTICS_LIMIT} mistakes: those after them are not listed");
            self.errors.push(diagnostic_at(place, "", message));
        }
        self.errors
    }
}

pub(super) fn diagnostic_at(
    position: TextPosition,
    path: &str,
    message: impl Into<String>,
) -> Diagnostic {
    let TextPosition { line, column } = position;
    Diagnostic { line, column, path: path.to_owned(), message: message.into() }
}

/// The known name that is probably meant: the nearest of those at most two edits away.
fn closest_name<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|candidate| (edit_distance(name, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= 2).min().map(|(_, candidate)| candidate)
}

/// Levenshtein distance of two names, of which the first 40 characters count.
fn edit_distance(a: &str, b: &str) -> usize {
    // One row of the table is enough: `row[j]` is the distance of the prefixes so far, `diagonal`
    // the value up and to the left of it.
    let b: Vec<char> = b.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().take(40).enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
