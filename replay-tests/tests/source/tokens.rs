//! Rust code as words and marks, without comments, literals and parts that only tests see.

/// An attribute that hides what follows from production.
const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// A word, the mark `::`, or another single mark.
#[derive(Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// Its place in the file, counted from one.
    pub(crate) line: usize,
}

impl Token<'_> {
    pub(crate) fn is_word(&self) -> bool {
        self.text.starts_with(is_word_letter)
    }
}

fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The tokens of a file's production code.
pub(crate) fn production_tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut hidden = 0;
    let all = split_tokens(text);
    for index in 0..all.len() {
        if index >= hidden && opens_with(&all[index..], &CFG_TEST) {
            hidden = index + item_length(&all[index..]);
        }
        if index >= hidden {
            tokens.push(all[index]);
        }
    }
    tokens
}

fn opens_with(tokens: &[Token<'_>], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(token, text)| token.text == *text)
}

/// Tokens of the item or statement at the front, its attributes included.
fn item_length(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0_i32;
    for (index, token) in tokens.iter().enumerate() {
        depth += match token.text {
            "(" | "[" | "{" => 1,
            ")" | "]" | "}" => -1,
            _ => 0,
        };
        if depth < 0 {
            return index;
        }
        if depth == 0 && matches!(token.text, ";" | "}") {
            return index + 1;
        }
    }
    tokens.len()
}

fn split_tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let silent = silent_length(rest);
        let (lexeme, after) = rest.split_at(silent.unwrap_or_else(|| token_length(rest)));
        if silent.is_none() {
            tokens.push(Token { text: lexeme, line });
        }
        line += lexeme.matches('\n').count();
        rest = after;
    }
    tokens
}

/// Length of the blanks, the comment or the literal at the front.
fn silent_length(text: &str) -> Option<usize> {
    let blanks = text.len() - text.trim_start().len();
    if blanks > 0 {
        return Some(blanks);
    }
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    match text.as_bytes()[0] {
        b'/' => text.starts_with("/*").then(|| block_comment_length(text)),
        b'"' => Some(string_length(text)),
        b'\'' => Some(quote_length(text)),
        b'b' | b'c' | b'r' => raw_string_length(text),
        _ => None,
    }
}

fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(mark) = text[at..].find(['/', '*']) {
        at += mark;
        let width = match text.get(at..at + 2) {
            Some("/*") => {
                depth += 1;
                2
            }
            Some("*/") => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += width;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !is_escaped => return index + 1,
            _ => is_escaped = byte == b'\\' && !is_escaped,
        }
    }
    text.len()
}

/// Length of a character between quotes, or of a lifetime's mark and name.
fn quote_length(text: &str) -> usize {
    let body = &text[1..];
    let Some(letter) = body.chars().next() else {
        return 1;
    };
    if letter == '\\' {
        return text.get(3..).and_then(|rest| rest.find('\'')).map_or(text.len(), |end| end + 4);
    }
    if body[letter.len_utf8()..].starts_with('\'') {
        return letter.len_utf8() + 2;
    }
    1 + body.find(|letter| !is_word_letter(letter)).unwrap_or(body.len())
}

/// Length of `r"…"`, `br#"…"#` and the like; none where a word stands.
fn raw_string_length(text: &str) -> Option<usize> {
    let mark = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r')?;
    let hashes = mark.len() - mark.trim_start_matches('#').len();
    let body = mark[hashes..].strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&closing).map_or(body.len(), |end| end + closing.len());
    Some(text.len() - body.len() + length)
}

/// Length of the word or mark at the front.
fn token_length(text: &str) -> usize {
    if text.starts_with("::") {
        return 2;
    }
    let word = text.find(|letter| !is_word_letter(letter)).unwrap_or(text.len());
    let letter = text.chars().next().map_or(0, char::len_utf8);
    word.max(letter)
}

#[cfg(test)]
fn token_texts(code: &str) -> Vec<&str> {
    production_tokens(code).into_iter().map(|token| token.text).collect()
}

#[test]
fn code_is_split_into_words_and_marks() {
    assert_eq!(token_texts("a::b_2(&c);"), ["a", "::", "b_2", "(", "&", "c", ")", ";"]);
    assert_eq!(token_texts("x /* a /* b */ c */ y // z\n!"), ["x", "y", "!"]);
    let lines: Vec<_> = production_tokens("a\n\n\"\n\" b").iter().map(|token| token.line).collect();
    assert_eq!(lines, [1, 4]);
}

#[test]
fn literals_are_left_out() {
    assert_eq!(
        token_texts(r#"a("use b::c; \" {", 'x', '\'', '"', b'\\') d"#).join(""),
        "a(,,,,b)d"
    );
    assert_eq!(token_texts("r#\"a\"b\"# c br\"\\\" d"), ["c", "d"]);
    assert_eq!(token_texts("raw<'a>(&'static b)"), ["raw", "<", ">", "(", "&", "b", ")"]);
}

#[test]
fn parts_for_tests_are_left_out() {
    assert_eq!(
        token_texts("#[cfg(test)]\n#[path = \"a\"]\nmod tests;\nmod turn;"),
        ["mod", "turn", ";"]
    );
    assert_eq!(token_texts("#[cfg(test)]\nmod tests { fn a() { b[1]; } }\nc"), ["c"]);
    assert_eq!(token_texts("{ #[cfg(test)] if a() { b } c }"), ["{", "c", "}"]);
    assert_eq!(token_texts("{ #[cfg(test)] a } c"), ["{", "}", "c"]);
}
