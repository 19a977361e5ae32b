//! Numbers about the source that may only get better, as TigerBeetle's tidy test has them.
//!
//! A number that is worse than its limit fails; so does one that is much better, so that whoever
//! improved it takes the limit along.

use crate::checkout::{changed_paths, production_files};
use crate::{imports, naming};

/// Offenders that a message lists; the rest is counted.
const LISTED: usize = 30;

/// A limit that is off by so little stays, whatever its size.
const SLACK: u32 = 3;

/// The way in which a number gets better.
#[derive(Clone, Copy)]
enum Direction {
    Falls,
    Rises,
}

use Direction::{Falls, Rises};

/// Each number by its name, with the way it gets better and the limit it may not fall behind.
const RATCHET: &[(&str, Direction, u32)] = &[
    (naming::ONE_WORD, Falls, 9),
    (naming::PARTICIPLE, Falls, 0),
    (naming::NAME_LENGTH, Rises, 127),
    (naming::SHARED_TYPE_NAMES, Falls, 0),
    (naming::REPEATED_IN_CRATE, Falls, 0),
    (naming::SHORT_DOCS, Falls, 17),
    (naming::QUESTION_DOCS, Falls, 15),
    (naming::LONG_FUNCTIONS, Falls, 4),
    (naming::LONG_FILES, Falls, 2),
    (imports::FILES_IN_CIRCLES, Falls, 0),
    (imports::IMPORTS_UPWARD, Falls, 5),
];

/// A number that was counted in the source.
pub(crate) struct Measure {
    /// The name that the table of limits has for it.
    pub(crate) name: &'static str,
    pub(crate) value: u32,
    /// The declarations that the number counts, most of them as `file:line name`.
    pub(crate) offenders: Vec<String>,
}

impl Measure {
    /// A measure that is the number of its offenders.
    pub(crate) fn count(name: &'static str, offenders: Vec<String>) -> Self {
        let value = u32::try_from(offenders.len()).expect("fewer offenders than 2^32");
        Self { name, value, offenders }
    }

    /// A measure that is the share of its offenders in a whole, per mille and rounded.
    pub(crate) fn share(name: &'static str, offenders: Vec<String>, whole: usize) -> Self {
        let value = divide_rounded(1000 * offenders.len(), whole);
        Self { name, value, offenders }
    }
}

/// A quotient to the nearest integer; zero of nothing.
pub(crate) fn divide_rounded(dividend: usize, divisor: usize) -> u32 {
    let divisor = divisor.max(1);
    u32::try_from((dividend + divisor / 2) / divisor).expect("a number of the source fits")
}

/// The complaint about a number, unless its limit fits.
fn limit_advice(direction: Direction, limit: u32, value: u32) -> Option<String> {
    let (worse, better) = match direction {
        Falls => (value.saturating_sub(limit), limit.saturating_sub(value)),
        Rises => (limit.saturating_sub(value), value.saturating_sub(limit)),
    };
    if worse > 0 {
        return Some(format!("is worse than its limit {limit}"));
    }
    let is_far = better > SLACK && better * 10 > limit;
    is_far.then(|| format!("is better than its limit {limit}: write {value} there"))
}

/// The offenders, those in changed files first.
fn list_offenders(offenders: &[String], changed: &[String]) -> String {
    let is_changed =
        |offender: &&String| changed.iter().any(|path| offender.starts_with(path.as_str()));
    let (new, old): (Vec<_>, Vec<_>) = offenders.iter().partition(is_changed);
    let lines = new.into_iter().chain(old).take(LISTED);
    let mut text: String = lines.map(|offender| format!("    {offender}\n")).collect();
    if offenders.len() > LISTED {
        text.push_str(&format!("    and {} more\n", offenders.len() - LISTED));
    }
    text
}

#[test]
fn the_source_gets_no_worse() {
    let files = production_files();
    let mut measures = naming::measure_names(&files);
    measures.extend(imports::measure_imports(&files));
    assert_eq!(measures.len(), RATCHET.len(), "each measure has one limit");
    let mut complaints = String::new();
    for (name, direction, limit) in RATCHET {
        let measure = measures.iter().find(|measure| measure.name == *name);
        let measure = measure.expect("each limit has its measure");
        println!("{name}: {} (limit {limit})", measure.value);
        if let Some(advice) = limit_advice(*direction, *limit, measure.value) {
            let offenders = list_offenders(&measure.offenders, &changed_paths());
            complaints.push_str(&format!("{name}: {} {advice}\n{offenders}", measure.value));
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn a_worse_number_is_refused() {
    assert!(limit_advice(Falls, 20, 21).is_some());
    assert!(limit_advice(Rises, 80, 79).is_some());
    assert!(limit_advice(Falls, 20, 20).is_none());
    assert!(limit_advice(Rises, 80, 80).is_none());
}

#[test]
fn a_much_better_number_takes_its_limit_along() {
    assert!(limit_advice(Falls, 500, 450).is_none(), "a tenth is not much");
    assert!(limit_advice(Falls, 500, 449).is_some_and(|advice| advice.contains("write 449")));
    assert!(limit_advice(Falls, 4, 1).is_none(), "three are not much");
    assert!(limit_advice(Falls, 4, 0).is_some());
    assert!(limit_advice(Rises, 80, 89).is_some());
}

#[test]
fn offenders_in_changed_files_come_first() {
    let offenders: Vec<String> = (0..LISTED + 2).map(|number| format!("f{number}.rs:1")).collect();
    let last = format!("f{}.rs", LISTED + 1);
    let text = list_offenders(&offenders, std::slice::from_ref(&last));
    assert!(text.trim_start().starts_with(&last));
    assert!(text.ends_with("and 2 more\n"));
}

#[test]
fn quotients_are_rounded() {
    assert_eq!(divide_rounded(15, 10), 2);
    assert_eq!(divide_rounded(14, 10), 1);
    assert_eq!(divide_rounded(0, 0), 0);
}
