//! Trust of this user: data folders that are found by standing beside them, and model servers of
//! other users. It is kept in the user's own configuration, out of reach of what is trusted.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use convergio_eventstore::private_files::{
    create_private_folder, narrow_mode, open_private_file, write_private_file,
};
use convergio_process::{exit, user_folders};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// File in the user's configuration.
const TRUST_FILE: &str = "trusted.json";
/// File in a folder with the id that the user's configuration knows it by. A folder that was
/// replaced or copied has another id or path.
const MARK_FILE: &str = "folder.id";
/// A setting that earlier versions did not hash: without this file the digest equals theirs.
const PRICES_FILE: &str = "prices.json";
/// Files of a folder that decide where prompts and keys are sent, and what calls cost.
const SETTINGS_FILES: [&str; 3] = ["privacy.json", "providers.json", PRICES_FILE];
/// Maximum folders and maximum servers remembered; the oldest are forgotten.
const ENTRIES_LIMIT: usize = 1000;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustStore {
    #[serde(default)]
    folders: Vec<TrustedFolder>,
    #[serde(default)]
    model_servers: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustedFolder {
    path: PathBuf,
    id: String,
    /// SHA-256 of the folder's settings when it was trusted.
    settings: String,
}

/// Refuses a folder that was found rather than named, unless this user's program created it or the
/// user trusted it, its settings are unchanged, and nobody else can have changed it.
pub(crate) fn check_found_folder(folder: &Path) -> anyhow::Result<()> {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let refusal = |why: String| {
        exit::bad_input_error(format!(
            "the data folder {absolute:?} is not used: {why}. If it is yours, look into it, then: \
             convergio trust {absolute:?} (or name it by --data)"
        ))
    };
    if let Some(why) = find_foreign_entry(folder)? {
        return Err(refusal(why));
    }
    let path = folder.canonicalize()?;
    // The path alone is no proof: another folder may have been moved there since.
    let mark = read_mark(folder);
    let trust_store = load_trust_store(&user_folders::config_folder()?.join(TRUST_FILE))?;
    let trusted_folder = trust_store.folders.iter().find(|known| known.path == path);
    match trusted_folder.filter(|known| mark.as_deref() == Some(&known.id)) {
        None => Err(refusal("no program of yours made it here".to_owned())),
        Some(known) if known.settings != settings_digest(folder)? => {
            let files = SETTINGS_FILES.join(" or ");
            Err(refusal(format!("its {files} is not what it was when it was trusted")))
        }
        Some(_) => Ok(()),
    }
}

/// Trusts a folder of this user with its present settings. Permissions of others are removed.
///
/// # Errors
/// Another user may have written something in it, or trust cannot be recorded.
pub fn trust_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    narrow_folder(folder)?;
    if let Some(why) = find_foreign_entry(folder)? {
        return Err(exit::bad_input_error(format!("{folder:?} cannot be trusted: {why}")));
    }
    mark_folder(folder)
}

/// Records a folder as created or trusted by this user's program.
pub(crate) fn mark_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.canonicalize().with_context(|| format!("{folder:?}"))?;
    let mut mark = [0_u8; 16];
    getrandom::fill(&mut mark).context("no randomness for a mark")?;
    let id = to_hex(&mark);
    write_private_file(&folder.join(MARK_FILE), id.as_bytes())?;
    let trusted = TrustedFolder { path: path.clone(), id, settings: settings_digest(folder)? };
    update_trust_store(|all| {
        // Folders that are gone make room, so that the limit forgets only living ones.
        all.folders.retain(|known| known.path != path && known.path.exists());
        all.folders.push(trusted);
        let over = all.folders.len().saturating_sub(ENTRIES_LIMIT);
        all.folders.drain(..over);
    })?;
    Ok(path)
}

/// Trusts a model server of another user with private data.
///
/// # Errors
/// Trust cannot be recorded.
pub fn trust_model_server(url: &str) -> anyhow::Result<()> {
    let url = normalize_url(url).to_owned();
    update_trust_store(|all| {
        all.model_servers.retain(|known| *known != url);
        all.model_servers.push(url);
        let over = all.model_servers.len().saturating_sub(ENTRIES_LIMIT);
        all.model_servers.drain(..over);
    })
}

/// True if a model server was trusted. A user without configuration has trusted none.
pub(crate) fn is_trusted_model_server(url: &str) -> anyhow::Result<bool> {
    let Ok(folder) = user_folders::config_folder() else { return Ok(false) };
    let trusted = load_trust_store(&folder.join(TRUST_FILE))?;
    Ok(trusted.model_servers.iter().any(|known| known == normalize_url(url)))
}

/// Normalises a URL for comparison: servers are named with `/v1` and without.
fn normalize_url(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url)
}

/// Finds anything in a folder that another user may have written, and describes it. Only one level
/// is looked at: deeper are checkpoints and models, which are verified by their hashes.
fn find_foreign_entry(folder: &Path) -> anyhow::Result<Option<String>> {
    let found = std::fs::symlink_metadata(folder).with_context(|| format!("{folder:?}"))?;
    if found.is_symlink() || !found.is_dir() {
        return Ok(Some("it is a link or no folder".to_owned()));
    }
    if let Some(why) = foreign_reason(&found) {
        return Ok(Some(format!("it {why}")));
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let found = match entry.metadata() {
            // A journal of the database may vanish between listing and reading.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            found => found?,
        };
        if let Some(why) = foreign_reason(&found) {
            return Ok(Some(format!("{:?} in it {why}", entry.file_name())));
        }
    }
    Ok(None)
}

/// Describes why another user may have written a file or folder; `None` if nobody else can have.
fn foreign_reason(found: &Metadata) -> Option<String> {
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if found.is_symlink() {
        return Some("is a link".to_owned());
    }
    if !(found.is_file() || found.is_dir()) {
        return Some("is neither a file nor a folder".to_owned());
    }
    if owner != geteuid().as_raw() {
        return Some(format!("belongs to another user ({owner})"));
    }
    (mode & 0o022 != 0).then(|| format!("can be written to by others (mode {mode:o})"))
}

fn narrow_folder(folder: &Path) -> anyhow::Result<()> {
    let describe = || format!("{folder:?}");
    let found = std::fs::symlink_metadata(folder).with_context(describe)?;
    if !found.is_dir() {
        return Ok(());
    }
    narrow_mode(folder).with_context(describe)?;
    for entry in std::fs::read_dir(folder).with_context(describe)? {
        narrow_mode(&entry?.path()).with_context(describe)?;
    }
    Ok(())
}

fn read_mark(folder: &Path) -> Option<String> {
    std::fs::read_to_string(folder.join(MARK_FILE)).ok()
}

fn settings_digest(folder: &Path) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    for name in SETTINGS_FILES {
        match std::fs::read(folder.join(name)) {
            Ok(bytes) => {
                // The length goes before the bytes, so that content cannot move from one file to
                // the next under the same digest. An absent file is 0.
                digest.update((bytes.len() as u64 + 1).to_le_bytes());
                digest.update(bytes);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && name == PRICES_FILE => {}
            Err(error) if error.kind() == ErrorKind::NotFound => digest.update([0; 8]),
            Err(error) => return Err(error).with_context(|| format!("{name} of {folder:?}")),
        }
    }
    Ok(to_hex(&digest.finalize()))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn load_trust_store(file: &Path) -> anyhow::Result<TrustStore> {
    let found = match std::fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(TrustStore::default()),
        found => found.with_context(|| format!("{file:?}"))?,
    };
    // The file is believed only while nobody else can write to it.
    if let Some(why) = foreign_reason(&found) {
        return Err(exit::bad_input_error(format!("{file:?} is not used: it {why}")));
    }
    let text = std::fs::read(file).with_context(|| format!("{file:?}"))?;
    serde_json::from_slice(&text)
        .map_err(|error| exit::bad_input_error(format!("{file:?}: {error}")))
}

/// Changes the trust file under a lock, one process at a time.
fn update_trust_store(change: impl FnOnce(&mut TrustStore)) -> anyhow::Result<()> {
    let folder = user_folders::config_folder()?;
    let describe = || format!("trust cannot be noted in {folder:?}");
    create_private_folder(&folder).with_context(describe)?;
    let lock = open_private_file(&folder.join("trusted.lock")).with_context(describe)?;
    lock.lock().with_context(describe)?;
    let file = folder.join(TRUST_FILE);
    let mut trusted = load_trust_store(&file)?;
    change(&mut trusted);
    write_private_file(&file, &serde_json::to_vec_pretty(&trusted)?).with_context(describe)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::{find_foreign_entry, narrow_folder, normalize_url, settings_digest};

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_may_have_made_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, file) = (folder.path(), folder.path().join("file"));
        std::fs::write(&file, "x").unwrap();
        set_mode(&file, 0o644);
        assert_eq!(find_foreign_entry(folder).unwrap(), None);
        for mode in [0o664, 0o646] {
            set_mode(&file, mode);
            assert!(find_foreign_entry(folder).unwrap().unwrap().contains("written to by others"));
        }
        narrow_folder(folder).unwrap();
        assert_eq!(find_foreign_entry(folder).unwrap(), None);
        set_mode(folder, 0o770);
        assert!(find_foreign_entry(folder).unwrap().unwrap().contains("mode 770"));
        set_mode(folder, 0o700);
        symlink(&file, folder.join("link")).unwrap();
        assert!(find_foreign_entry(folder).unwrap().unwrap().contains("is a link"));
        let link = folder.with_extension("link");
        symlink(folder, &link).unwrap();
        assert!(find_foreign_entry(&link).unwrap().unwrap().contains("link"));
        std::fs::remove_file(link).unwrap();
    }

    #[test]
    fn each_setting_counts() {
        let folder = tempfile::tempdir().unwrap();
        let digest = || settings_digest(folder.path()).unwrap();
        let mut all = vec![digest()];
        for (name, text) in [
            ("providers.json", ""),
            ("providers.json", "[]"),
            ("privacy.json", "[]"),
            ("privacy.json", "{}"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
            all.push(digest());
        }
        std::fs::remove_file(folder.path().join("providers.json")).unwrap();
        all.push(digest());
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(digest(), digest());
    }

    #[test]
    fn a_server_is_the_same_with_its_version_and_without() {
        for url in ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/v1/"] {
            assert_eq!(normalize_url(url), "http://127.0.0.1:1");
        }
    }
}
