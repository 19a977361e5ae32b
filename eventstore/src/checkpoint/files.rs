//! [`CheckpointFolder`]: one folder per stream, one file per checkpoint.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use convergio_domain::stream::{Seq, StreamKey};

use super::{Checkpoint, Checkpoints};
use crate::error::LogError;
use crate::private_files::{create_private_file, create_private_folder};

/// Magic bytes of every file; the last digit is the version of the format.
const MARK: &[u8; 8] = b"CVGCKPT1";
/// Length of the header: magic, hash of the rest, two sequence numbers, and the record's hash.
const HEAD: usize = 8 + 8 + 8 + 32 + 32;
/// Maximum bytes of a state that is stored.
const STATE_LIMIT: usize = 256 << 20;

/// Checkpoints in a folder.
#[derive(Debug, Clone)]
pub struct CheckpointFolder {
    path: PathBuf,
}

impl CheckpointFolder {
    /// Uses this folder, which is created with the first checkpoint.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn of(&self, stream: &StreamKey) -> PathBuf {
        let kind = stream.kind.as_str();
        self.path.join(stream.tenant.as_str()).join(format!("{kind}-{}", stream.id))
    }

    fn write(&self, stream: &StreamKey, checkpoint: &Checkpoint) -> io::Result<()> {
        let folder = self.of(stream);
        create_private_folder(&folder)?;
        let partial = folder.join(format!("{}.new", checkpoint.seq));
        let written = write_whole(&partial, &folder.join(checkpoint.seq.to_string()), checkpoint);
        if written.is_err() {
            // A leftover takes room where there may be none.
            let _removed = fs::remove_file(&partial);
        }
        written
    }
}

impl Checkpoints for CheckpointFolder {
    fn keep(&self, stream: &StreamKey, checkpoint: Checkpoint) {
        if checkpoint.state.len() > STATE_LIMIT {
            return;
        }
        if let Err(error) = self.write(stream, &checkpoint) {
            tracing::warn!(%stream, %error, "a checkpoint cannot be kept");
        }
    }

    fn last(&self, stream: &StreamKey, at: Seq) -> Option<Checkpoint> {
        let seq = self.list(stream).into_iter().rev().find(|seq| *seq <= at)?;
        let path = self.of(stream).join(seq.to_string());
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
        let checkpoint = read.ok().and_then(|_| decode(&bytes));
        if checkpoint.is_none() {
            tracing::warn!(%stream, %seq, "a checkpoint is damaged and is not used");
            // Removed, or it would hide the intact checkpoint before it.
            let _removed = fs::remove_file(&path);
        }
        // A file under the name of another event was moved, and is as good as none.
        checkpoint.filter(|checkpoint| checkpoint.seq == seq)
    }

    fn list(&self, stream: &StreamKey) -> Vec<Seq> {
        let Ok(entries) = fs::read_dir(self.of(stream)) else { return Vec::new() };
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(Seq);
        let mut found: Vec<Seq> = entries.flatten().filter_map(number).collect();
        found.sort_unstable();
        found
    }

    fn drop_all(&self, stream: Option<&StreamKey>) -> Result<usize, LogError> {
        let folder = stream.map_or_else(|| self.path.clone(), |stream| self.of(stream));
        let count = count(&folder);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let reason = format!("cannot remove {}: {error}", folder.display());
                Err(LogError::Unavailable(reason))
            }
            _ => Ok(count),
        }
    }
}

/// Writes a checkpoint atomically, without a sync: it need not survive a power failure.
fn write_whole(partial: &Path, path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let mut file = create_private_file(partial)?;
    file.write_all(&encode(checkpoint))?;
    fs::rename(partial, path)
}

/// Counts the files below a folder.
fn count(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
}

fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEAD + checkpoint.state.len());
    body.extend_from_slice(&checkpoint.first.0.to_le_bytes());
    body.extend_from_slice(&checkpoint.seq.0.to_le_bytes());
    body.extend_from_slice(&checkpoint.hash);
    body.extend_from_slice(&checkpoint.state);
    let mut bytes = MARK.to_vec();
    bytes.extend_from_slice(blake3::hash(&body).as_bytes());
    bytes.append(&mut body);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Checkpoint> {
    let (sum, body) = bytes.strip_prefix(MARK)?.split_first_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != sum {
        return None;
    }
    let (first, rest) = body.split_first_chunk::<8>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (hash, state) = rest.split_first_chunk::<32>()?;
    Some(Checkpoint {
        first: Seq(u64::from_le_bytes(*first)),
        seq: Seq(u64::from_le_bytes(*seq)),
        hash: *hash,
        state: state.to_vec(),
    })
}
