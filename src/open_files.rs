//! How many files and connections the process may have open at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit;

/// Kept for the log, read models, providers, worker processes and logs.
const RESERVE: usize = 256;
/// Connections of callers that are worth starting for.
const LEAST_CONNECTIONS: usize = 64;

/// Raises the number of open files to what the machine allows without asking; gives the number.
pub(crate) fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current else { return usize::MAX };
    let wanted = Rlimit { current: maximum, maximum };
    // Where it is refused the limit stays what it is, and is kept to.
    let is_raised = setrlimit(Resource::Nofile, wanted).is_ok();
    let limit = if is_raised { maximum } else { Some(current) };
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Connections of callers at once: what is left after the reserve, and no more than `most`.
///
/// # Errors
/// Too little is left.
pub(crate) fn connection_limit(open_files: usize, most: usize) -> anyhow::Result<usize> {
    let left = open_files.saturating_sub(RESERVE);
    if left < LEAST_CONNECTIONS {
        let least = RESERVE + LEAST_CONNECTIONS;
        return Err(exit::unavailable(format!(
            "the process may open only {open_files} files, and needs {least}: raise `ulimit -n`"
        )));
    }
    Ok(left.min(most))
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
