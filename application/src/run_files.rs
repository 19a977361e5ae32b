//! Files of runs: take one into the log.

use std::path::Path;

use convergio_eventstore::run_file::{self, RunImportError, RunImportOptions, RunImportReport};

use crate::caller::Caller;
use crate::use_cases::UseCases;

impl UseCases<'_> {
    /// Imports the run of a file as history that never goes on. `key` is the log's payload key;
    /// `signer` must have signed the file, if it is given.
    ///
    /// # Errors
    /// See [`RunImportError`]. A file with an error anywhere changes nothing.
    pub async fn import_run(
        self,
        caller: &Caller,
        key: &[u8; 32],
        file: &Path,
        signer: Option<&str>,
    ) -> Result<RunImportReport, RunImportError> {
        let context = self.decision_context(caller);
        let options = RunImportOptions { context: &context, signer };
        run_file::import_run(self.repository, key, file, options).await
    }
}
