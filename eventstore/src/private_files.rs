//! Files and folders for their owner alone. Symbolic links are never followed, so no link can
//! redirect a write.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// Permission bits of group and others.
const OTHERS_MODE: u32 = 0o077;
/// Maximum bytes of a secret file.
const SECRET_BYTES: usize = 64 << 10;
/// Sticky bit: a folder that everybody may write to, such as `/tmp`.
const STICKY_BIT: u32 = 0o1000;

fn open_flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or_default()
}

/// Returns whether a file belongs to this user. Only the owner can change its mode.
fn is_owned_by_us(found: &Metadata) -> bool {
    found.uid() == geteuid().as_raw()
}

/// Replaces the error that `O_NOFOLLOW` gives for a link by one that names the reason.
fn explain_link_error(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) if number == Errno::LOOP.raw_os_error() => {
            io::Error::new(error.kind(), "it is a link, and links are not followed")
        }
        _ => error,
    }
}

/// Creates a folder and its parents for their owner alone. An existing folder keeps its mode.
///
/// # Errors
/// The folder cannot be created.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

/// Opens a file for reading and writing, creating it if necessary. Permissions of others are
/// removed; a link is refused.
///
/// # Errors
/// It cannot be opened, or it is a link or no file.
pub fn open_private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).read(true).write(true).truncate(false).mode(FILE_MODE);
    // Nonblocking, or opening a named pipe in the file's place would hang.
    let no_link = open_flags(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let file = options.custom_flags(no_link).open(path).map_err(explain_link_error)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if found.mode() & OTHERS_MODE != 0 && is_owned_by_us(&found) {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Reads a secret that belongs to this user alone. A link, a file that others may use, and a file
/// of another user are refused.
///
/// # Errors
/// It cannot be read, is too long or no text, or others may read or change it.
pub fn read_private_file(path: &Path) -> io::Result<Zeroizing<String>> {
    let no_link = open_flags(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(no_link)
        .open(path)
        .map_err(explain_link_error)?;
    let found = file.metadata()?;
    let refuse = |reason: &str| Err(io::Error::other(reason));
    if !found.is_file() {
        return refuse("it is no file");
    }
    if !is_owned_by_us(&found) {
        return refuse("it belongs to another user");
    }
    if found.mode() & OTHERS_MODE != 0 {
        return refuse("others may use it: chmod 600");
    }
    // Full capacity at once: a buffer that grows leaves copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES + 1));
    let limit = u64::try_from(SECRET_BYTES + 1).unwrap_or(u64::MAX);
    if file.take(limit).read_to_string(&mut text)? > SECRET_BYTES {
        return refuse("it is too long for a secret");
    }
    Ok(text)
}

/// Creates a new file. Whatever is in its place, also a link, is removed first and not written to.
///
/// # Errors
/// The file cannot be created.
pub fn create_private_file(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // If somebody puts a link there after the removal, `create_new` fails instead of following it.
    create_new(path)
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(path)
}

/// Removes the permissions of others from a file or folder of this user; returns the previous mode
/// if it was wider. Links and shared folders stay as they are.
///
/// # Errors
/// It cannot be changed.
pub fn narrow_mode(path: &Path) -> io::Result<Option<u32>> {
    let mut options = OpenOptions::new();
    let no_link = open_flags(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let file = match options.read(true).custom_flags(no_link).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A link: its own mode means nothing, and its target is not ours to change.
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return Ok(None),
        opened => opened?,
    };
    let found = file.metadata()?;
    let mode = found.mode() & 0o7777;
    let is_shared = mode & STICKY_BIT != 0 || !is_owned_by_us(&found);
    if mode & OTHERS_MODE == 0 || is_shared || !(found.is_file() || found.is_dir()) {
        return Ok(None);
    }
    file.set_permissions(Permissions::from_mode(mode & !OTHERS_MODE))?;
    Ok(Some(mode))
}

/// A file that appears in its place only when it is complete. Until then it has an unpredictable
/// name beside it; it is removed unless it is [persisted](Self::persist).
#[derive(Debug)]
pub struct PartialFile {
    file: File,
    partial_path: PathBuf,
    target_path: PathBuf,
    is_persisted: bool,
}

impl PartialFile {
    /// Creates the partial file beside its target path.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn create_beside(place: &Path) -> io::Result<Self> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{digits}.new"));
        let partial = place.with_file_name(name);
        let file = create_new(&partial)?;
        Ok(Self { file, partial_path: partial, target_path: place.to_owned(), is_persisted: false })
    }

    /// Returns the path of the partial file.
    pub fn partial_path(&self) -> &Path {
        &self.partial_path
    }

    /// Syncs the file and renames it to its target path.
    ///
    /// # Errors
    /// Syncing or renaming fails; the partial file is removed.
    pub fn persist(mut self) -> io::Result<()> {
        // Synced before the rename: after a power failure the name must not lead to partial
        // content.
        self.file.sync_all()?;
        std::fs::rename(&self.partial_path, &self.target_path)?;
        self.is_persisted = true;
        Ok(())
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_persisted {
            // A leftover takes room where there may be none.
            let _removed = std::fs::remove_file(&self.partial_path);
        }
    }
}

/// Writes a file atomically: the whole content or nothing.
///
/// # Errors
/// It cannot be written.
pub fn write_private_file(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = PartialFile::create_beside(place)?;
    file.write_all(bytes)?;
    file.persist()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::{
        PartialFile, create_private_file, create_private_folder, narrow_mode, open_private_file,
        read_private_file, write_private_file,
    };

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn no_link_is_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (other, link) = (folder.path().join("other"), folder.path().join("link"));
        std::fs::write(&other, "theirs").unwrap();
        symlink(&other, &link).unwrap();
        let refused = open_private_file(&link).unwrap_err();
        assert!(refused.to_string().contains("link"), "{refused}");
        write_private_file(&link, b"ours").unwrap();
        assert_eq!(std::fs::read(&link).unwrap(), b"ours");
        std::fs::remove_file(&link).unwrap();
        symlink(&other, &link).unwrap();
        drop(create_private_file(&link).unwrap());
        assert_eq!(std::fs::read(&other).unwrap(), b"theirs");
        assert_eq!(mode(&link), 0o600);
    }

    #[test]
    fn a_secret_that_others_may_use_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("secret"), folder.path().join("link"));
        write_private_file(&file, b"words").unwrap();
        assert_eq!(read_private_file(&file).unwrap().as_str(), "words");
        symlink(&file, &link).unwrap();
        let refused = |path: &Path| read_private_file(path).unwrap_err().to_string();
        assert!(refused(&link).contains("link"));
        assert!(refused(folder.path()).contains("no file"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refused(&file).contains("chmod 600"));
        write_private_file(&file, &vec![b'x'; (64 << 10) + 1]).unwrap();
        assert!(refused(&file).contains("too long"));
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone_and_what_is_wider_is_narrowed() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("a/b"), folder.path().join("a/b/file"));
        create_private_folder(&inner).unwrap();
        drop(open_private_file(&file).unwrap());
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
        for (path, wide) in [(&inner, 0o755), (&file, 0o644)] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(wide)).unwrap();
            assert_eq!(narrow_mode(path).unwrap(), Some(wide));
            assert_eq!(narrow_mode(path).unwrap(), None);
        }
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o1777)).unwrap();
        assert_eq!(narrow_mode(&inner).unwrap(), None, "others need it");
        assert_eq!(narrow_mode(&inner.join("none")).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_not_kept_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        drop(PartialFile::create_beside(&place).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        PartialFile::create_beside(&place).unwrap().persist().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
