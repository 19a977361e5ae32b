//! The user's own folders, for files that belong to the user and not to a data folder (XDG base
//! directory specification).

use std::ffi::OsString;
use std::path::PathBuf;

use crate::exit;

/// Folder of the user's configuration: `$XDG_CONFIG_HOME/convergio`, else `~/.config/convergio`.
///
/// # Errors
/// Neither variable names an absolute path.
pub fn config_folder() -> anyhow::Result<PathBuf> {
    folder_from_environment("XDG_CONFIG_HOME", ".config")
}

/// Folder of the user's programs and data: `$XDG_DATA_HOME/convergio`, else
/// `~/.local/share/convergio`.
///
/// # Errors
/// Neither variable names an absolute path.
pub fn share_folder() -> anyhow::Result<PathBuf> {
    folder_from_environment("XDG_DATA_HOME", ".local/share")
}

fn folder_from_environment(variable: &str, below_home: &str) -> anyhow::Result<PathBuf> {
    let found = resolve_folder(std::env::var_os(variable), std::env::var_os("HOME"), below_home);
    found.ok_or_else(|| {
        exit::bad_input_error(format!(
            "neither {variable} nor HOME names an absolute path, so the user's own folder is not \
             known: set one of them (a data folder is named by --data)"
        ))
    })
}

/// Resolves the folder from the two variables' values. Relative paths are ignored, as the
/// specification demands: they would depend on the working directory.
fn resolve_folder(
    xdg_base: Option<OsString>,
    home: Option<OsString>,
    below_home: &str,
) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let base = xdg_base.and_then(absolute);
    let base = base.or_else(|| home.and_then(absolute).map(|home| home.join(below_home)));
    base.map(|base| base.join("convergio"))
}

#[cfg(test)]
mod tests {
    use super::resolve_folder;

    #[test]
    fn only_absolute_paths_count() {
        let at = |own: Option<&str>, home: Option<&str>| {
            let found = resolve_folder(own.map(Into::into), home.map(Into::into), ".config");
            found.map(|path| path.display().to_string())
        };
        assert_eq!(at(Some("/x"), Some("/u")).as_deref(), Some("/x/convergio"));
        for own in [None, Some(""), Some("x")] {
            assert_eq!(at(own, Some("/u")).as_deref(), Some("/u/.config/convergio"));
            for home in [None, Some(""), Some("u")] {
                assert_eq!(at(own, home), None);
            }
        }
    }
}
