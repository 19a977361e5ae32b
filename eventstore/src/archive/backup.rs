//! Online backup of an embedded log's folder while a process uses it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use zeroize::Zeroizing;

use super::unusable_path;
use crate::error::LogError;
use crate::private_files::{create_private_file, create_private_folder, write_private_file};

/// Copies a consistent snapshot of the log, and its key, into a new folder. The folder in use is
/// only read.
///
/// # Errors
/// There is no log, the target exists, or it cannot be written.
pub fn backup_embedded(from: &Path, to: &Path) -> Result<(), LogError> {
    let database = from.join("log.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy_error = |error: rusqlite::Error| {
        LogError::Unavailable(format!("cannot copy {}: {error}", database.display()))
    };
    let connection = Connection::open_with_flags(&database, flags).map_err(copy_error)?;
    if to.join("log.db").exists() {
        return Err(LogError::Unavailable(format!("{} has a log already", to.display())));
    }
    create_private_folder(to).map_err(|error| unusable_path(to, &error))?;
    let partial = to.join("log.db.new");
    // `VACUUM INTO` accepts an empty file, and would create one with the umask's mode.
    create_private_file(&partial).map_err(|error| unusable_path(&partial, &error))?;
    let name = partial.display().to_string();
    if let Err(error) = connection.execute("VACUUM INTO ?", [name]) {
        // A leftover takes room where there may be none. The caller gets the reason of the failure.
        let _removed = remove_partial(&partial);
        return Err(copy_error(error));
    }
    let finish = || {
        std::fs::File::open(&partial)?.sync_all()?;
        // The key is written first: a log without its key cannot be opened, and the rename of the
        // log is what makes the backup valid.
        let key = Zeroizing::new(std::fs::read(from.join("payload.key"))?);
        write_private_file(&to.join("payload.key"), &key)?;
        std::fs::rename(&partial, to.join("log.db"))?;
        std::fs::File::open(to)?.sync_all()
    };
    finish().map_err(|error| unusable_path(to, &error))
}

/// Removes the file of a copy that failed.
fn remove_partial(partial: &Path) -> Result<(), LogError> {
    match std::fs::remove_file(partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(unusable_path(partial, &error))
        }
        _ => Ok(()),
    }
}
