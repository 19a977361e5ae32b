//! The folder of an embedded log: one process at a time, and the key that seals its payloads.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use fs4::FileExt;
use zeroize::Zeroizing;

use crate::error::LogError;
use crate::private_files::{create_private_folder, open_private_file, write_private_file};
use crate::seal::MasterKey;

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
        if FileExt::try_lock(&lock).is_err() {
            let mut pid = String::new();
            // Who it is, is a courtesy; that somebody has it, is known.
            let _read = lock.read_to_string(&mut pid);
            return Err(LogError::InUse(pid.trim().parse().ok()));
        }
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

fn unusable(path: &Path, error: &std::io::Error) -> LogError {
    LogError::Unavailable(format!("cannot use {}: {error}", path.display()))
}
