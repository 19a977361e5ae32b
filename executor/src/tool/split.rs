//! The tool `text.split`: splits documents by headings, paragraphs, lines or length.

use serde_json::{Value, json};

use super::arguments::{
    ArgumentKind, FunctionTool, ToolArguments, ToolCallError, optional_argument, required_argument,
    tool_error,
};
use super::bounds::LIST_ITEMS_LIMIT;

pub(super) const TOOLS: &[FunctionTool] = &[FunctionTool {
    name: "text.split",
    description: "Splits a document into a list of {title, text}: `by` heading (when absent), \
        paragraph, lines or chars; no text is longer than `max_chars`. A heading is a line with # \
        before it, an underlined one, or a short one by itself in capitals, with a number or as \
        Chapter 1. A heading without text is left out.",
    arguments: &[
        required_argument("text", ArgumentKind::Text),
        optional_argument("by", ArgumentKind::OneOf(&["heading", "paragraph", "lines", "chars"])),
        optional_argument("max_chars", ArgumentKind::Count),
    ],
    function: split_document,
}];

/// Maximum characters of a title; the rest is cut.
const TITLE_CHARS_LIMIT: usize = 200;
/// Maximum words of a line that counts as a heading without markup.
const HEADING_WORDS_LIMIT: usize = 12;
/// Words that make a line a heading when a number follows them.
const DIVISION_NAMES: [&str; 9] =
    ["act", "appendix", "article", "book", "chapter", "part", "scene", "section", "volume"];

fn split_document(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    let text = args.get_text("text")?;
    let by = args.get_text_or("by", "heading")?;
    let max_chars = args.get_count_or("max_chars", usize::MAX)?;
    if max_chars == 0 {
        return tool_error("`max_chars` must be at least 1");
    }
    let mut pieces = DocumentPieces { max_chars, pieces: Vec::new() };
    match by {
        "heading" => split_by_heading(text, &mut pieces)?,
        "paragraph" => split_by_paragraph(text, &mut pieces)?,
        "lines" => text.lines().try_for_each(|line| pieces.add_text("", line))?,
        "chars" if max_chars < usize::MAX => pieces.add_text("", text)?,
        "chars" => return tool_error("`by: chars` needs `max_chars`"),
        _ => return tool_error("`by` must be heading, paragraph, lines or chars"),
    }
    Ok(Value::Array(pieces.pieces))
}

/// Pieces of a document that were split off so far.
struct DocumentPieces {
    max_chars: usize,
    pieces: Vec<Value>,
}

impl DocumentPieces {
    /// Adds a text, cut at the ends of paragraphs, sentences or words where it exceeds `max_chars`.
    fn add_text(&mut self, title: &str, text: &str) -> Result<(), ToolCallError> {
        let mut rest = text.trim();
        while let Some((limit, _)) = rest.char_indices().nth(self.max_chars) {
            let window = &rest[..limit];
            // A break in the first half is not used: pieces would become needlessly short.
            let ends = ["\n\n", ". ", ".\n", "\n", " "].iter().filter_map(|mark| {
                window.rfind(mark).map(|at| at + mark.len()).filter(|end| *end > limit / 2)
            });
            let (part, left) = rest.split_at(ends.into_iter().next().unwrap_or(limit));
            self.push_piece(title, part.trim())?;
            rest = left.trim_start();
        }
        self.push_piece(title, rest)
    }

    fn push_piece(&mut self, title: &str, text: &str) -> Result<(), ToolCallError> {
        if text.is_empty() {
            return Ok(());
        }
        if self.pieces.len() == LIST_ITEMS_LIMIT {
            return tool_error(format!(
                "more than {LIST_ITEMS_LIMIT} pieces: use a larger `max_chars`"
            ));
        }
        self.pieces.push(json!({"title": title, "text": text}));
        Ok(())
    }
}

fn split_by_paragraph(text: &str, pieces: &mut DocumentPieces) -> Result<(), ToolCallError> {
    // Positions in bytes; slices of the text keep its own line ends.
    let (mut piece_start, mut position) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            pieces.add_text("", &text[piece_start..position])?;
            piece_start = position;
        }
        position += line.len();
    }
    pieces.add_text("", &text[piece_start..])
}

fn split_by_heading(text: &str, pieces: &mut DocumentPieces) -> Result<(), ToolCallError> {
    let mut lines = text.split_inclusive('\n').peekable();
    let (mut title, mut piece_start, mut position) = (String::new(), 0, 0);
    let (mut is_after_blank, mut is_code) = (true, false);
    while let Some(line) = lines.next() {
        let line_start = position;
        position += line.len();
        let next = lines.peek().map_or("", |line| line.trim());
        let line = line.trim();
        // A fence opens and closes a code block, in which `#` starts a comment and no heading.
        is_code ^= line.starts_with("```") || line.starts_with("~~~");
        let heading = markdown_heading(line).or_else(|| {
            // Markup wins: a marked heading needs no blank line before it.
            let is_alone = is_after_blank && is_unmarked_heading(line, next);
            is_alone.then(|| line.to_owned())
        });
        is_after_blank = line.is_empty();
        let Some(heading) = heading.filter(|_| !is_code) else { continue };
        pieces.add_text(&title, &text[piece_start..line_start])?;
        title = heading.chars().take(TITLE_CHARS_LIMIT).collect();
        // The underline belongs to the heading, not to the text below it.
        if is_underline(next) && !line.starts_with('#') {
            position += lines.next().map_or(0, str::len);
        }
        (piece_start, is_after_blank) = (position, true);
    }
    pieces.add_text(&title, &text[piece_start..])
}

/// Returns the title of a Markdown heading, `# Title` to `###### Title`.
fn markdown_heading(line: &str) -> Option<String> {
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
fn is_unmarked_heading(line: &str, next: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().take(HEADING_WORDS_LIMIT + 1).collect();
    if words.is_empty()
        || words.len() > HEADING_WORDS_LIMIT
        || !line.chars().any(char::is_alphanumeric)
    {
        return false;
    }
    let is_alone = next.is_empty() && !line.ends_with(['.', ',', ';', ':', '!', '?']);
    is_underline(next)
        || is_in_capitals(line)
        || (words.len() == 1 && is_roman(words[0]))
        || is_division_heading(&words, is_alone)
        || (is_alone && is_numbered_heading(&words))
}

/// Returns whether a line is in capitals. Scripts without capitals have no such headings.
fn is_in_capitals(line: &str) -> bool {
    let capitals = line.chars().filter(|letter| letter.is_uppercase()).count();
    capitals >= 2 && !line.chars().any(char::is_lowercase)
}

/// Matches `Chapter 3`, `Article. I.`, or such with a title on the same line.
fn is_division_heading(words: &[&str], is_lone: bool) -> bool {
    let [first, number, ..] = words else { return false };
    let name = first.trim_end_matches('.').to_lowercase();
    let number = number.trim_end_matches(['.', ',', ':']);
    // Roman numerals and digits only: `Part of` begins a sentence.
    let is_number = is_digits(number) || is_roman(number);
    DIVISION_NAMES.contains(&name.as_str()) && is_number && (words.len() == 2 || is_lone)
}

/// Matches `1. Title`, `2.3 Title`, `4 Title` or `IV. Title`.
fn is_numbered_heading(words: &[&str]) -> bool {
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
