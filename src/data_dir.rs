//! The data folder: where it is and what lies in it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::exit;

/// The data folder.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

/// The server that uses the folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) url: String,
    pub(crate) pid: u32,
}

impl DataDir {
    /// The folder that was named, or the usual one.
    pub(crate) fn find(named: Option<&Path>) -> Self {
        if let Some(path) = named {
            return Self(path.to_owned());
        }
        let here = PathBuf::from(".convergio");
        if here.is_dir() {
            return Self(here);
        }
        let home =
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".local/share");
        let shared = std::env::var_os("XDG_DATA_HOME").map_or_else(home, PathBuf::from);
        Self(shared.join("convergio"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn read_models(&self) -> PathBuf {
        self.0.join("read.db")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Evaluations that are under way.
    pub(crate) fn attempts(&self) -> PathBuf {
        self.0.join("evaluations")
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.0.join("model")
    }

    /// Makes the folder.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.0).map_err(|error| {
            exit::unavailable(format!("cannot use the data folder {}: {error}", self.0.display()))
        })
    }

    /// The owner's token, if there is one.
    pub(crate) fn token(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.0.join("token")).ok()?;
        Some(text.trim().to_owned())
    }

    /// The owner's token, made at the first start; tells whether it is new.
    pub(crate) fn token_or_new(&self) -> anyhow::Result<(String, bool)> {
        if let Some(token) = self.token() {
            return Ok((token, false));
        }
        let token = new_token()?;
        self.write("token", format!("{token}\n"))?;
        Ok((token, true))
    }

    /// The key that seals payloads; a log in a cluster needs the same one everywhere.
    pub(crate) fn payload_key(&self) -> anyhow::Result<[u8; 32]> {
        let path = self.0.join("payload.key");
        let bytes = std::fs::read(&path).map_err(|error| {
            exit::unavailable(format!(
                "cannot read {}: {error}; copy it from where `convergio log create` was run",
                path.display()
            ))
        })?;
        bytes
            .try_into()
            .map_err(|_| exit::unavailable(format!("{} must have 32 bytes", path.display())))
    }

    /// The same, made if it is not there.
    pub(crate) fn payload_key_or_new(&self) -> anyhow::Result<[u8; 32]> {
        if !self.0.join("payload.key").exists() {
            let mut key = [0_u8; 32];
            getrandom::fill(&mut key).context("no randomness for a key")?;
            self.write("payload.key", key)?;
        }
        self.payload_key()
    }

    /// Writes a file that only its owner reads, whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let (path, partial) = (self.0.join(name), self.0.join(format!("{name}.new")));
        let mut options = OpenOptions::new();
        let mut write = || {
            let mut file =
                options.create(true).write(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(bytes.as_ref())?;
            file.sync_all()?;
            std::fs::rename(&partial, &path)
        };
        write()
            .map_err(|error| exit::unavailable(format!("cannot write {}: {error}", path.display())))
    }

    /// The server that says it uses the folder; it may be gone.
    pub(crate) fn running(&self) -> Option<Running> {
        serde_json::from_slice(&std::fs::read(self.0.join("server.json")).ok()?).ok()
    }

    /// Says which server uses the folder.
    pub(crate) fn announce(&self, running: &Running) -> anyhow::Result<()> {
        self.write("server.json", serde_json::to_string(running)?)
    }

    /// Says that no server uses the folder.
    pub(crate) fn withdraw(&self) {
        // A stale file is recognised by its server not answering.
        let _removed = std::fs::remove_file(self.0.join("server.json"));
    }
}

/// A token that nobody has.
pub(crate) fn new_token() -> anyhow::Result<String> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).context("no randomness for a token")?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("cvg_{digits}"))
}
