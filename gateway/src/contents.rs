//! Room for the contents of one answer: payloads as values take many times what they are as bytes.

use bytes::Bytes;
use convergio_domain::json::memory_of;
use convergio_schemas::error_code;

use crate::problem::ApiError;

/// Memory that the contents of one answer may take together; a single one always has room.
const CONTENTS_LIMIT: usize = 128 << 20;

/// What the contents of an answer may still take.
#[derive(Debug)]
pub(crate) struct ContentRoom {
    left: usize,
}

impl ContentRoom {
    pub(crate) fn new() -> Self {
        Self { left: CONTENTS_LIMIT }
    }

    /// Takes room for one more; whether there was any.
    pub(crate) fn take(&mut self, content: &Bytes) -> bool {
        let memory = memory_of(content);
        let has_room = memory <= self.left || self.left == CONTENTS_LIMIT;
        self.left = self.left.saturating_sub(memory);
        has_room
    }

    /// The same, as an error for who cannot give less.
    pub(crate) fn require(&mut self, content: &Bytes) -> Result<(), ApiError> {
        if self.take(content) {
            return Ok(());
        }
        let limit = CONTENTS_LIMIT >> 20;
        let detail = format!(
            "the contents take more than {limit} MiB together: ask without them, and for those of \
             single events by /v1/runs/ID/events?payloads=true&limit=1"
        );
        Err(ApiError::new(error_code::REQUEST_TOO_LARGE, detail))
    }
}
