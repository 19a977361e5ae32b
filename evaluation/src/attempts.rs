//! Counts attempts in files, so that an input that kills the whole process is not retried for ever.
//!
//! Before a job goes to a worker, the file named by its digest grows by one byte; when the attempt
//! ends, in whatever way, the file is removed. A process that dies in between leaves it: its length
//! is the number of processes that died during that job. The files survive the process but not a
//! power cut, which no input causes.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::EvaluationError;
use crate::job::JobDigest;

/// Process deaths during one job after which the job is refused.
const PROCESS_DEATHS_LIMIT: u64 = 3;
/// Age at which a file is removed unread.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// The attempts in progress.
pub(crate) struct Attempts {
    folder: Option<PathBuf>,
    /// Attempts in progress in this process, by job.
    open_counts: Mutex<BTreeMap<JobDigest, usize>>,
}

/// An attempt in progress; dropping it removes its mark.
pub(crate) struct Attempt {
    attempts: Arc<Attempts>,
    print: JobDigest,
}

impl Attempts {
    /// Opens the counts in a folder, which is created; without a folder they end with the process.
    pub(crate) fn open(folder: Option<PathBuf>) -> io::Result<Arc<Self>> {
        if let Some(folder) = &folder {
            fs::create_dir_all(folder)?;
            remove_old_marks(folder)?;
        }
        Ok(Arc::new(Self { folder, open_counts: Mutex::default() }))
    }

    /// Marks a job as in progress; refused if too many processes died during it.
    pub(crate) fn begin_attempt(
        self: &Arc<Self>,
        print: JobDigest,
    ) -> Result<Attempt, EvaluationError> {
        let mut open = self.open_counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(print).or_default();
        // Only the first of several equal jobs marks the file: a death counts once for all of them.
        if *count == 0
            && let Err(error) = self.mark_attempt(print)
        {
            open.remove(&print);
            return Err(error);
        }
        *count += 1;
        Ok(Attempt { attempts: Arc::clone(self), print })
    }

    fn mark_attempt(&self, print: JobDigest) -> Result<(), EvaluationError> {
        let Some(file) = self.mark_path(print) else { return Ok(()) };
        let process_deaths = fs::metadata(&file).map_or(0, |known| known.len());
        if process_deaths >= PROCESS_DEATHS_LIMIT {
            let message = format!(
                "{process_deaths} processes ended while this was evaluated: it is not begun again; \
                 make the template, the condition, the schema or the value smaller"
            );
            return Err(EvaluationError::limit_exceeded(message));
        }
        let opened = OpenOptions::new().create(true).append(true).open(&file);
        let marked = opened.and_then(|mut file| file.write_all(b"."));
        marked.map_err(|error| {
            EvaluationError::try_later(format!(
                "an attempt cannot be noted in {}: {error}",
                file.display()
            ))
        })
    }

    fn mark_path(&self, print: JobDigest) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(print.to_string()))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut open = self.attempts.open_counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = open.get_mut(&self.print) else { return };
        *count -= 1;
        if *count == 0 {
            open.remove(&self.print);
            if let Some(file) = self.attempts.mark_path(self.print) {
                // A file that stays counts a death that did not happen; it is removed by its age.
                let _removed = fs::remove_file(file);
            }
        }
    }
}

fn remove_old_marks(folder: &PathBuf) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if age > FORGET_AFTER {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Attempts;
    use crate::EvaluationError;
    use crate::job::EvaluationJob;

    #[test]
    fn what_was_under_way_in_three_lives_is_not_begun_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Attempts::open(Some(folder.path().to_owned())).expect("opens");
        let print = EvaluationJob::Manifest { text: "x".into() }.job_digest();
        let life = open();
        drop(life.begin_attempt(print).expect("begins"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 0, "it has ended");
        for _ in 0..3 {
            let life = open();
            let (one, other) =
                (life.begin_attempt(print).expect("begins"), life.begin_attempt(print));
            std::mem::forget(one);
            std::mem::forget(other.expect("the same life counts once"));
        }
        let refused = open().begin_attempt(print).err().expect("refused");
        assert!(matches!(refused, EvaluationError::Limit(_)), "{refused}");
        let other = EvaluationJob::Manifest { text: "y".into() }.job_digest();
        assert!(open().begin_attempt(other).is_ok());
    }
}
