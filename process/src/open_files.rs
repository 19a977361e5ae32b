//! Limits on open files and connections of the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit;

/// Open files kept free for the log, read models, providers, worker processes and logs.
const RESERVED_FILES: usize = 256;
/// Minimum connections of callers; with fewer a server does not start.
const MIN_CONNECTIONS: usize = 64;

/// Raises the soft limit of open files to the hard limit and returns the limit now in force;
/// `usize::MAX` if there is none.
pub fn raise_file_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current else { return usize::MAX };
    let raised = Rlimit { current: maximum, maximum };
    // A refusal leaves the old limit in force, which is still a valid answer.
    let is_raised = setrlimit(Resource::Nofile, raised).is_ok();
    let limit = if is_raised { maximum } else { Some(current) };
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Maximum concurrent connections of callers: the open files that are left after the reserve, at
/// most `most`.
///
/// # Errors
/// Fewer than the minimum are left.
pub fn connection_limit(open_files: usize, limit: usize) -> anyhow::Result<usize> {
    let available = open_files.saturating_sub(RESERVED_FILES);
    if available < MIN_CONNECTIONS {
        let least = RESERVED_FILES + MIN_CONNECTIONS;
        return Err(exit::unavailable_error(format!(
            "the process may open only {open_files} files, and needs {least}: raise `ulimit -n`"
        )));
    }
    Ok(available.min(limit))
}

#[cfg(test)]
mod tests {
    use super::connection_limit;

    #[test]
    fn connections_are_what_is_left_after_the_reserve() {
        assert_eq!(connection_limit(1_024, 4_096).expect("enough"), 768);
        assert_eq!(connection_limit(usize::MAX, 4_096).expect("enough"), 4_096);
        assert!(connection_limit(300, 4_096).expect_err("too few").to_string().contains("320"));
    }
}
