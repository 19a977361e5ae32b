//! The folder of an embedded log: its lock, which admits one process at a time, and the key that
//! seals its payloads.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs4::FileExt;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use zeroize::Zeroizing;

use crate::error::LogError;
use crate::private_files::{create_private_folder, open_private_file, write_private_file};
use crate::seal::MasterKey;

/// Time to wait for the lock of a process that died.
const DEAD_OWNER_WAIT: Duration = Duration::from_secs(2);
/// Delay between two tries to take that lock.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// A folder that is locked by this process.
pub(super) struct LogFolder {
    path: PathBuf,
    lock: File,
}

impl LogFolder {
    /// Locks the folder.
    ///
    /// # Errors
    /// [`LogError::InUse`] names the process that has it.
    pub(super) fn lock_folder(path: &Path) -> Result<Self, LogError> {
        create_private_folder(path).map_err(|error| unusable_path(path, &error))?;
        let file = path.join("lock");
        let mut lock = open_private_file(&file).map_err(|error| unusable_path(&file, &error))?;
        take_lock(&mut lock)?;
        // The id is for the error message of the next process that tries to lock the folder.
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(|error| unusable_path(&file, &error))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Releases the lock.
    pub(super) fn unlock_folder(&self) {
        // The operating system releases the lock with the process at the latest.
        let _unlocked = FileExt::unlock(&self.lock);
    }

    /// Returns the path of the database.
    pub(super) fn database_path(&self) -> PathBuf {
        self.path.join("log.db")
    }

    /// Reads the master key that tenants' keys are derived from; creates it when the log is opened
    /// for the first time.
    pub(super) fn master_key(&self) -> Result<MasterKey, LogError> {
        let path = self.path.join("payload.key");
        match std::fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => {
                bytes.as_slice().try_into().map(MasterKey::new).map_err(|_| LogError::Corrupt {
                    at: path.display().to_string(),
                    reason: "the key must have 32 bytes: restore it from a backup".into(),
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.create_key(&path),
            Err(error) => Err(unusable_path(&path, &error)),
        }
    }

    fn create_key(&self, path: &Path) -> Result<MasterKey, LogError> {
        // A new key would make every payload of the log unreadable without an error.
        if self.database_path().exists() {
            return Err(LogError::Corrupt {
                at: path.display().to_string(),
                reason: "the log is here and its key is not: restore it from a backup".into(),
            });
        }
        let mut key = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *key)
            .map_err(|error| LogError::Unavailable(format!("no randomness: {error}")))?;
        // Atomically: half a key after a crash would lock the log for ever.
        let write = || {
            write_private_file(path, &*key)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| unusable_path(path, &error))?;
        Ok(MasterKey::new(*key))
    }
}

/// Locks the file.
///
/// A forked child shares its parent's open files until it executes another program. If the parent
/// is killed in between, the child keeps the lock for some milliseconds; so a lock whose owner is
/// dead is retried.
fn take_lock(lock: &mut File) -> Result<(), LogError> {
    let begun = Instant::now();
    while FileExt::try_lock(lock).is_err() {
        let mut pid = String::new();
        // The owner's id is only for the error message.
        let _read = lock.rewind().and_then(|()| lock.read_to_string(&mut pid));
        let owner = pid.trim().parse().ok();
        if !owner.is_some_and(is_dead) || begun.elapsed() > DEAD_OWNER_WAIT {
            return Err(LogError::InUse(owner));
        }
        std::thread::sleep(LOCK_RETRY);
    }
    Ok(())
}

/// Returns whether no process of this machine has this id.
fn is_dead(id: u32) -> bool {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

fn unusable_path(path: &Path, error: &std::io::Error) -> LogError {
    LogError::Unavailable(format!("cannot use {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use std::fs::File;
    use std::io::Write;
    use std::path::Path;

    use fs4::FileExt;

    use super::{LOCK_RETRY, LogFolder};
    use crate::error::LogError;

    /// Locks a folder in the name of a process that has ended.
    fn lock_for_dead_owner(path: &Path) -> File {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().expect("a process");
        child.wait().expect("it ends");
        let mut lock = File::create(path.join("lock")).expect("a file");
        writeln!(lock, "{}", child.id()).expect("writes");
        FileExt::lock(&lock).expect("nobody else has it");
        lock
    }

    #[test]
    fn a_lock_that_outlives_its_owner_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = lock_for_dead_owner(folder.path());
        let release = std::thread::spawn(move || {
            std::thread::sleep(LOCK_RETRY * 10);
            drop(lock);
        });
        LogFolder::lock_folder(folder.path()).map(|_| ()).expect("it is free soon");
        release.join().expect("no panic");
    }

    #[test]
    fn a_lock_that_is_never_released_is_told_with_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = LogFolder::lock_folder(folder.path()).expect("free");
        let second = LogFolder::lock_folder(folder.path()).map(|_| ());
        assert!(matches!(second, Err(LogError::InUse(Some(id))) if id == std::process::id()));
        drop(first);
        let _lock = lock_for_dead_owner(folder.path());
        let third = LogFolder::lock_folder(folder.path()).map(|_| ());
        assert!(matches!(third, Err(LogError::InUse(Some(_)))));
    }
}
