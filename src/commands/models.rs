//! `convergio models`: lists, fetches, removes, shows, trusts, installs and serves models.

use std::process::ExitCode;

use convergio_executor::model::{Detected, Library, Progress, ServerKind, detect};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{Global, ModelsCommand};
use crate::data_dir::DataDir;
use crate::exit;
use crate::managed_model::{self, ModelAccess};
use crate::model_servers::{consent_name, find_model_servers};
use crate::model_store::{Entry, Fetched, Source, Store};
use crate::{terminal, trust, view};

pub(super) async fn run(global: &Global, command: ModelsCommand) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref())?;
    match command {
        ModelsCommand::List => list(global, &data).await?,
        ModelsCommand::Pull { model, name, sha256 } if Source::is_one(&model) => {
            fetch(global, &data, &model.parse()?, name.as_deref(), sha256.as_deref()).await?;
        }
        ModelsCommand::Pull { name: None, sha256: None, model } => {
            pull(global, &model).await?;
        }
        ModelsCommand::Pull { .. } => {
            let message = "--name and --sha256 are for models of the store: hf:, file:, package:";
            return Err(exit::bad_input(message));
        }
        ModelsCommand::Rm { model } => remove(global, &data, &model).await?,
        ModelsCommand::Show { model } => show(global, &data, &model).await?,
        ModelsCommand::Trust { url } => trust_server(global, &url)?,
        ModelsCommand::Install => install(global)?,
        ModelsCommand::Up { model } => up(global, &data, model.as_deref()).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(global: &Global, data: &DataDir) -> anyhow::Result<()> {
    let found = find_model_servers(&global.model_urls).await?;
    let installed = managed_model::installed().is_some();
    let models: Vec<Value> = found.iter().flat_map(described).collect();
    if global.json {
        let kept = Store::of(data).list();
        return print_json(
            &json!({"running": models, "kept": kept, "managed_installed": installed}),
        );
    }
    let rows = found.iter().flat_map(|server| {
        server.models.iter().map(|model| {
            let (kind, url) = (server.kind.as_str().to_owned(), server.base_url.clone());
            vec![model.id.clone(), kind, url, consent_name(server).to_owned()]
        })
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        out_line!("no model server answers on this machine");
    } else {
        view::table(&["model", "server", "url", "private"], rows);
    }
    let kept = Store::of(data).list();
    if !kept.is_empty() {
        let row = |entry: &Entry| vec![entry.model.clone(), entry.source.clone()];
        view::table(&["kept", "source"], kept.iter().map(row).collect());
    }
    match installed {
        true => out_line!("the managed local model is installed and starts with the server"),
        false => out_line!("`convergio models install` sets up a small local model"),
    }
    Ok(())
}

/// Models of a server as JSON values.
fn described(server: &Detected) -> Vec<Value> {
    let describe = |model: &convergio_executor::model::ModelInfo| {
        json!({"model": model.id, "server": server.kind.as_str(), "url": server.base_url,
            "context_tokens": model.context_tokens, "consent": consent_name(server)})
    };
    server.models.iter().map(describe).collect()
}

/// Confirms a model server of another user for private data.
fn trust_server(global: &Global, url: &str) -> anyhow::Result<()> {
    let parsed = reqwest::Url::parse(url).ok();
    let is_web = parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https"));
    if !is_web {
        return Err(exit::bad_input(format!(
            "{url:?} is no URL of a server: http://127.0.0.1:11434"
        )));
    }
    trust::trust_model_server(url)?;
    match global.json {
        true => print_json(&json!({"trusted": url}))?,
        false => out_line!("what is private may go to {url} from now on"),
    }
    Ok(())
}

fn install(global: &Global) -> anyhow::Result<()> {
    let folder = managed_model::install()?;
    if global.json {
        return print_json(&json!({"installed": folder}));
    }
    out_line!("the local model is set up in {}", folder.display());
    Ok(())
}

/// Library of the Ollama server on this machine, or of the URL that was named. A server without
/// models is not detected, so that its usual address is tried.
async fn library(global: &Global) -> anyhow::Result<Library> {
    let found = detect(&global.model_urls).await;
    let ollama = found.iter().find(|server| server.kind == ServerKind::Ollama);
    let usual = || global.model_urls.first().map_or("http://127.0.0.1:11434", String::as_str);
    let url = ollama.map_or_else(usual, |server| server.base_url.as_str());
    Ok(Library::new(url)?)
}

/// Fetches a model into the store, with progress as a bar or as JSON lines.
async fn fetch(
    global: &Global,
    data: &DataDir,
    source: &Source,
    name: Option<&str>,
    sha256: Option<&str>,
) -> anyhow::Result<()> {
    let bar = (!global.json).then(progress_bar);
    let heard = |status: &str, at: Fetched| {
        let Fetched { completed, total } = at;
        match &bar {
            Some(bar) => {
                let (status, digest) = (status.to_owned(), None);
                show_progress(bar, &Progress { status, digest, total, completed });
            }
            None => {
                let at = json!({"status": status, "total": total, "completed": completed});
                // Plain values always become JSON.
                let _printed = terminal::print_json_line(&at);
            }
        }
    };
    let store = Store::of(data);
    let pulled = store.pull(source, name, sha256, &heard).await;
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let entry = pulled?;
    match global.json {
        true => terminal::print_json_line(&entry)?,
        false => {
            let (model, path) = (&entry.model, store.path(&entry));
            out_line!("{model} is here, its digest is right: {}", path.display());
            out_line!("serve it: convergio models up {model}");
        }
    }
    Ok(())
}

async fn pull(global: &Global, model: &str) -> anyhow::Result<()> {
    if model == managed_model::ALIAS {
        return install(global);
    }
    let library = library(global).await?;
    let bar = (!global.json).then(progress_bar);
    let heard = |progress: Progress| match &bar {
        Some(bar) => show_progress(bar, &progress),
        None => out_line!(
            "{}",
            json!({"status": progress.status, "digest": progress.digest,
                "total": progress.total, "completed": progress.completed})
        ),
    };
    let pulled = library.pull(model, heard).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    pulled.map_err(|error| exit::unavailable(error.message))?;
    if !global.json {
        out_line!("{model} is here: use it as `local/{model}`");
    }
    Ok(())
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn show_progress(bar: &ProgressBar, progress: &Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.completed);
    bar.set_message(progress.status.clone());
}

async fn remove(global: &Global, data: &DataDir, model: &str) -> anyhow::Result<()> {
    let store = Store::of(data);
    // The store comes first: a model there hides one of the same name at a server.
    if let Some(entry) = store.find(model) {
        store.remove(&entry)?;
    } else if model == managed_model::ALIAS {
        managed_model::remove()?;
    } else {
        let removed = library(global).await?.remove(model).await;
        removed.map_err(|error| exit::unavailable(error.message))?;
    }
    match global.json {
        true => print_json(&json!({"removed": model}))?,
        false => out_line!("{model} is removed"),
    }
    Ok(())
}

/// Shows a model: its entry in the store, Ollama's description, or its server's listing.
async fn show(global: &Global, data: &DataDir, model: &str) -> anyhow::Result<()> {
    let store = Store::of(data);
    if let Some(entry) = store.find(model) {
        let Entry { model, source, sha256, bytes } = &entry;
        return print_json(&json!({"model": model, "source": source, "sha256": sha256,
            "bytes": bytes, "path": store.path(&entry)}));
    }
    let found = find_model_servers(&global.model_urls).await?;
    let has = |server: &&Detected| {
        server
            .models
            .iter()
            // Ollama adds `:latest` to names without a tag.
            .any(|known| known.id == model || known.id.strip_suffix(":latest") == Some(model))
    };
    let Some(server) = found.iter().find(has) else {
        if model == managed_model::ALIAS && managed_model::installed().is_some() {
            return print_json(&json!({"model": model, "server": "managed", "running": false}));
        }
        let message = format!("no model server has `{model}`: see `convergio models list`");
        return Err(exit::bad_input(message));
    };
    if server.kind == ServerKind::Ollama {
        let told = Library::new(&server.base_url)?.show(model).await;
        return print_json(&told.map_err(|error| exit::unavailable(error.message))?);
    }
    let listed = described(server).into_iter().find(|known| known["model"] == model);
    print_json(&listed.unwrap_or(Value::Null))
}

async fn up(global: &Global, data: &DataDir, model: Option<&str>) -> anyhow::Result<()> {
    let store = Store::of(data);
    let kept = model.map(|model| {
        let missing = || exit::bad_input(format!("the store has no `{model}`: see models list"));
        store.find(model).ok_or_else(missing)
    });
    let kept = kept.transpose()?;
    // The managed model's Python environment serves files of the store as well.
    let folder = managed_model::install()?;
    data.create()?;
    let log = data.path().join("model.log");
    let access = ModelAccess::Machine;
    let model = match &kept {
        Some(entry) => {
            let file = std::path::absolute(store.path(entry))?;
            managed_model::serve(&folder, &file, &entry.model, &log, access).await?
        }
        None => managed_model::start(&folder, &log, access).await?,
    };
    match global.json {
        true => terminal::print_json_line(&json!({"url": model.server.base_url}))?,
        false => out_line!("serving at {}; Ctrl-C ends it", model.server.base_url),
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
