//! Splitting documents: by headings, paragraphs, lines or length.

use serde_json::{Value, json};

use super::Builtin;
use super::args::{Args, ToolError, error};

pub(super) const TOOLS: &[Builtin] = &[Builtin {
    name: "text.split",
    description: "Splits a document into {title, text}: `by` heading, paragraph, line or length; \
        no piece is longer than `max_chars`.",
    arguments: &[("text", "string"), ("by?", "string"), ("max_chars?", "any")],
    call: split,
}];

/// Pieces of one document.
const PIECES_LIMIT: usize = 10_000;
/// Words of a heading without a mark.
const HEADING_WORDS: usize = 12;

struct Piece {
    title: String,
    text: String,
}

fn split(args: &Args<'_>) -> Result<Value, ToolError> {
    let text = args.text("text")?;
    let max_chars = args.index_or("max_chars", usize::MAX)?.max(1);
    let pieces = match args.text_or("by", "heading")? {
        "heading" => by_heading(text),
        "paragraph" => untitled(text.split("\n\n")),
        "line" => untitled(text.lines()),
        "length" => untitled(std::iter::once(text)),
        other => {
            return error(format!("`by` is heading, paragraph, line or length, not `{other}`"));
        }
    };
    let pieces: Vec<Value> = pieces
        .into_iter()
        .flat_map(|piece| shorten(piece, max_chars))
        .map(|piece| json!({"title": piece.title, "text": piece.text}))
        .collect();
    if pieces.len() > PIECES_LIMIT {
        return error(format!("more than {PIECES_LIMIT} pieces: use a larger `max_chars`"));
    }
    Ok(Value::Array(pieces))
}

fn untitled<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Piece> {
    let texts = texts.map(str::trim).filter(|text| !text.is_empty());
    texts.map(|text| Piece { title: String::new(), text: text.to_owned() }).collect()
}

fn by_heading(text: &str) -> Vec<Piece> {
    let mut pieces = vec![Piece { title: String::new(), text: String::new() }];
    let lines: Vec<&str> = text.lines().collect();
    let mut skip_underline = false;
    for (number, line) in lines.iter().enumerate() {
        if std::mem::take(&mut skip_underline) {
            continue;
        }
        let next = lines.get(number + 1).copied().unwrap_or("");
        if let Some(title) = heading(line, next) {
            skip_underline = is_underline(next);
            pieces.push(Piece { title, text: String::new() });
        } else if let Some(piece) = pieces.last_mut() {
            piece.text.push_str(line);
            piece.text.push('\n');
        }
    }
    for piece in &mut pieces {
        piece.text = piece.text.trim().to_owned();
    }
    pieces.retain(|piece| !piece.text.is_empty());
    pieces
}

/// The title, if the line is a heading: `# Title`, an underlined line, or a short line in capitals.
fn heading(line: &str, next: &str) -> Option<String> {
    let line = line.trim();
    let marked = line.trim_start_matches('#');
    if marked.len() < line.len() && marked.starts_with(' ') {
        return Some(marked.trim().to_owned());
    }
    let has_letters = line.chars().any(char::is_alphabetic);
    let is_short = line.split_whitespace().count() <= HEADING_WORDS;
    let is_loud = !line.chars().any(char::is_lowercase) && line.chars().count() > 2;
    let is_heading = has_letters && is_short && (is_loud || is_underline(next));
    is_heading.then(|| line.to_owned())
}

fn is_underline(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 3 && (line.bytes().all(|b| b == b'=') || line.bytes().all(|b| b == b'-'))
}

/// Cuts a piece at sentence or word ends, so that no part is longer than allowed.
fn shorten(piece: Piece, max_chars: usize) -> Vec<Piece> {
    let mut parts = Vec::new();
    let mut rest = piece.text.as_str();
    while let Some((limit, _)) = rest.char_indices().nth(max_chars) {
        let window = &rest[..limit];
        let end = ["\n\n", ". ", ".\n", " "].iter().find_map(|mark| {
            window.rfind(mark).map(|at| at + mark.len()).filter(|end| *end > limit / 2)
        });
        let (part, left) = rest.split_at(end.unwrap_or(limit));
        parts.push(part.trim());
        rest = left;
    }
    parts.push(rest.trim());
    parts.retain(|part| !part.is_empty());
    let titled = |part: &&str| Piece { title: piece.title.clone(), text: (*part).to_owned() };
    parts.iter().map(titled).collect()
}

#[cfg(test)]
mod tests {
    use convergio_domain::time::Timestamp;
    use serde_json::json;

    use crate::tool::call;

    #[test]
    fn headings_are_marked_underlined_or_loud() {
        let text = "preface\n\n# One\nfirst text\n\nTwo\n===\nsecond\n\n\
            ARTICLE III\nthird, with CAPS in it\n";
        let pieces = call("text.split", &json!({"text": text}), Timestamp(0)).unwrap();
        let titles: Vec<_> =
            pieces.as_array().unwrap().iter().map(|p| p["title"].clone()).collect();
        assert_eq!(json!(titles), json!(["", "One", "Two", "ARTICLE III"]));
    }

    #[test]
    fn long_pieces_are_cut_at_sentences() {
        let text = "One sentence here. Another sentence there. And a third one.";
        let arguments = json!({"text": text, "by": "length", "max_chars": 45});
        let pieces = call("text.split", &arguments, Timestamp(0)).unwrap();
        assert_eq!(pieces[0]["text"], "One sentence here. Another sentence there.");
        assert_eq!(pieces[1]["text"], "And a third one.");
    }
}
