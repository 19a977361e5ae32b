//! Waiting for file descriptors. A process that has too many files open is no failure of a
//! provider: the call waits, and does not count as a try before it is sent.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::ModelError;

/// Longest wait of one call for file descriptors.
const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// `EMFILE` and `ENFILE`: too many open files in the process or on the machine.
const TOO_MANY_FILES: [i32; 2] = [24, 23];

/// One call's wait for file descriptors, bounded in all.
pub(super) struct FileWait {
    deadline: Instant,
}

impl FileWait {
    /// Begins a wait that leaves at least half of the call's own timeout for the call.
    pub(super) fn new_for_call(call_timeout: Duration) -> Self {
        Self { deadline: Instant::now() + WAIT_LIMIT.min(call_timeout / 2) }
    }

    /// Waits before another attempt to connect.
    ///
    /// # Errors
    /// `internal`, retryable: the wait took too long.
    pub(super) async fn wait_for_file(&self) -> Result<(), ModelError> {
        if Instant::now() >= self.deadline {
            let message = "this process has too many files open to call a model: raise `ulimit -n`";
            return Err(ModelError::new("internal", true, message));
        }
        // Descriptors are freed by other calls of this process; there is no event to wait for.
        sleep(RETRY_INTERVAL).await;
        Ok(())
    }
}

/// Returns whether an error was caused by a lack of file descriptors.
pub(super) fn is_file_shortage(error: &(dyn Error + 'static)) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if code.is_some_and(|code| TOO_MANY_FILES.contains(&code)) {
            return true;
        }
        cause = error.source();
    }
    false
}
