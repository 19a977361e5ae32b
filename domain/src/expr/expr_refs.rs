//! The names that an expression uses, as the scanners of templates and conditions collect them.

use std::collections::BTreeMap;

/// Names, each with the line, from 1, where it is first used.
pub type NameLines = BTreeMap<String, usize>;

/// Names that an expression uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExprRefs {
    /// Node names in `nodes.NAME` or `nodes["NAME"]`.
    pub nodes: NameLines,
    /// Other variables, by the first name of their path.
    pub variables: NameLines,
}

impl ExprRefs {
    pub(super) fn add_node(&mut self, name: &str, line: usize) {
        self.nodes.entry(name.to_owned()).or_insert(line);
    }

    pub(super) fn add_variable(&mut self, name: &str, line: usize) {
        self.variables.entry(name.to_owned()).or_insert(line);
    }
}
