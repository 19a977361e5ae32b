//! Download of a large file over HTTP: resumes where it broke off, and keeps only a file with the
//! right digest.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use convergio_eventstore::private_files::open_private_file;
use futures_util::StreamExt;
use reqwest::StatusCode;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::hub::Told;
use super::{CHUNK, Fetched, Heard, hex, wrong_digest};
use crate::exit;

/// Maximum silence of the server between two chunks.
const IDLE: Duration = Duration::from_secs(60);
/// Attempts within one command. A later command resumes as well.
const TRIES: u32 = 3;

/// Fetches a file to its path in the store, unless it is there.
pub(super) async fn blob(told: &Told, place: &Path, heard: Heard<'_>) -> anyhow::Result<()> {
    if place.is_file() {
        heard("here already", Fetched { completed: told.bytes, total: told.bytes });
        return Ok(());
    }
    let partial = place.with_extension("part");
    let mut broken = None;
    for _ in 0..TRIES {
        match go_on(told, &partial, heard).await {
            Ok(()) => return keep(told, &partial, place),
            // A refusal would come again; a broken connection may not.
            Err(error) if error.is::<exit::Exit>() => return Err(error),
            Err(error) => broken = Some(error),
        }
    }
    let why = broken.map(|error| format!("{error:#}")).unwrap_or_default();
    let message = format!("the fetch broke off ({why}): the same command goes on where it stopped");
    Err(exit::unavailable(message))
}

/// Downloads the missing rest of a file.
async fn go_on(told: &Told, partial: &Path, heard: Heard<'_>) -> anyhow::Result<()> {
    let here = std::fs::metadata(partial).map_or(0, |known| known.len());
    // More bytes than the file has belong to something else: the fetch starts over.
    let here = if here > told.bytes { 0 } else { here };
    if here == told.bytes {
        return Ok(());
    }
    let response = told.open(here).await?;
    let mut completed = match response.status() {
        StatusCode::PARTIAL_CONTENT => here,
        // A server without ranges sends the whole file again.
        StatusCode::OK => 0,
        StatusCode::RANGE_NOT_SATISFIABLE => {
            std::fs::remove_file(partial)?;
            anyhow::bail!("the server cannot go on from byte {here}");
        }
        status => return Err(exit::unavailable(format!("the file's store answered {status}"))),
    };
    // The partial file stays after an interruption: its length says where to resume.
    let mut file = open_private_file(partial)?;
    file.set_len(completed)?;
    file.seek(SeekFrom::End(0))?;
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = timeout(IDLE, bytes.next()).await.context("the server fell silent")? {
        let chunk = chunk.context("the connection was cut")?;
        completed += chunk.len() as u64;
        if completed > told.bytes {
            drop(file);
            std::fs::remove_file(partial)?;
            let message = format!("the server sends more than the {} bytes it told", told.bytes);
            return Err(exit::unavailable(message));
        }
        file.write_all(&chunk)?;
        heard("fetching", Fetched { completed, total: told.bytes });
    }
    file.sync_all()?;
    anyhow::ensure!(completed == told.bytes, "{completed} of {} bytes came", told.bytes);
    Ok(())
}

/// Hashes the whole file, in however many parts it came, and moves it into the store.
fn keep(told: &Told, partial: &Path, place: &Path) -> anyhow::Result<()> {
    let (mut file, mut hash) = (File::open(partial)?, Sha256::new());
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => hash.update(&chunk[..read]),
        }
    }
    let digest = hex(&hash.finalize());
    if digest != told.sha256 {
        std::fs::remove_file(partial)?;
        return Err(wrong_digest(&digest, Some(&told.sha256)));
    }
    Ok(std::fs::rename(partial, place)?)
}
