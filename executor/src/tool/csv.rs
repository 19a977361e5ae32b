//! Comma-separated values (RFC 4180).

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use serde_json::{Map, Value};

use super::args::{Args, Kind, ToolError, error, optional, required};
use super::bounds::{LIST_LIMIT, check_size};
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[Builtin {
    name: "csv.parse",
    description: "The rows of a CSV text (RFC 4180) as maps by the names in its first row; \
        `separator` is a comma when absent.",
    arguments: &[required("text", Kind::Text), optional("separator", Kind::Text)],
    call: parse,
}];

fn parse(args: &Args<'_>) -> Result<Value, ToolError> {
    let mut separator = args.text_or("separator", ",")?.chars();
    let (Some(separator), None) = (separator.next(), separator.next()) else {
        return error("`separator` must be one character");
    };
    if matches!(separator, '"' | '\r' | '\n') {
        return error("`separator` must not be a quote or the end of a line");
    }
    let mut reader = Reader { letters: args.text("text")?.chars().peekable(), separator, row: 0 };
    let Some(header) = reader.row()? else { return Ok(Value::Array(Vec::new())) };
    if header.iter().collect::<BTreeSet<_>>().len() < header.len() {
        return error("the names in the first row must differ");
    }
    let mut rows = Vec::new();
    let mut bytes = 0;
    while let Some(row) = reader.row()? {
        if rows.len() == LIST_LIMIT {
            return error(format!("`text` must have at most {LIST_LIMIT} rows"));
        }
        // Each row repeats the names: a small text can become a large answer.
        let names = header.iter().chain(&row).map(|field| field.len() + 4);
        bytes += names.sum::<usize>();
        check_size(bytes)?;
        rows.push(Value::Object(named(&header, row, reader.row)?));
    }
    Ok(Value::Array(rows))
}

fn named(
    header: &[String],
    row: Vec<String>,
    number: usize,
) -> Result<Map<String, Value>, ToolError> {
    if row.len() != header.len() {
        let (has, wants) = (row.len(), header.len());
        return error(format!("row {number} has {has} fields, the first row has {wants}"));
    }
    Ok(header.iter().cloned().zip(row.into_iter().map(Value::String)).collect())
}

/// Reads row by row.
struct Reader<'a> {
    letters: Peekable<Chars<'a>>,
    separator: char,
    /// The number of the row read last, from 1.
    row: usize,
}

impl Reader<'_> {
    /// The next row that is not a blank line, or `None` at the end.
    fn row(&mut self) -> Result<Option<Vec<String>>, ToolError> {
        while self.letters.peek().is_some() {
            self.row += 1;
            let mut fields = vec![self.field()?];
            while self.letters.next_if_eq(&self.separator).is_some() {
                if fields.len() == LIST_LIMIT {
                    return error(format!("a row must have at most {LIST_LIMIT} fields"));
                }
                fields.push(self.field()?);
            }
            self.end_of_row()?;
            if fields != [""] {
                return Ok(Some(fields));
            }
        }
        Ok(None)
    }

    fn field(&mut self) -> Result<String, ToolError> {
        let mut field = String::new();
        if self.letters.next_if_eq(&'"').is_none() {
            let separator = self.separator;
            let is_inside = |letter: &char| *letter != separator && !matches!(letter, '\r' | '\n');
            while let Some(letter) = self.letters.next_if(is_inside) {
                field.push(letter);
            }
            return Ok(field);
        }
        loop {
            match self.letters.next() {
                Some('"') if self.letters.next_if_eq(&'"').is_some() => field.push('"'),
                Some('"') => return Ok(field),
                Some(letter) => field.push(letter),
                None => return error(format!("row {}: a quote is not closed", self.row)),
            }
        }
    }

    fn end_of_row(&mut self) -> Result<(), ToolError> {
        match self.letters.next() {
            Some('\r') => {
                self.letters.next_if_eq(&'\n');
                Ok(())
            }
            Some('\n') | None => Ok(()),
            Some(_) => error(format!("row {}: text follows a closed quote", self.row)),
        }
    }
}
