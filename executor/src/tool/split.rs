//! The tool `text.split`: splits documents by headings, paragraphs, lines or length.

use serde_json::{Value, json};

use super::args::{Args, Kind, ToolError, error, optional, required};
use super::bounds::LIST_LIMIT;
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[Builtin {
    name: "text.split",
    description: "Splits a document into a list of {title, text}: `by` heading (when absent), \
        paragraph, lines or chars; no text is longer than `max_chars`. A heading is a line with # \
        before it, an underlined one, or a short one by itself in capitals, with a number or as \
        Chapter 1. A heading without text is left out.",
    arguments: &[
        required("text", Kind::Text),
        optional("by", Kind::OneOf(&["heading", "paragraph", "lines", "chars"])),
        optional("max_chars", Kind::Count),
    ],
    call: split,
}];

/// Maximum characters of a title; the rest is cut.
const TITLE_CHARS: usize = 200;
/// Maximum words of a line that counts as a heading without markup.
const HEADING_WORDS: usize = 12;
/// Words that make a line a heading when a number follows them.
const DIVISIONS: [&str; 9] =
    ["act", "appendix", "article", "book", "chapter", "part", "scene", "section", "volume"];

fn split(args: &Args<'_>) -> Result<Value, ToolError> {
    let text = args.text("text")?;
    let by = args.text_or("by", "heading")?;
    let max_chars = args.count_or("max_chars", usize::MAX)?;
    if max_chars == 0 {
        return error("`max_chars` must be at least 1");
    }
    let mut pieces = Pieces { max_chars, list: Vec::new() };
    match by {
        "heading" => by_heading(text, &mut pieces)?,
        "paragraph" => by_paragraph(text, &mut pieces)?,
        "lines" => text.lines().try_for_each(|line| pieces.add("", line))?,
        "chars" if max_chars < usize::MAX => pieces.add("", text)?,
        "chars" => return error("`by: chars` needs `max_chars`"),
        _ => return error("`by` must be heading, paragraph, lines or chars"),
    }
    Ok(Value::Array(pieces.list))
}

/// Pieces of a document that were split off so far.
struct Pieces {
    max_chars: usize,
    list: Vec<Value>,
}

impl Pieces {
    /// Adds a text, cut at the ends of paragraphs, sentences or words where it exceeds `max_chars`.
    fn add(&mut self, title: &str, text: &str) -> Result<(), ToolError> {
        let mut rest = text.trim();
        while let Some((limit, _)) = rest.char_indices().nth(self.max_chars) {
            let window = &rest[..limit];
            // A break in the first half is not used: pieces would become needlessly short.
            let ends = ["\n\n", ". ", ".\n", "\n", " "].iter().filter_map(|mark| {
                window.rfind(mark).map(|at| at + mark.len()).filter(|end| *end > limit / 2)
            });
            let (part, left) = rest.split_at(ends.into_iter().next().unwrap_or(limit));
            self.push(title, part.trim())?;
            rest = left.trim_start();
        }
        self.push(title, rest)
    }

    fn push(&mut self, title: &str, text: &str) -> Result<(), ToolError> {
        if text.is_empty() {
            return Ok(());
        }
        if self.list.len() == LIST_LIMIT {
            return error(format!("more than {LIST_LIMIT} pieces: use a larger `max_chars`"));
        }
        self.list.push(json!({"title": title, "text": text}));
        Ok(())
    }
}

fn by_paragraph(text: &str, pieces: &mut Pieces) -> Result<(), ToolError> {
    // Positions in bytes; slices of the text keep its own line ends.
    let (mut begin, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            pieces.add("", &text[begin..at])?;
            begin = at;
        }
        at += line.len();
    }
    pieces.add("", &text[begin..])
}

fn by_heading(text: &str, pieces: &mut Pieces) -> Result<(), ToolError> {
    let mut lines = text.split_inclusive('\n').peekable();
    let (mut title, mut begin, mut at) = (String::new(), 0, 0);
    let (mut is_after_blank, mut is_code) = (true, false);
    while let Some(line) = lines.next() {
        let line_begin = at;
        at += line.len();
        let next = lines.peek().map_or("", |line| line.trim());
        let line = line.trim();
        // A fence opens and closes a code block, in which `#` starts a comment and no heading.
        is_code ^= line.starts_with("```") || line.starts_with("~~~");
        let found = marked(line).or_else(|| {
            // Markup wins: a marked heading needs no blank line before it.
            let is_alone = is_after_blank && is_title(line, next);
            is_alone.then(|| line.to_owned())
        });
        is_after_blank = line.is_empty();
        let Some(heading) = found.filter(|_| !is_code) else { continue };
        pieces.add(&title, &text[begin..line_begin])?;
        title = heading.chars().take(TITLE_CHARS).collect();
        // The underline belongs to the heading, not to the text below it.
        if is_underline(next) && !line.starts_with('#') {
            at += lines.next().map_or(0, str::len);
        }
        (begin, is_after_blank) = (at, true);
    }
    pieces.add(&title, &text[begin..])
}

/// Returns the title of a Markdown heading, `# Title` to `###### Title`.
fn marked(line: &str) -> Option<String> {
    let rest = line.trim_start_matches('#');
    let level = line.len() - rest.len();
    let title = rest.strip_prefix([' ', '\t'])?.trim_end_matches('#').trim();
    ((1..=6).contains(&level) && !title.is_empty()).then(|| title.to_owned())
}

fn is_underline(line: &str) -> bool {
    line.len() >= 3 && (line.bytes().all(|b| b == b'=') || line.bytes().all(|b| b == b'-'))
}

/// Returns whether a line after a blank one is a heading without markup. Where it could be the
/// first line of a paragraph or list, a blank line must follow and no sentence may end with it.
fn is_title(line: &str, next: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().take(HEADING_WORDS + 1).collect();
    if words.is_empty() || words.len() > HEADING_WORDS || !line.chars().any(char::is_alphanumeric) {
        return false;
    }
    let is_lone = next.is_empty() && !line.ends_with(['.', ',', ';', ':', '!', '?']);
    is_underline(next)
        || is_loud(line)
        || (words.len() == 1 && is_roman(words[0]))
        || is_division(&words, is_lone)
        || (is_lone && is_numbered(&words))
}

/// Returns whether a line is in capitals. Scripts without capitals have no such headings.
fn is_loud(line: &str) -> bool {
    let capitals = line.chars().filter(|letter| letter.is_uppercase()).count();
    capitals >= 2 && !line.chars().any(char::is_lowercase)
}

/// Matches `Chapter 3`, `Article. I.`, or such with a title on the same line.
fn is_division(words: &[&str], is_lone: bool) -> bool {
    let [first, number, ..] = words else { return false };
    let name = first.trim_end_matches('.').to_lowercase();
    let number = number.trim_end_matches(['.', ',', ':']);
    // Roman numerals and digits only: `Part of` begins a sentence.
    let is_number = is_digits(number) || is_roman(number);
    DIVISIONS.contains(&name.as_str()) && is_number && (words.len() == 2 || is_lone)
}

/// Matches `1. Title`, `2.3 Title`, `4 Title` or `IV. Title`.
fn is_numbered(words: &[&str]) -> bool {
    let [number, title, ..] = words else { return false };
    let bare = number.trim_end_matches(['.', ')']);
    let is_marked = bare.len() < number.len() || bare.contains('.');
    // A bare number of three digits or more is more likely a quantity or a year.
    let is_decimal = bare.split('.').all(is_digits) && (is_marked || bare.len() <= 2);
    let is_titled = title.starts_with(|letter: char| !letter.is_lowercase());
    is_titled && (is_decimal || (is_marked && is_roman(bare)))
}

fn is_digits(word: &str) -> bool {
    !word.is_empty() && word.len() <= 4 && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_roman(word: &str) -> bool {
    let word = word.trim_end_matches('.');
    !word.is_empty() && word.len() <= 8 && word.bytes().all(|byte| b"IVXLCDM".contains(&byte))
}
