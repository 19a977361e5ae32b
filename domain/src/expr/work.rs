//! What a condition in CEL can cost at most, by its syntax tree and the weight of what it sees.
//!
//! The library has no hook in its evaluation. Each part of the tree goes over every value that the
//! condition names once at most; a loop does so once for each item. What is not known to be so, as
//! loops one after another, has no bound here.

use cel::Program;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

use super::weight::Weight;

/// No bound: it is more than any allowance.
const UNBOUNDED: u64 = u64::MAX;
/// Bytes of what a condition itself may have written out.
const WRITTEN_BYTES: u64 = 4 << 10;
/// Functions that go over what they are given once.
const FUNCTIONS: [&str; 13] = [
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
/// Bytes of a pattern whose states are counted; a longer one may have too many.
const PATTERN_BYTES: usize = 64;

/// Bytes that the evaluation of a program touches at most.
pub(super) fn work_of(program: &Program, weight: Weight) -> u64 {
    let mut count = Count { names: 1, ..Count::default() };
    count.expression(program.expression(), false);
    if count.is_unbounded || count.loops > 1 {
        return UNBOUNDED;
    }
    let values = weight.bytes.saturating_mul(count.names).saturating_add(WRITTEN_BYTES);
    let once = count.parts.saturating_mul(values);
    let patterns = count.pattern_states.saturating_mul(values);
    let straight = once.saturating_add(patterns);
    if count.loops == 0 {
        return straight;
    }
    // The list of a loop may be put together of all that is named, and of literals.
    let items = weight.longest.saturating_mul(count.names).saturating_add(count.commas);
    let turns = if count.builds_list { items.saturating_mul(items) } else { items };
    straight.saturating_mul(turns.saturating_add(1))
}

/// States that a pattern without counted repetitions has at most.
pub(crate) fn pattern_states(pattern: &str) -> u64 {
    // A class of Unicode, and what is not in a class, are the largest; any letter takes a few.
    let is_plain = pattern.is_ascii() && !["\\", "(?", "[^"].iter().any(|m| pattern.contains(m));
    let each = if is_plain { 32 } else { 2_000 };
    (pattern.len() as u64 + 1) * each
}

#[derive(Default)]
struct Count {
    parts: u64,
    names: u64,
    /// Items of lists and maps that are written out.
    commas: u64,
    loops: u64,
    /// Whether a loop puts a list together, which grows with each of its turns.
    builds_list: bool,
    pattern_states: u64,
    is_unbounded: bool,
}

impl Count {
    fn expression(&mut self, node: &IdedExpr, is_in_loop: bool) {
        self.parts += 1;
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(_) => self.names += 1,
            Expr::Select(select) => self.expression(&select.operand, is_in_loop),
            Expr::Call(call) => self.call(call, is_in_loop),
            Expr::Comprehension(inner) => self.comprehension(inner, is_in_loop),
            Expr::List(list) => {
                self.commas += list.elements.len() as u64;
                list.elements.iter().for_each(|item| self.expression(item, is_in_loop));
            }
            Expr::Map(map) => map.entries.iter().for_each(|e| self.entry(&e.expr, is_in_loop)),
            Expr::Struct(_) => self.is_unbounded = true,
        }
    }

    fn call(&mut self, call: &CallExpr, is_in_loop: bool) {
        let name = call.func_name.as_str();
        let is_operator = name.contains('_') && !name.starts_with(|c: char| c.is_alphabetic());
        match (name, call.args.last()) {
            ("matches", Some(pattern)) => self.pattern(pattern),
            _ if is_operator || FUNCTIONS.contains(&name) => {}
            _ => self.is_unbounded = true,
        }
        let target = call.target.as_deref();
        target.into_iter().chain(&call.args).for_each(|item| self.expression(item, is_in_loop));
    }

    /// A pattern goes over a text once with all of its states.
    fn pattern(&mut self, pattern: &IdedExpr) {
        match &pattern.expr {
            Expr::Literal(LiteralValue::String(text))
                if text.inner().len() <= PATTERN_BYTES && !text.inner().contains('{') =>
            {
                self.pattern_states += pattern_states(text.inner());
            }
            _ => self.is_unbounded = true,
        }
    }

    fn comprehension(&mut self, inner: &ComprehensionExpr, is_in_loop: bool) {
        self.loops += if is_in_loop { 2 } else { 1 };
        self.builds_list |= matches!(inner.accu_init.expr, Expr::List(_) | Expr::Map(_));
        self.expression(&inner.iter_range, is_in_loop);
        for part in [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
            self.expression(part, true);
        }
    }

    fn entry(&mut self, entry: &EntryExpr, is_in_loop: bool) {
        self.commas += 1;
        match entry {
            EntryExpr::StructField(_) => self.is_unbounded = true,
            EntryExpr::MapEntry(entry) => {
                self.expression(&entry.key, is_in_loop);
                self.expression(&entry.value, is_in_loop);
            }
        }
    }
}
