//! The folder of an embedded log: one process at a time, and the key that seals its payloads.

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

/// How long the lock of a process that died is waited for.
const DEAD_OWNER_WAIT: Duration = Duration::from_secs(2);
/// How often that lock is tried.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// A folder that this process alone uses.
pub(super) struct Folder {
    path: PathBuf,
    lock: File,
}

impl Folder {
    /// Takes the folder, or tells who has it.
    pub(super) fn lock(path: &Path) -> Result<Self, LogError> {
        create_private_folder(path).map_err(|error| unusable(path, &error))?;
        let file = path.join("lock");
        let mut lock = open_private_file(&file).map_err(|error| unusable(&file, &error))?;
        take_lock(&mut lock)?;
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(|error| unusable(&file, &error))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Lets others have the folder.
    pub(super) fn unlock(&self) {
        // The lock goes with the process at the latest.
        let _unlocked = FileExt::unlock(&self.lock);
    }

    /// The database's file.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("log.db")
    }

    /// The key that the tenants' keys are derived from; made at the first opening.
    pub(super) fn master_key(&self) -> Result<MasterKey, LogError> {
        let path = self.path.join("payload.key");
        match std::fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => {
                bytes.as_slice().try_into().map(MasterKey::new).map_err(|_| LogError::Corrupt {
                    at: path.display().to_string(),
                    reason: "the key must have 32 bytes: restore it from a backup".into(),
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.new_key(&path),
            Err(error) => Err(unusable(&path, &error)),
        }
    }

    fn new_key(&self, path: &Path) -> Result<MasterKey, LogError> {
        if self.database().exists() {
            return Err(LogError::Corrupt {
                at: path.display().to_string(),
                reason: "the log is here and its key is not: restore it from a backup".into(),
            });
        }
        let mut key = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *key)
            .map_err(|error| LogError::Unavailable(format!("no randomness: {error}")))?;
        // Whole or not at all, so that no crash leaves half a key.
        let write = || {
            write_private_file(path, &*key)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| unusable(path, &error))?;
        Ok(MasterKey::new(*key))
    }
}

/// Locks the file, or tells which process has it.
///
/// A child that a process forks holds the files of that process until it becomes another program.
/// Who is killed between the two leaves its lock with the child for some milliseconds, so that a
/// lock whose owner is dead is tried again.
fn take_lock(lock: &mut File) -> Result<(), LogError> {
    let begun = Instant::now();
    while FileExt::try_lock(lock).is_err() {
        let mut pid = String::new();
        // Who it is, is a courtesy; that somebody has it, is known.
        let _read = lock.rewind().and_then(|()| lock.read_to_string(&mut pid));
        let owner = pid.trim().parse().ok();
        if !owner.is_some_and(is_dead) || begun.elapsed() > DEAD_OWNER_WAIT {
            return Err(LogError::InUse(owner));
        }
        std::thread::sleep(LOCK_RETRY);
    }
    Ok(())
}

/// Whether no process of this machine has this id.
fn is_dead(id: u32) -> bool {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

fn unusable(path: &Path, error: &std::io::Error) -> LogError {
    LogError::Unavailable(format!("cannot use {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

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
        Folder::lock(folder.path()).map(|_| ()).expect("it is free soon");
        release.join().expect("no panic");
    }

    #[test]
    fn a_lock_that_is_never_released_is_told_with_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Folder::lock(folder.path()).expect("free");
        let second = Folder::lock(folder.path()).map(|_| ());
        assert!(matches!(second, Err(LogError::InUse(Some(id))) if id == std::process::id()));
        drop(first);
        let _lock = lock_for_dead_owner(folder.path());
        let third = Folder::lock(folder.path()).map(|_| ());
        assert!(matches!(third, Err(LogError::InUse(Some(_)))));
    }
}
