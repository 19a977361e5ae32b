//! Tools on dates. The only clock is the start of the step.

use convergio_domain::time::{Span, Timestamp};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Builtin;
use super::args::{Args, ToolError, error};

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "date.now",
        description: "When the step began, as RFC 3339.",
        arguments: &[],
        call: |args| format(from(args.now)?),
    },
    Builtin {
        name: "date.add",
        description: "A date some time later, as RFC 3339; `span` as 30s, 10m, 2h or 7d.",
        arguments: &[("date", "string"), ("span", "string")],
        call: add,
    },
];

fn from(at: Timestamp) -> Result<OffsetDateTime, ToolError> {
    let nanos = i128::from(at.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .map_err(|_| ToolError("the date is out of range".into()))
}

fn format(date: OffsetDateTime) -> Result<Value, ToolError> {
    match date.format(&Rfc3339) {
        Ok(text) => Ok(json!(text)),
        Err(_) => error("the date is out of range"),
    }
}

fn add(args: &Args<'_>) -> Result<Value, ToolError> {
    let date = args.text("date")?;
    let date = OffsetDateTime::parse(date, &Rfc3339)
        .map_err(|_| ToolError(format!("`{date}` is not a date as RFC 3339 writes it")))?;
    let span: Span = args.text("span")?.parse().map_err(|error| ToolError(format!("{error}")))?;
    let span = time::Duration::milliseconds(i64::try_from(span.0).unwrap_or(i64::MAX));
    match date.checked_add(span) {
        Some(later) => format(later),
        None => error("the date is out of range"),
    }
}
