//! Memory budget for the payload contents of one answer: as JSON values they take many times their
//! size in bytes.

use bytes::Bytes;
use convergio_domain::json::memory_upper_bound;
use convergio_schemas::error_code;

use crate::problem::ApiError;

/// Maximum memory in bytes of the contents of one answer; a single content is always allowed, so
/// that every payload can be read.
const CONTENTS_BYTES_LIMIT: usize = 128 << 20;

/// Memory that the contents of an answer may still take.
#[derive(Debug)]
pub(crate) struct ContentBudget {
    remaining_bytes: usize,
}

impl ContentBudget {
    pub(crate) fn new() -> Self {
        Self { remaining_bytes: CONTENTS_BYTES_LIMIT }
    }

    /// Reserves memory for one more content; returns false if the budget does not allow it.
    pub(crate) fn try_reserve(&mut self, content: &Bytes) -> bool {
        let memory = memory_upper_bound(content);
        let has_room =
            memory <= self.remaining_bytes || self.remaining_bytes == CONTENTS_BYTES_LIMIT;
        // A refused content is charged as well: the budget is then exhausted for smaller ones after
        // it, and the answer is cut at one point instead of having holes.
        self.remaining_bytes = self.remaining_bytes.saturating_sub(memory);
        has_room
    }

    /// Reserves memory like [`ContentBudget::try_reserve`].
    ///
    /// # Errors
    /// `request.too_large` if the budget does not allow it.
    pub(crate) fn require_budget(&mut self, content: &Bytes) -> Result<(), ApiError> {
        if self.try_reserve(content) {
            return Ok(());
        }
        let limit = CONTENTS_BYTES_LIMIT >> 20;
        let detail = format!(
            "the contents take more than {limit} MiB together: ask without them, and for those of \
             single events by /v1/runs/ID/events?payloads=true&limit=1"
        );
        Err(ApiError::new(error_code::REQUEST_TOO_LARGE, detail))
    }
}
