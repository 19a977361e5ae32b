//! The data folder: its location and the files in it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use convergio_eventstore::private_files::{create_private_folder, narrow_mode, write_private_file};
use convergio_process::{err_line, exit, user_folders};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::trust;

/// Name of a folder that is found in the working directory.
const FOLDER_NAME: &str = ".convergio";
/// Files and folders that the program writes into the data folder.
const OWN_ENTRIES: [&str; 20] = [
    "background.log",
    "check.db",
    "checkpoints",
    "folder.id",
    "lock",
    "log.db",
    "log.db-shm",
    "log.db-wal",
    "log.end",
    "model",
    "model.log",
    "models",
    "payload.key",
    "read.db",
    "read.db-shm",
    "read.db-wal",
    "server.json",
    "token",
    "tokens.json",
    "tokens.json.old",
];
/// Files that only a data folder has. Permissions in another folder that is named by mistake are
/// left alone.
const MARKER_FILES: [&str; 3] = ["log.db", "payload.key", "token"];

/// Path of a data folder, which need not exist yet.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

/// Content of `server.json`: the server that uses the folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerRecord {
    /// URL for commands on this machine.
    pub url: String,
    /// Id of the server's process.
    pub pid: u32,
}

impl DataDir {
    /// The folder that the user named; naming a folder is trusting it.
    pub fn from_path(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The named folder; else `./.convergio`, if it exists and is trusted; else the user's own.
    ///
    /// # Errors
    /// The folder in the working directory is not trusted, or the user has none.
    pub fn find_folder(named_path: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = named_path {
            return Ok(Self::from_path(path));
        }
        let local_folder = PathBuf::from(FOLDER_NAME);
        // Not `exists`, which follows links: a link is checked like a folder.
        match std::fs::symlink_metadata(&local_folder) {
            Ok(found) if found.is_dir() || found.is_symlink() => {
                trust::check_found_folder(&local_folder)?;
                Ok(Self(local_folder))
            }
            _ => Ok(Self(user_folders::share_folder()?)),
        }
    }

    /// Path of the folder as it was named or found.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// File of the read models, unless another place was named.
    pub fn read_models_file(&self) -> PathBuf {
        self.0.join("read.db")
    }

    /// Folder with states of long runs, which may be deleted at any time.
    pub fn checkpoints_folder(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Folder with a note for each evaluation under way, so that one that killed its process is
    /// known.
    pub fn evaluations_folder(&self) -> PathBuf {
        self.0.join("evaluations")
    }

    /// Creates the folder. In an existing one, permissions of others are removed.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn create_folder(&self) -> anyhow::Result<()> {
        let is_new = !self.0.exists();
        create_private_folder(&self.0).map_err(|error| {
            exit::unavailable_error(format!(
                "cannot use the data folder {}: {error}",
                self.0.display()
            ))
        })?;
        // An existing folder may hold data of a version that kept wider modes.
        if !is_new {
            self.narrow_if_empty();
            self.report_narrowed();
        } else if self.0.file_name().is_some_and(|name| name == FOLDER_NAME)
            && let Err(error) = trust::mark_folder(&self.0)
        {
            err_line!("convergio: {:?} is used only when it is named by --data: {error:#}", self.0);
        }
        Ok(())
    }

    /// Narrows an empty folder, which nobody can have read anything from.
    fn narrow_if_empty(&self) {
        let is_empty = std::fs::read_dir(&self.0).is_ok_and(|mut entries| entries.next().is_none());
        if is_empty && let Err(error) = narrow_mode(&self.0) {
            err_line!("convergio: others may use {}: {error}", self.0.display());
        }
    }

    fn report_narrowed(&self) {
        let narrowed = self.narrow_modes();
        if !narrowed.is_empty() {
            let (folder, narrowed) = (self.0.display(), narrowed.join(", "));
            err_line!("convergio: others could use {narrowed} of {folder}; now only you can");
        }
    }

    /// The folder and the program's files in it, with names for people; empty if it is no data
    /// folder.
    fn own_entries(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        // Without a marker the folder may be any folder of the user, such as a home folder.
        let is_data_folder = MARKER_FILES.iter().any(|sign| self.0.join(sign).exists());
        let inside = OWN_ENTRIES.iter().map(|name| (*name, self.0.join(name)));
        std::iter::once(("the folder", self.0.clone()))
            .chain(inside)
            .filter(move |_| is_data_folder)
    }

    /// Removes permissions of others; returns the names and old modes of what was changed.
    pub fn narrow_modes(&self) -> Vec<String> {
        let narrowed = |(name, path): (&str, PathBuf)| {
            let mode = narrow_mode(&path).ok().flatten()?;
            Some(format!("{name} (mode {mode:o})"))
        };
        self.own_entries().filter_map(narrowed).collect()
    }

    /// Names and modes of entries that others may still use, because they belong to another user
    /// and only that user can change them.
    pub fn wide_entries(&self) -> Vec<String> {
        let wide = |(name, path): (&str, PathBuf)| {
            let mode = std::fs::symlink_metadata(path).ok()?.mode() & 0o7777;
            (mode & 0o077 != 0).then(|| format!("{name} (mode {mode:o})"))
        };
        self.own_entries().filter_map(wide).collect()
    }

    /// The owner's token, if the folder has one.
    pub fn owner_token(&self) -> Option<Zeroizing<String>> {
        read_token(&self.token_file()).ok()
    }

    /// File with the owner's token.
    pub fn token_file(&self) -> PathBuf {
        self.0.join("token")
    }

    /// The owner's token; created if there is none.
    ///
    /// # Errors
    /// The token cannot be written.
    pub fn owner_token_or_new(&self) -> anyhow::Result<Zeroizing<String>> {
        match self.owner_token() {
            Some(token) => Ok(token),
            None => self.replace_owner_token(),
        }
    }

    /// Replaces the owner's token by a new one.
    ///
    /// # Errors
    /// The token cannot be written.
    pub fn replace_owner_token(&self) -> anyhow::Result<Zeroizing<String>> {
        let token = create_token()?;
        self.write_file("token", token_file_content(&token).as_bytes())?;
        Ok(token)
    }

    /// Key that seals payloads. All processes of a log in a cluster need the same one.
    ///
    /// # Errors
    /// The file is missing or has another length.
    pub fn payload_key(&self) -> anyhow::Result<Zeroizing<[u8; 32]>> {
        let path = self.0.join("payload.key");
        let bytes = Zeroizing::new(std::fs::read(&path).map_err(|error| {
            exit::unavailable_error(format!(
                "cannot read {}: {error}; copy it from where `convergio log create` was run",
                path.display()
            ))
        })?);
        let key = bytes.as_slice().try_into().map(Zeroizing::new);
        key.map_err(|_| exit::unavailable_error(format!("{} must have 32 bytes", path.display())))
    }

    /// Key that seals payloads; created if there is none.
    ///
    /// # Errors
    /// The key cannot be written or read.
    pub fn payload_key_or_new(&self) -> anyhow::Result<Zeroizing<[u8; 32]>> {
        if !self.0.join("payload.key").exists() {
            let mut key = Zeroizing::new([0_u8; 32]);
            getrandom::fill(&mut *key).context("no randomness for a key")?;
            self.write_file("payload.key", &*key)?;
        }
        self.payload_key()
    }

    /// Writes a file that only its owner may read, atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.0.join(name);
        write_private_file(&path, bytes).map_err(|error| {
            exit::unavailable_error(format!("cannot write {}: {error}", path.display()))
        })
    }

    /// The server that `server.json` names; it may have ended, and its address may be another's
    /// now.
    pub fn server_record(&self) -> Option<ServerRecord> {
        serde_json::from_slice(&std::fs::read(self.0.join("server.json")).ok()?).ok()
    }

    /// Records the server that uses the folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_server_record(&self, running: &ServerRecord) -> anyhow::Result<()> {
        self.write_file("server.json", serde_json::to_string(running)?.as_bytes())
    }

    /// Removes the record of the server that used the folder.
    pub fn remove_server_record(&self) {
        // If it cannot be removed, the stale record is recognised by its server not answering.
        let _removed = std::fs::remove_file(self.0.join("server.json"));
    }
}

/// Creates a random token of 256 bits.
///
/// # Errors
/// The system has no randomness.
pub fn create_token() -> anyhow::Result<Zeroizing<String>> {
    let mut random = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *random).context("no randomness for a token")?;
    // Sized in advance: growing would leave copies of the secret in freed memory.
    let mut token = Zeroizing::new(String::with_capacity(4 + 2 * random.len()));
    token.push_str("cvg_");
    for byte in random.iter() {
        for digit in [byte >> 4, byte & 15] {
            token.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    Ok(token)
}

/// Content of a token file.
pub fn token_file_content(token: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{token}\n"))
}

/// Reads a token file.
///
/// # Errors
/// The file cannot be read.
pub fn read_token(file: &Path) -> std::io::Result<Zeroizing<String>> {
    let text = Zeroizing::new(std::fs::read_to_string(file)?);
    Ok(Zeroizing::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{DataDir, create_token};

    #[test]
    fn a_token_has_256_bits_and_is_never_the_same() {
        let (one, two) = (create_token().unwrap(), create_token().unwrap());
        let digits = one.strip_prefix("cvg_").unwrap();
        assert_eq!(digits.len(), 64);
        assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(*one, *two);
    }

    #[test]
    fn only_a_data_folder_is_narrowed() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let set_mode = |mode| {
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(mode)).unwrap();
        };
        let data = DataDir::from_path(folder.path());
        set_mode(0o755);
        assert!(data.narrow_modes().is_empty(), "it is no data folder");
        std::fs::write(folder.path().join("log.db"), "").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        let log = folder.path().join("log.db");
        std::fs::set_permissions(log, PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(data.wide_entries().len(), 2);
        assert_eq!(data.narrow_modes(), ["the folder (mode 755)", "log.db (mode 640)"]);
        assert!(data.narrow_modes().is_empty() && data.wide_entries().is_empty());
    }
}
