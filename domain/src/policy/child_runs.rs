//! Depth and width of runs within runs.

use crate::failure::UnsealedFailure;
use crate::platform_text;

/// Maximum nesting depth of child runs.
pub const DEPTH_LIMIT: u32 = 4;
/// Maximum number of open child runs of one run. Further tool calls are queued.
pub const WIDTH_LIMIT: usize = 64;

/// Returns the nesting depth of a child of a run that is itself `parent_depth` deep.
///
/// # Errors
/// The child would be deeper than [`DEPTH_LIMIT`].
pub fn child_depth(parent_depth: u32) -> Result<u32, UnsealedFailure> {
    let depth = parent_depth + 1;
    if depth > DEPTH_LIMIT {
        let message = platform_text!("runs within runs go {} deep at most", DEPTH_LIMIT);
        return Err(UnsealedFailure::new("agent.limit", message));
    }
    Ok(depth)
}
