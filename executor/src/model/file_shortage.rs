//! When this process may open no more files: that is no failure of a provider, so a call waits for
//! one, and is not a try before it was sent.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::ModelError;

/// Longest wait for a file.
const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// Wait before it is tried again.
const WAIT: Duration = Duration::from_millis(100);
/// `EMFILE` and `ENFILE`: too many open files, in the process or on the machine.
const TOO_MANY_FILES: [i32; 2] = [24, 23];

/// Waits for a free file, for a while in all.
pub(super) struct FileWait {
    until: Instant,
}

impl FileWait {
    /// A wait that ends well before the call's own time does.
    pub(super) fn within(call_timeout: Duration) -> Self {
        Self { until: Instant::now() + WAIT_LIMIT.min(call_timeout / 2) }
    }

    /// Waits before a connection is tried again that failed for want of files.
    ///
    /// # Errors
    /// It took too long.
    pub(super) async fn wait(&self) -> Result<(), ModelError> {
        if Instant::now() >= self.until {
            let message = "this process has too many files open to call a model: raise `ulimit -n`";
            return Err(ModelError::new("internal", true, message));
        }
        sleep(WAIT).await;
        Ok(())
    }
}

/// Whether the want of files is behind an error.
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
