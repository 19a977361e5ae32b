//! `convergio models`: lists, fetches, removes, shows, trusts, installs and serves models.

use std::process::ExitCode;

use convergio_executor::catalog::{
    DetectedServer, OllamaLibrary, PullProgress, ServerKind, detect_servers,
};
use convergio_local_models::managed_model::{self, ModelAccess};
use convergio_local_models::{FetchProgress, ModelSource, ModelStore, StoredModel};
use convergio_process::terminal::{self, print_json};
use convergio_process::{exit, out_line};
use convergio_server::data_dir::DataDir;
use convergio_server::model_servers::{consent_name, find_model_servers};
use convergio_server::trust;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::{GlobalOptions, ModelsCommand};
use crate::view;

pub(super) async fn run(
    global: &GlobalOptions,
    command: ModelsCommand,
) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    match command {
        ModelsCommand::List => list_models(global, &data).await?,
        ModelsCommand::Pull { model, name, sha256 } if ModelSource::is_source(&model) => {
            pull_to_store(global, &data, &model.parse()?, name.as_deref(), sha256.as_deref())
                .await?;
        }
        ModelsCommand::Pull { name: None, sha256: None, model } => {
            pull_from_ollama(global, &model).await?;
        }
        ModelsCommand::Pull { .. } => {
            let message = "--name and --sha256 are for models of the store: hf:, file:, package:";
            return Err(exit::bad_input_error(message));
        }
        ModelsCommand::Rm { model } => remove_model(global, &data, &model).await?,
        ModelsCommand::Show { model } => show_model(global, &data, &model).await?,
        ModelsCommand::Trust { url } => trust_server(global, &url)?,
        ModelsCommand::Install => install_managed_model(global)?,
        ModelsCommand::Up { model } => serve_model(global, &data, model.as_deref()).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list_models(global: &GlobalOptions, data: &DataDir) -> anyhow::Result<()> {
    let found = find_model_servers(&global.model_urls).await?;
    let installed = managed_model::installed_folder().is_some();
    let models: Vec<Value> = found.iter().flat_map(model_values).collect();
    if global.json {
        let stored_models = ModelStore::in_data_folder(data.as_path()).list_models();
        return print_json(
            &json!({"running": models, "kept": stored_models, "managed_installed": installed}),
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
        view::print_rows(&["model", "server", "url", "private"], rows);
    }
    let stored_models = ModelStore::in_data_folder(data.as_path()).list_models();
    if !stored_models.is_empty() {
        let row = |entry: &StoredModel| vec![entry.model.clone(), entry.source.clone()];
        view::print_rows(&["kept", "source"], stored_models.iter().map(row).collect());
    }
    match installed {
        true => out_line!("the managed local model is installed and starts with the server"),
        false => out_line!("`convergio models install` sets up a small local model"),
    }
    Ok(())
}

/// Models of a server as JSON values.
fn model_values(server: &DetectedServer) -> Vec<Value> {
    let describe = |model: &convergio_executor::provider::ModelInfo| {
        json!({"model": model.id, "server": server.kind.as_str(), "url": server.base_url,
            "context_tokens": model.context_tokens, "consent": consent_name(server)})
    };
    server.models.iter().map(describe).collect()
}

/// Confirms a model server of another user for private data.
fn trust_server(global: &GlobalOptions, url: &str) -> anyhow::Result<()> {
    let parsed = reqwest::Url::parse(url).ok();
    let is_web = parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https"));
    if !is_web {
        return Err(exit::bad_input_error(format!(
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

fn install_managed_model(global: &GlobalOptions) -> anyhow::Result<()> {
    let folder = managed_model::install_model()?;
    if global.json {
        return print_json(&json!({"installed": folder}));
    }
    out_line!("the local model is set up in {}", folder.display());
    Ok(())
}

/// Library of the Ollama server on this machine, or of the URL that was named. A server without
/// models is not detected, so that its usual address is tried.
async fn ollama_library(global: &GlobalOptions) -> anyhow::Result<OllamaLibrary> {
    let found = detect_servers(&global.model_urls).await;
    let ollama = found.iter().find(|server| server.kind == ServerKind::Ollama);
    let default_url = || global.model_urls.first().map_or("http://127.0.0.1:11434", String::as_str);
    let url = ollama.map_or_else(default_url, |server| server.base_url.as_str());
    Ok(OllamaLibrary::new(url)?)
}

/// Fetches a model into the store, with progress as a bar or as JSON lines.
async fn pull_to_store(
    global: &GlobalOptions,
    data: &DataDir,
    source: &ModelSource,
    name: Option<&str>,
    sha256: Option<&str>,
) -> anyhow::Result<()> {
    let bar = (!global.json).then(progress_bar);
    let on_progress = |status: &str, at: FetchProgress| {
        let FetchProgress { completed, total } = at;
        match &bar {
            Some(bar) => {
                let (status, digest) = (status.to_owned(), None);
                show_progress(
                    bar,
                    &PullProgress {
                        status,
                        digest,
                        total_bytes: total,
                        completed_bytes: completed,
                    },
                );
            }
            None => {
                let at = json!({"status": status, "total": total, "completed": completed});
                // Plain values always become JSON.
                let _printed = terminal::print_json_line(&at);
            }
        }
    };
    let store = ModelStore::in_data_folder(data.as_path());
    let pulled = store.pull_model(source, name, sha256, &on_progress).await;
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let entry = pulled?;
    match global.json {
        true => terminal::print_json_line(&entry)?,
        false => {
            let (model, path) = (&entry.model, store.model_path(&entry));
            out_line!("{model} is here, its digest is right: {}", path.display());
            out_line!("serve it: convergio models up {model}");
        }
    }
    Ok(())
}

async fn pull_from_ollama(global: &GlobalOptions, model: &str) -> anyhow::Result<()> {
    if model == managed_model::MODEL_ALIAS {
        return install_managed_model(global);
    }
    let library = ollama_library(global).await?;
    let bar = (!global.json).then(progress_bar);
    let on_progress = |progress: PullProgress| match &bar {
        Some(bar) => show_progress(bar, &progress),
        None => out_line!(
            "{}",
            json!({"status": progress.status, "digest": progress.digest,
                "total": progress.total_bytes, "completed": progress.completed_bytes})
        ),
    };
    let pulled = library.pull_model(model, on_progress).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    pulled.map_err(|error| exit::unavailable_error(error.message))?;
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

fn show_progress(bar: &ProgressBar, progress: &PullProgress) {
    bar.set_length(progress.total_bytes);
    bar.set_position(progress.completed_bytes);
    bar.set_message(progress.status.clone());
}

async fn remove_model(global: &GlobalOptions, data: &DataDir, model: &str) -> anyhow::Result<()> {
    let store = ModelStore::in_data_folder(data.as_path());
    // The store comes first: a model there hides one of the same name at a server.
    if let Some(entry) = store.find_model(model) {
        store.remove_model(&entry)?;
    } else if model == managed_model::MODEL_ALIAS {
        managed_model::remove_model()?;
    } else {
        let removed = ollama_library(global).await?.remove_model(model).await;
        removed.map_err(|error| exit::unavailable_error(error.message))?;
    }
    match global.json {
        true => print_json(&json!({"removed": model}))?,
        false => out_line!("{model} is removed"),
    }
    Ok(())
}

/// Shows a model: its entry in the store, Ollama's description, or its server's listing.
async fn show_model(global: &GlobalOptions, data: &DataDir, model: &str) -> anyhow::Result<()> {
    let store = ModelStore::in_data_folder(data.as_path());
    if let Some(entry) = store.find_model(model) {
        let StoredModel { model, source, sha256, bytes } = &entry;
        return print_json(&json!({"model": model, "source": source, "sha256": sha256,
            "bytes": bytes, "path": store.model_path(&entry)}));
    }
    let found = find_model_servers(&global.model_urls).await?;
    let has = |server: &&DetectedServer| {
        server
            .models
            .iter()
            // Ollama adds `:latest` to names without a tag.
            .any(|known| known.id == model || known.id.strip_suffix(":latest") == Some(model))
    };
    let Some(server) = found.iter().find(has) else {
        if model == managed_model::MODEL_ALIAS && managed_model::installed_folder().is_some() {
            return print_json(&json!({"model": model, "server": "managed", "running": false}));
        }
        let message = format!("no model server has `{model}`: see `convergio models list`");
        return Err(exit::bad_input_error(message));
    };
    if server.kind == ServerKind::Ollama {
        let description = OllamaLibrary::new(&server.base_url)?.show_model(model).await;
        return print_json(&description.map_err(|error| exit::unavailable_error(error.message))?);
    }
    let model_value = model_values(server).into_iter().find(|known| known["model"] == model);
    print_json(&model_value.unwrap_or(Value::Null))
}

async fn serve_model(
    global: &GlobalOptions,
    data: &DataDir,
    model: Option<&str>,
) -> anyhow::Result<()> {
    let store = ModelStore::in_data_folder(data.as_path());
    let stored_model = model.map(|model| {
        let missing =
            || exit::bad_input_error(format!("the store has no `{model}`: see models list"));
        store.find_model(model).ok_or_else(missing)
    });
    let stored_model = stored_model.transpose()?;
    // The managed model's Python environment serves files of the store as well.
    let folder = managed_model::install_model()?;
    data.create_folder()?;
    let log = data.as_path().join("model.log");
    let access = ModelAccess::Machine;
    let model = match &stored_model {
        Some(entry) => {
            let file = std::path::absolute(store.model_path(entry))?;
            managed_model::serve_model_file(&folder, &file, &entry.model, &log, access).await?
        }
        None => managed_model::start_managed_model(&folder, &log, access).await?,
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
