//! The tool `date.format`. The only clock is the start of the step.

use convergio_domain::time::Timestamp;
use serde_json::{Value, json};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime, format_description};

use super::arguments::{
    ArgumentKind, FunctionTool, ToolArguments, ToolCallError, optional_argument, required_argument,
    tool_error,
};

pub(super) const TOOLS: &[FunctionTool] = &[FunctionTool {
    name: "date.format",
    description: "A date (when the step began, if absent) in another form, as %d.%m.%Y or \
            %A, %H:%M (strftime).",
    arguments: &[
        required_argument("format", ArgumentKind::Text),
        optional_argument("date", ArgumentKind::Text),
    ],
    function: format_date,
}];

/// Maximum bytes of a format.
const FORMAT_LIMIT: usize = 200;

fn format_date(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    let date = match args.get("date") {
        Some(_) => read_date(args)?,
        None => to_date_time(args.now)?,
    };
    let pattern = args.get_text("format")?;
    if pattern.len() > FORMAT_LIMIT {
        return tool_error(format!("`format` must have at most {FORMAT_LIMIT} bytes"));
    }
    let items = format_description::parse_strftime_borrowed(pattern)
        .map_err(|_| ToolCallError("`format` must be as strftime has it: %Y-%m-%d %H:%M".into()))?;
    match date.format(&items) {
        Ok(text) => Ok(json!(text)),
        Err(_) => tool_error("`format` asks for what the date does not have"),
    }
}

/// Reads the argument `date`: RFC 3339, or a date alone, which stands for midnight UTC.
fn read_date(args: &ToolArguments<'_>) -> Result<OffsetDateTime, ToolCallError> {
    let text = args.get_text("date")?.trim();
    let day = || Date::parse(text, &Iso8601::DATE).map(|day| day.midnight().assume_utc());
    OffsetDateTime::parse(text, &Rfc3339).or_else(|_| day()).map_err(|_| {
        ToolCallError(
            "`date` must be as RFC 3339 has it: 2026-03-01T12:00:00Z or 2026-03-01".into(),
        )
    })
}

fn to_date_time(timestamp: Timestamp) -> Result<OffsetDateTime, ToolCallError> {
    // Timestamps count milliseconds since the epoch; the library takes nanoseconds.
    let nanos = i128::from(timestamp.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).or_else(|_| date_out_of_range())
}

fn date_out_of_range<T>() -> Result<T, ToolCallError> {
    tool_error("the date must lie in the years 0 to 9999")
}
