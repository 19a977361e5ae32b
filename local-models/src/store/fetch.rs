//! Download of a large file over HTTP: resumes where it broke off, and keeps only a file with the
//! right digest.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use convergio_eventstore::private_files::open_private_file;
use convergio_process::exit;
use futures_util::StreamExt;
use reqwest::StatusCode;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::digest::{CHUNK_BYTES, to_hex, wrong_digest_error};
use super::hub::HubFileInfo;

/// Maximum silence of the server between two chunks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts within one command. A later command resumes as well.
const ATTEMPTS_LIMIT: u32 = 3;

/// Progress of a fetch in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that are here.
    pub completed: u64,
    /// Bytes of the whole file.
    pub total: u64,
}

/// Callback for progress, with a word about the phase.
pub type ProgressCallback<'a> = &'a (dyn Fn(&str, FetchProgress) + Sync);

/// Fetches a file to its path in the store, unless it is there.
pub(super) async fn fetch_blob(
    file_info: &HubFileInfo,
    blob_path: &Path,
    on_progress: ProgressCallback<'_>,
) -> anyhow::Result<()> {
    if blob_path.is_file() {
        on_progress(
            "here already",
            FetchProgress { completed: file_info.size_bytes, total: file_info.size_bytes },
        );
        return Ok(());
    }
    let partial = blob_path.with_extension("part");
    let mut last_error = None;
    for _ in 0..ATTEMPTS_LIMIT {
        match resume_fetch(file_info, &partial, on_progress).await {
            Ok(()) => return verify_and_store(file_info, &partial, blob_path),
            // A refusal would come again; a broken connection may not.
            Err(error) if error.is::<exit::ExitError>() => return Err(error),
            Err(error) => last_error = Some(error),
        }
    }
    let why = last_error.map(|error| format!("{error:#}")).unwrap_or_default();
    let message = format!("the fetch broke off ({why}): the same command goes on where it stopped");
    Err(exit::unavailable_error(message))
}

/// Downloads the missing rest of a file.
async fn resume_fetch(
    file_info: &HubFileInfo,
    partial: &Path,
    on_progress: ProgressCallback<'_>,
) -> anyhow::Result<()> {
    let present_bytes = std::fs::metadata(partial).map_or(0, |known| known.len());
    // More bytes than the file has belong to something else: the fetch starts over.
    let present_bytes = if present_bytes > file_info.size_bytes { 0 } else { present_bytes };
    if present_bytes == file_info.size_bytes {
        return Ok(());
    }
    let response = file_info.request_bytes(present_bytes).await?;
    let mut completed = match response.status() {
        StatusCode::PARTIAL_CONTENT => present_bytes,
        // A server without ranges sends the whole file again.
        StatusCode::OK => 0,
        StatusCode::RANGE_NOT_SATISFIABLE => {
            std::fs::remove_file(partial)?;
            anyhow::bail!("the server cannot go on from byte {present_bytes}");
        }
        status => {
            return Err(exit::unavailable_error(format!("the file's store answered {status}")));
        }
    };
    // The partial file stays after an interruption: its length says where to resume.
    let mut file = open_private_file(partial)?;
    file.set_len(completed)?;
    file.seek(SeekFrom::End(0))?;
    let mut bytes = response.bytes_stream();
    while let Some(chunk) =
        timeout(IDLE_TIMEOUT, bytes.next()).await.context("the server fell silent")?
    {
        let chunk = chunk.context("the connection was cut")?;
        completed += chunk.len() as u64;
        if completed > file_info.size_bytes {
            drop(file);
            std::fs::remove_file(partial)?;
            let message =
                format!("the server sends more than the {} bytes it told", file_info.size_bytes);
            return Err(exit::unavailable_error(message));
        }
        file.write_all(&chunk)?;
        on_progress("fetching", FetchProgress { completed, total: file_info.size_bytes });
    }
    file.sync_all()?;
    anyhow::ensure!(
        completed == file_info.size_bytes,
        "{completed} of {} bytes came",
        file_info.size_bytes
    );
    Ok(())
}

/// Hashes the whole file, in however many parts it came, and moves it into the store.
fn verify_and_store(
    file_info: &HubFileInfo,
    partial: &Path,
    blob_path: &Path,
) -> anyhow::Result<()> {
    let (mut file, mut hash) = (File::open(partial)?, Sha256::new());
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => hash.update(&chunk[..read]),
        }
    }
    let digest = to_hex(&hash.finalize());
    if digest != file_info.sha256 {
        std::fs::remove_file(partial)?;
        return Err(wrong_digest_error(&digest, Some(&file_info.sha256)));
    }
    Ok(std::fs::rename(partial, blob_path)?)
}
