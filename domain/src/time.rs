//! Timestamps and lengths of time, in whole milliseconds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns the time `span` later; saturates at the maximum.
    pub fn add_span(self, span: Span) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }

    /// Returns the span since `earlier`; zero if `earlier` is later.
    pub fn span_since(self, earlier: Self) -> Span {
        Span(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Length of time in milliseconds. Text form: a number with a unit, as `250ms`, `30s`, `10m`, `2h`
/// or `7d`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub u64);

/// Maximum span in a text form: 365 days. Computed spans may be longer.
pub const SPAN_LIMIT: Span = Span(365 * 24 * 3600 * 1000);

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A text that is not a span. Quotes its first 40 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time: use a number with ms, s, m, h or d, as 30s, up to 365d")]
pub struct InvalidSpan(String);

impl Span {
    /// Creates a span of whole seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;
    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let invalid = || InvalidSpan(text.chars().take(40).collect());
        let digit_count = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, unit) = text.split_at(digit_count);
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let span = Self(number.checked_mul(*factor).ok_or_else(invalid)?);
        if span <= SPAN_LIMIT { Ok(span) } else { Err(invalid()) }
    }
}

impl TryFrom<String> for Span {
    type Error = InvalidSpan;
    fn try_from(text: String) -> Result<Self, InvalidSpan> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit =
            // The largest unit that divides the span, so that reading the text gives the same span.
            UNITS.iter().rev().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        let (name, factor) = unit.unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", self.0 / factor)
    }
}
