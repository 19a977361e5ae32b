//! Server-sent events (WHATWG HTML, section 9.2) as model servers send them: `data:` lines,
//! comments, bounded in length.

/// Bytes of one line at most.
const LINE_LIMIT: usize = 1 << 20;

/// Collects bytes into the data of events.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
}

/// A line longer than any honest server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    /// Takes bytes in; gives the data lines that are complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut data = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(part);
            if self.pending.len() > LINE_LIMIT {
                return Err(TooLong);
            }
            if part.ends_with(b"\n") {
                data.extend(data_of(&self.pending));
                self.pending.clear();
            }
        }
        Ok(data)
    }
}

fn data_of(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let data = line.trim_end_matches(['\r', '\n']).strip_prefix("data:")?;
    Some(data.trim_start().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{LINE_LIMIT, Lines, TooLong};

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = ": keepalive 1/2\r\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:[DONE]\n\n";
        for cut in 1..text.len() {
            let mut lines = Lines::default();
            let mut data = Vec::new();
            for part in text.as_bytes().chunks(cut) {
                data.extend(lines.feed(part).unwrap());
            }
            assert_eq!(data, ["{\"a\":1}", "[DONE]"]);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(&vec![b'x'; LINE_LIMIT + 1]), Err(TooLong));
    }
}
