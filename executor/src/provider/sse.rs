//! Decoding of streams into pieces of JSON, bounded in length: server-sent events (WHATWG HTML,
//! section 9.2) with `data:` lines, or one piece per line.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

/// Maximum bytes of one line, and of one event.
const LINE_LIMIT: usize = 1 << 20;

/// The framing of pieces in a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events, the framing of most providers.
    #[default]
    Events,
    /// One piece per line, as in NDJSON.
    JsonLines,
}

/// Decodes bytes, in whatever chunks they arrive, into pieces of data.
#[derive(Debug, Default)]
pub(crate) struct StreamDecoder {
    framing: Framing,
    /// The line received so far.
    pending: Vec<u8>,
    /// True if the last byte was a CR: an LF after it belongs to the same line end.
    is_after_cr: bool,
    /// The data lines of the current event, if it has any.
    data: Option<String>,
}

/// A line or an event is longer than any honest server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineTooLong;

impl StreamDecoder {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, ..Self::default() }
    }

    /// Decodes bytes; returns the pieces that are complete now.
    ///
    /// # Errors
    /// A line or an event exceeds `LINE_LIMIT`.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> Result<Vec<String>, LineTooLong> {
        let (mut pieces, mut rest) = (Vec::new(), bytes);
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            // CR, LF and CRLF all end a line; a CRLF may be split between two chunks.
            let is_second_half = rest[end] == b'\n' && self.is_after_cr && line.is_empty();
            self.is_after_cr = rest[end] == b'\r';
            rest = after;
            if is_second_half {
                continue;
            }
            self.check_length(line.len())?;
            // Usually a line arrives in one chunk and needs no copy.
            if self.pending.is_empty() {
                self.end_line(line, &mut pieces);
            } else {
                let mut whole = std::mem::take(&mut self.pending);
                whole.extend_from_slice(line);
                self.end_line(&whole, &mut pieces);
            }
        }
        // Checked for incomplete lines too: a line without an end must not fill the memory.
        self.check_length(rest.len())?;
        // Bytes after the CR belong to the next line already.
        self.is_after_cr &= rest.is_empty();
        self.pending.extend_from_slice(rest);
        Ok(pieces)
    }

    fn check_length(&self, more: usize) -> Result<(), LineTooLong> {
        let length = self.pending.len() + self.data.as_ref().map_or(0, String::len) + more;
        if length > LINE_LIMIT { Err(LineTooLong) } else { Ok(()) }
    }

    /// Returns the pieces of a last line or event that the stream did not end.
    pub(crate) fn take_rest(&mut self) -> Vec<String> {
        let mut pieces = Vec::new();
        let line = std::mem::take(&mut self.pending);
        self.end_line(&line, &mut pieces);
        self.end_event(&mut pieces);
        pieces
    }

    /// Handles one complete line. Fields other than `data`, and comments, are ignored.
    fn end_line(&mut self, line: &[u8], pieces: &mut Vec<String>) {
        // Valid UTF-8, which is the rule, is borrowed; anything else is copied and repaired.
        let line =
            str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed);
        // A byte order mark may begin a stream (WHATWG HTML, section 9.2.5).
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        match self.framing {
            Framing::JsonLines => pieces.extend(trimmed_text(line)),
            Framing::Events if line.is_empty() => self.end_event(pieces),
            Framing::Events => {
                if let Some(data) = line.strip_prefix("data:") {
                    self.add_data(data.strip_prefix(' ').unwrap_or(data), pieces);
                }
            }
        }
    }

    /// Adds a data line to the event. A line that is complete JSON by itself is returned at once:
    /// some servers end their events late or never.
    fn add_data(&mut self, line: &str, pieces: &mut Vec<String>) {
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(line);
            }
            None if is_complete_piece(line) => pieces.extend(trimmed_text(line)),
            None => self.data = Some(line.to_owned()),
        }
    }

    fn end_event(&mut self, pieces: &mut Vec<String>) {
        pieces.extend(self.data.take().and_then(|data| trimmed_text(&data)));
    }
}

/// Returns the trimmed text of a piece, unless it is empty.
fn trimmed_text(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns whether a data line is a complete piece: the end mark, or JSON. The cheap test of the
/// last byte comes first: incomplete JSON rarely ends in a bracket.
fn is_complete_piece(line: &str) -> bool {
    let text = line.trim();
    text == "[DONE]" || text.is_empty() || {
        text.ends_with(['}', ']']) && serde_json::from_str::<IgnoredAny>(text).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{LINE_LIMIT, LineTooLong, StreamDecoder, is_complete_piece};

    fn read(parts: &[&[u8]]) -> Vec<String> {
        let mut lines = StreamDecoder::default();
        let mut pieces: Vec<String> =
            parts.iter().flat_map(|part| lines.push_bytes(part).unwrap()).collect();
        pieces.extend(lines.take_rest());
        pieces
    }

    /// A stream, which is read the same wherever it is cut.
    fn read_in_any_cut(text: &str) -> Vec<String> {
        let whole = read(&[text.as_bytes()]);
        for size in 1..text.len() {
            let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(read(&parts), whole, "{size} bytes at a time");
            let (left, right) = text.as_bytes().split_at(size);
            assert_eq!(read(&[left, right]), whole, "cut at {size}");
        }
        whole
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = "\u{feff}data: {\"a\":\"ü\"}\n: keepalive 1/2\r\ndata: {\"b\":1}\r\n\r\n\
            event: x\nid: 1\ndata:\ndata:  {\"c\":2}\rdata:[DONE]";
        let pieces = ["{\"a\":\"ü\"}", "{\"b\":1}", "{\"c\":2}", "[DONE]"];
        assert_eq!(read_in_any_cut(text), pieces);
    }

    #[test]
    fn lines_of_one_event_are_one_text() {
        for end in ["\n", "\r\n", "\r"] {
            let lines = [
                "event: x",
                "data: {\"a\":",
                ": a comment",
                "data:  \"ü\",",
                "data:",
                "data: \"b\": 1}",
                "",
                "",
                "data: {}",
                "",
                ": a comment",
                "",
                "data: [DONE]",
                "",
                "",
            ];
            let pieces = read_in_any_cut(&lines.join(end));
            assert_eq!(pieces, ["{\"a\":\n \"ü\",\n\n\"b\": 1}", "{}", "[DONE]"], "{end:?}");
        }
    }

    #[test]
    fn a_line_is_complete_when_it_is_json() {
        for (line, expected) in [
            ("[DONE]", true),
            (r#" {"a": "}"} "#, true),
            (r#"{"a": "\\\"}"}"#, true),
            (r#"[{"a": [1]}]"#, true),
            (r#"{"a": {}"#, false),
            (r#"{"a": "}"#, false),
            (r#"{"a": "\"}"#, false),
            (r#"{"a": 1}}"#, false),
            (r#"{} {}"#, false),
            ("}", false),
            ("1", false),
            (r#"{"a": "\"#, false),
        ] {
            assert_eq!(is_complete_piece(line), expected, "{line}");
        }
    }

    #[test]
    fn an_event_that_never_ends_is_refused() {
        let mut lines = StreamDecoder::default();
        let parts = (0..).map(|_| lines.push_bytes(b"data: {\n"));
        assert!(parts.take(LINE_LIMIT).any(|read| read == Err(LineTooLong)));
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = StreamDecoder::default();
        assert_eq!(lines.push_bytes(&vec![b'x'; LINE_LIMIT + 1]), Err(LineTooLong));
        let mut lines = StreamDecoder::default();
        let parts = (0..).map(|_| lines.push_bytes(&[b'x'; 4096]));
        assert!(parts.take(LINE_LIMIT / 4096 + 1).any(|read| read == Err(LineTooLong)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_the_same_in_any_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..300_usize,
        ) {
            let (left, right) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(read(&[left, right]), read(&[&bytes]));
        }
    }
}
