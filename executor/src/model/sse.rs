//! Streams of lines, bounded in length, each a whole piece of JSON: server-sent events (WHATWG
//! HTML, section 9.2) with `data:` lines and comments, or one piece a line.

/// Bytes of one line at most.
const LINE_LIMIT: usize = 1 << 20;

/// How pieces are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// Server-sent events.
    #[default]
    Events,
    /// One piece a line.
    Lines,
}

/// Collects bytes into data lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    framing: Framing,
    pending: Vec<u8>,
}

/// A line longer than any honest server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, pending: Vec::new() }
    }

    /// Takes bytes in; gives the data of the lines that are complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut data = Vec::new();
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            self.pending.extend_from_slice(part);
            if self.pending.len() > LINE_LIMIT {
                return Err(TooLong);
            }
            if part.ends_with(b"\n") || part.ends_with(b"\r") {
                data.extend(self.data());
                self.pending.clear();
            }
        }
        Ok(data)
    }

    /// The data of a last line that nothing ended.
    pub(super) fn rest(&self) -> Option<String> {
        self.data()
    }

    fn data(&self) -> Option<String> {
        let line = String::from_utf8_lossy(&self.pending);
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        let data = match self.framing {
            Framing::Events => line.strip_prefix("data:")?,
            Framing::Lines => line,
        };
        let data = data.trim();
        (!data.is_empty()).then(|| data.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{LINE_LIMIT, Lines, TooLong};

    fn read(parts: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut data: Vec<String> =
            parts.iter().flat_map(|part| lines.feed(part).unwrap()).collect();
        data.extend(lines.rest());
        data
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = "\u{feff}data: {\"a\":\"ü\"}\n: keepalive 1/2\r\ndata: {\"b\":1}\r\n\r\n\
            event: x\nid: 1\ndata:\ndata:  {\"c\":2}\rdata:[DONE]";
        for cut in 1..text.len() {
            let parts: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            assert_eq!(read(&parts), ["{\"a\":\"ü\"}", "{\"b\":1}", "{\"c\":2}", "[DONE]"]);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(&vec![b'x'; LINE_LIMIT + 1]), Err(TooLong));
        let mut lines = Lines::default();
        let parts = (0..).map(|_| lines.feed(&[b'x'; 4096]));
        assert!(parts.take(LINE_LIMIT / 4096 + 1).any(|read| read == Err(TooLong)));
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
