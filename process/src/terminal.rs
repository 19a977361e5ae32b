//! The only way to a terminal: untrusted text is shown as text and cannot control the terminal.
//!
//! Names, inputs, answers and errors may hold escape sequences, control characters, characters that
//! reverse a line's direction and invisible ones. They are printed as visible escapes, as `\u{1b}`,
//! on a terminal and in a pipe alike. JSON keeps its values: there they become JSON escapes. A tidy
//! test and two lints refuse every other way to print.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io;

use serde::Serialize;

/// Prints a line to standard output. Only the line breaks of the literal are printed as such: one
/// that a value brings is shown as an escape.
#[macro_export]
macro_rules! out_line {
    () => { $crate::terminal::write_out("", 0) };
    ($format:literal $($rest:tt)*) => {
        $crate::terminal::write_out(
            &format!($format $($rest)*),
            $crate::terminal::line_breaks($format),
        )
    };
}

/// Prints a line to standard error, as [`out_line!`].
#[macro_export]
macro_rules! err_line {
    () => { $crate::terminal::write_err("", 0) };
    ($format:literal $($rest:tt)*) => {
        $crate::terminal::write_err(
            &format!($format $($rest)*),
            $crate::terminal::line_breaks($format),
        )
    };
}

/// Characters that are invisible or change how others are shown: besides Unicode's controls, those
/// that change direction, join, fill or tag.
const INVISIBLE: [(char, char); 20] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
    ('\u{f0000}', '\u{10ffff}'),
];

fn is_visible(letter: char) -> bool {
    // Letters below U+00AD are checked by `is_control` alone; most text is there.
    let is_hidden = |(from, to): &(char, char)| (*from..=*to).contains(&letter);
    !(letter.is_control() || (letter >= '\u{ad}' && INVISIBLE.iter().any(is_hidden)))
}

/// Escapes untrusted text; line breaks and tabs stay.
pub fn escape_text(text: &str) -> Cow<'_, str> {
    escape_except(text, |letter| letter == '\n' || letter == '\t' || is_visible(letter))
}

/// Escapes untrusted text for one line; line breaks become escapes.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape_except(text, is_visible)
}

fn escape_except(text: &str, is_plain: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Most texts need nothing: they are not copied.
    if text.chars().all(&is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match is_plain(letter) {
            true => shown.push(letter),
            false => shown.extend(letter.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// Escapes untrusted text for one line of at most `letters` characters; the number of omitted
/// characters is appended.
pub fn shorten_line(text: &str, letters: usize) -> String {
    let shown: String = text.chars().take(letters).collect();
    match text.chars().count().saturating_sub(letters) {
        0 => escape_line(text).into_owned(),
        more => format!("{}… ({more} more)", escape_line(&shown)),
    }
}

/// Escapes the strings of JSON text; its values stay the same.
fn escape_json(json: &str) -> Cow<'_, str> {
    let is_plain = |letter| letter == '\n' || is_visible(letter);
    if json.chars().all(is_plain) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        if is_plain(letter) {
            escaped.push(letter);
            continue;
        }
        // Serde has escaped ASCII controls, so that what is left here stands within a string.
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _written = write!(escaped, "\\u{unit:04x}");
        }
    }
    Cow::Owned(escaped)
}

/// Number of line breaks in a literal. Constant, so that macros pay nothing for it.
pub const fn line_breaks(literal: &str) -> usize {
    let (bytes, mut at, mut breaks) = (literal.as_bytes(), 0, 0);
    while at < bytes.len() {
        breaks += (bytes[at] == b'\n') as usize;
        at += 1;
    }
    breaks
}

fn escape_lines(text: &str, breaks: usize) -> Cow<'_, str> {
    // As many breaks as the literal has: none came from a value.
    match text.matches('\n').count() == breaks {
        true => escape_text(text),
        false => escape_except(text, |letter| letter == '\t' || is_visible(letter)),
    }
}

/// Prints a line for [`out_line!`].
#[expect(clippy::print_stdout, reason = "the one place that prints")]
pub fn write_out(text: &str, breaks: usize) {
    println!("{}", escape_lines(text, breaks));
}

/// Prints a line for [`err_line!`].
#[expect(clippy::print_stderr, reason = "the one place that prints")]
pub fn write_err(text: &str, breaks: usize) {
    eprintln!("{}", escape_lines(text, breaks));
}

/// Overwrites the last line of standard error, which has no line break yet.
#[expect(clippy::print_stderr, reason = "the one place that prints")]
pub fn rewrite_line(text: &str) {
    eprint!("\r{} ", escape_line(text));
}

/// Prints untrusted text with its line breaks.
#[expect(clippy::print_stdout, reason = "the one place that prints")]
pub fn print_text(text: &str) {
    println!("{}", escape_text(text));
}

/// Prints a table whose cells were escaped one by one.
#[expect(clippy::print_stdout, reason = "the one place that prints")]
pub fn print_table(table: &comfy_table::Table) {
    println!("{table}");
}

/// Prints a value as indented JSON.
///
/// # Errors
/// The value has no form in JSON.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_escaped(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints a value as JSON on one line.
///
/// # Errors
/// The value has no form in JSON.
pub fn print_json_line(value: &impl Serialize) -> anyhow::Result<()> {
    print_escaped(&serde_json::to_string(value)?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the one place that prints")]
fn print_escaped(json: &str) {
    println!("{}", escape_json(json));
}

/// Prints the error that ends the program. Further lines of a quoted message are indented.
#[expect(clippy::print_stderr, reason = "the one place that prints")]
pub fn print_error(error: &dyn fmt::Display) {
    eprintln!("convergio: {}", escape_text(&error.to_string()).replace('\n', "\n  "));
}

/// Writer that escapes everything except line breaks and tabs.
pub struct EscapedLines<W>(pub W);

impl<W: io::Write> io::Write for EscapedLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // `write!` passes whole strings, so that no character is cut in two.
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(escape_text(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{escape_json, escape_line, escape_lines, escape_text, line_breaks, shorten_line};

    const ATTACK: &str = "harmless\u{1b}[2K\u{1b}]52;c;ZXZpbA==\u{7}\u{9b}2J\u{202e}evil\u{200b}";

    #[test]
    fn what_steers_a_terminal_is_shown() {
        let shown = escape_line(ATTACK);
        let expected = r"harmless\u{1b}[2K\u{1b}]52;c;ZXZpbA==\u{7}\u{9b}2J\u{202e}evil\u{200b}";
        assert_eq!(shown, expected);
        assert_eq!(escape_text("a\r\n\tb\u{7f}"), "a\\u{d}\n\tb\\u{7f}");
        assert_eq!(escape_line("a\nb"), r"a\u{a}b");
        for plain in ["Grüße, 世界 👍🏽", "שלום", "क्षमा", "50 € · ½ ← →"]
        {
            assert_eq!(escape_line(plain), plain);
        }
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({ATTACK: [ATTACK, "\u{e0041}", "ü"]});
        let json = serde_json::to_string(&value).unwrap();
        let escaped = escape_json(&json);
        assert!(escaped.chars().all(super::is_visible), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn a_value_brings_no_line_of_its_own() {
        assert_eq!(line_breaks("a\nb\n"), 2);
        assert_eq!(escape_lines("one\ntwo", 1), "one\ntwo");
        assert_eq!(
            escape_lines("run 1 is done\nrun 2 is done", 0),
            r"run 1 is done\u{a}run 2 is done"
        );
    }

    #[test]
    fn what_is_cut_is_counted() {
        assert_eq!(shorten_line("abc", 3), "abc");
        assert_eq!(shorten_line("abcde", 3), "abc… (2 more)");
    }
}
