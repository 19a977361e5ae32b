//! [`CheckpointFolder`]: one folder per stream, one file per checkpoint.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use convergio_domain::stream::{Seq, StreamKey};

use super::{Checkpoint, CheckpointStore};
use crate::error::LogError;
use crate::private_files::{create_private_file, create_private_folder};

/// Magic bytes of every file; the last digit is the version of the format.
const MAGIC: &[u8; 8] = b"CVGCKPT1";
/// Length of the header: magic, hash of the rest, two sequence numbers, and the record's hash.
const HEADER_BYTES: usize = 8 + 8 + 8 + 32 + 32;
/// Maximum bytes of a state that is stored.
const STATE_BYTES_LIMIT: usize = 256 << 20;

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

    fn stream_folder(&self, stream: &StreamKey) -> PathBuf {
        let kind = stream.kind.as_str();
        self.path.join(stream.tenant.as_str()).join(format!("{kind}-{}", stream.id))
    }

    fn write_checkpoint(&self, stream: &StreamKey, checkpoint: &Checkpoint) -> io::Result<()> {
        let folder = self.stream_folder(stream);
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

impl CheckpointStore for CheckpointFolder {
    fn store_checkpoint(&self, stream: &StreamKey, checkpoint: Checkpoint) {
        if checkpoint.state.len() > STATE_BYTES_LIMIT {
            return;
        }
        if let Err(error) = self.write_checkpoint(stream, &checkpoint) {
            tracing::warn!(%stream, %error, "a checkpoint cannot be kept");
        }
    }

    fn last_checkpoint(&self, stream: &StreamKey, at: Seq) -> Option<Checkpoint> {
        let seq = self.list_seqs(stream).into_iter().rev().find(|seq| *seq <= at)?;
        let path = self.stream_folder(stream).join(seq.to_string());
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
        let checkpoint = read.ok().and_then(|_| decode_checkpoint(&bytes));
        if checkpoint.is_none() {
            tracing::warn!(%stream, %seq, "a checkpoint is damaged and is not used");
            // Removed, or it would hide the intact checkpoint before it.
            let _removed = fs::remove_file(&path);
        }
        // A file under the name of another event was moved, and is as good as none.
        checkpoint.filter(|checkpoint| checkpoint.seq == seq)
    }

    fn list_seqs(&self, stream: &StreamKey) -> Vec<Seq> {
        let Ok(entries) = fs::read_dir(self.stream_folder(stream)) else { return Vec::new() };
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(Seq);
        let mut found: Vec<Seq> = entries.flatten().filter_map(number).collect();
        found.sort_unstable();
        found
    }

    fn drop_all(&self, stream: Option<&StreamKey>) -> Result<usize, LogError> {
        let folder = stream.map_or_else(|| self.path.clone(), |stream| self.stream_folder(stream));
        let count = count_files(&folder);
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
    file.write_all(&encode_checkpoint(checkpoint))?;
    fs::rename(partial, path)
}

/// Counts the files below a folder.
fn count_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

fn encode_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEADER_BYTES + checkpoint.state.len());
    body.extend_from_slice(&checkpoint.first_seq.0.to_le_bytes());
    body.extend_from_slice(&checkpoint.seq.0.to_le_bytes());
    body.extend_from_slice(&checkpoint.hash);
    body.extend_from_slice(&checkpoint.state);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(blake3::hash(&body).as_bytes());
    bytes.append(&mut body);
    bytes
}

fn decode_checkpoint(bytes: &[u8]) -> Option<Checkpoint> {
    let (sum, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != sum {
        return None;
    }
    let (first, rest) = body.split_first_chunk::<8>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (hash, state) = rest.split_first_chunk::<32>()?;
    Some(Checkpoint {
        first_seq: Seq(u64::from_le_bytes(*first)),
        seq: Seq(u64::from_le_bytes(*seq)),
        hash: *hash,
        state: state.to_vec(),
    })
}
