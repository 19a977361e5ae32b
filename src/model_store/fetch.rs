//! A large file over HTTP: it goes on where it broke off, and is kept only if its digest is right.

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

/// Longest silence.
const IDLE: Duration = Duration::from_secs(60);
/// Times that a fetch goes on by itself after it broke off.
const TRIES: u32 = 3;

/// Fetches a file to its place, unless it is there.
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
            // What was refused is refused again; a connection may do better.
            Err(error) if error.is::<exit::Exit>() => return Err(error),
            Err(error) => broken = Some(error),
        }
    }
    let why = broken.map(|error| format!("{error:#}")).unwrap_or_default();
    let message = format!("the fetch broke off ({why}): the same command goes on where it stopped");
    Err(exit::unavailable(message))
}

/// Appends what is missing.
async fn go_on(told: &Told, partial: &Path, heard: Heard<'_>) -> anyhow::Result<()> {
    let here = std::fs::metadata(partial).map_or(0, |known| known.len());
    // More than the whole can only be something else.
    let here = if here > told.bytes { 0 } else { here };
    if here == told.bytes {
        return Ok(());
    }
    let response = told.open(here).await?;
    let mut completed = match response.status() {
        StatusCode::PARTIAL_CONTENT => here,
        StatusCode::OK => 0,
        StatusCode::RANGE_NOT_SATISFIABLE => {
            std::fs::remove_file(partial)?;
            anyhow::bail!("the server cannot go on from byte {here}");
        }
        status => return Err(exit::unavailable(format!("the file's store answered {status}"))),
    };
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

/// Checks the digest of all that came, in whatever pieces, and keeps it.
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
