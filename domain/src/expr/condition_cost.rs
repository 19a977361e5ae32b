//! Bounds the cost of a CEL condition by its syntax tree and the weight of the values that it sees.
//!
//! The library has no hook to stop an evaluation. Each part of the tree reads every value that the
//! condition names once at most, a loop once for each item. Anything not known to behave so, such
//! as one loop after another, has no bound here and is left to a worker process.

use cel::Program;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

use super::weight::ValueWeight;

/// More than any allowance.
const UNBOUNDED: u64 = u64::MAX;
/// Bytes that the literals of a condition may have.
const LITERAL_BYTES: u64 = 4 << 10;
/// Functions that read their arguments once.
const LINEAR_FUNCTIONS: [&str; 13] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "type",
    "dyn",
    "@in",
    "@not_strictly_false",
];
/// Longest pattern in bytes whose states are counted; a longer one may have too many.
const PATTERN_BYTES: usize = 64;

/// Returns the most bytes that the evaluation of a program reads.
pub(super) fn condition_cost(program: &Program, weight: ValueWeight) -> u64 {
    let mut count = ConditionCostCount { names: 1, ..ConditionCostCount::default() };
    count.count_expression(program.expression(), false);
    if count.is_unbounded || count.loops > 1 {
        return UNBOUNDED;
    }
    let values = weight.bytes.saturating_mul(count.names).saturating_add(LITERAL_BYTES);
    let once = count.parts.saturating_mul(values);
    let patterns = count.pattern_states.saturating_mul(values);
    let straight = once.saturating_add(patterns);
    if count.loops == 0 {
        return straight;
    }
    // A loop's list may be built from everything that is named, and from literals.
    let items = weight.longest.saturating_mul(count.names).saturating_add(count.commas);
    let turns = if count.builds_list { items.saturating_mul(items) } else { items };
    straight.saturating_mul(turns.saturating_add(1))
}

/// Returns the most states of a pattern without counted repetitions.
pub(crate) fn pattern_states(pattern: &str) -> u64 {
    // A Unicode class and a negated class have the most states; any other letter has a few.
    let is_plain = pattern.is_ascii() && !["\\", "(?", "[^"].iter().any(|m| pattern.contains(m));
    let each = if is_plain { 32 } else { 2_000 };
    (pattern.len() as u64 + 1) * each
}

#[derive(Default)]
struct ConditionCostCount {
    parts: u64,
    names: u64,
    /// Items of list and map literals.
    commas: u64,
    loops: u64,
    /// True if a loop builds a list, which is copied as it grows with each turn.
    builds_list: bool,
    pattern_states: u64,
    is_unbounded: bool,
}

impl ConditionCostCount {
    fn count_expression(&mut self, node: &IdedExpr, is_in_loop: bool) {
        self.parts += 1;
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(_) => self.names += 1,
            Expr::Select(select) => self.count_expression(&select.operand, is_in_loop),
            Expr::Call(call) => self.count_call(call, is_in_loop),
            Expr::Comprehension(inner) => self.count_comprehension(inner, is_in_loop),
            Expr::List(list) => {
                self.commas += list.elements.len() as u64;
                list.elements.iter().for_each(|item| self.count_expression(item, is_in_loop));
            }
            Expr::Map(map) => {
                map.entries.iter().for_each(|e| self.count_entry(&e.expr, is_in_loop));
            }
            Expr::Struct(_) => self.is_unbounded = true,
        }
    }

    fn count_call(&mut self, call: &CallExpr, is_in_loop: bool) {
        let name = call.func_name.as_str();
        let is_operator = name.contains('_') && !name.starts_with(|c: char| c.is_alphabetic());
        match (name, call.args.last()) {
            ("matches", Some(pattern)) => self.count_pattern(pattern),
            _ if is_operator || LINEAR_FUNCTIONS.contains(&name) => {}
            _ => self.is_unbounded = true,
        }
        let target = call.target.as_deref();
        target
            .into_iter()
            .chain(&call.args)
            .for_each(|item| self.count_expression(item, is_in_loop));
    }

    /// Counts a pattern, which reads a text once with all of its states.
    fn count_pattern(&mut self, pattern: &IdedExpr) {
        match &pattern.expr {
            Expr::Literal(LiteralValue::String(text))
                if text.inner().len() <= PATTERN_BYTES && !text.inner().contains('{') =>
            {
                self.pattern_states += pattern_states(text.inner());
            }
            _ => self.is_unbounded = true,
        }
    }

    fn count_comprehension(&mut self, inner: &ComprehensionExpr, is_in_loop: bool) {
        self.loops += if is_in_loop { 2 } else { 1 };
        self.builds_list |= matches!(inner.accu_init.expr, Expr::List(_) | Expr::Map(_));
        self.count_expression(&inner.iter_range, is_in_loop);
        for part in [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
            self.count_expression(part, true);
        }
    }

    fn count_entry(&mut self, entry: &EntryExpr, is_in_loop: bool) {
        self.commas += 1;
        match entry {
            EntryExpr::StructField(_) => self.is_unbounded = true,
            EntryExpr::MapEntry(entry) => {
                self.count_expression(&entry.key, is_in_loop);
                self.count_expression(&entry.value, is_in_loop);
            }
        }
    }
}
