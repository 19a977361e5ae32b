//! The tool `date.format`. The only clock is the start of the step.

use convergio_domain::time::Timestamp;
use serde_json::{Value, json};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime, format_description};

use super::args::{Args, Kind, ToolError, error, optional, required};
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[Builtin {
    name: "date.format",
    description: "A date (when the step began, if absent) in another form, as %d.%m.%Y or \
            %A, %H:%M (strftime).",
    arguments: &[required("format", Kind::Text), optional("date", Kind::Text)],
    call: format,
}];

/// Maximum bytes of a format.
const FORMAT_LIMIT: usize = 200;

fn format(args: &Args<'_>) -> Result<Value, ToolError> {
    let date = match args.get("date") {
        Some(_) => read(args)?,
        None => at(args.now)?,
    };
    let wanted = args.text("format")?;
    if wanted.len() > FORMAT_LIMIT {
        return error(format!("`format` must have at most {FORMAT_LIMIT} bytes"));
    }
    let items = format_description::parse_strftime_borrowed(wanted)
        .map_err(|_| ToolError("`format` must be as strftime has it: %Y-%m-%d %H:%M".into()))?;
    match date.format(&items) {
        Ok(text) => Ok(json!(text)),
        Err(_) => error("`format` asks for what the date does not have"),
    }
}

/// Reads the argument `date`: RFC 3339, or a date alone, which stands for midnight UTC.
fn read(args: &Args<'_>) -> Result<OffsetDateTime, ToolError> {
    let text = args.text("date")?.trim();
    let day = || Date::parse(text, &Iso8601::DATE).map(|day| day.midnight().assume_utc());
    OffsetDateTime::parse(text, &Rfc3339).or_else(|_| day()).map_err(|_| {
        ToolError("`date` must be as RFC 3339 has it: 2026-03-01T12:00:00Z or 2026-03-01".into())
    })
}

fn at(timestamp: Timestamp) -> Result<OffsetDateTime, ToolError> {
    // Timestamps count milliseconds since the epoch; the library takes nanoseconds.
    let nanos = i128::from(timestamp.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).or_else(|_| out_of_range())
}

fn out_of_range<T>() -> Result<T, ToolError> {
    error("the date must lie in the years 0 to 9999")
}
