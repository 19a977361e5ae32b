//! `convergio models`.

use std::process::ExitCode;

use convergio_executor::model::detect;
use serde_json::json;

use super::print_json;
use crate::cli::{Global, ModelsCommand};
use crate::data_dir::DataDir;
use crate::managed_model;
use crate::view;

pub(super) async fn run(global: &Global, command: ModelsCommand) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref());
    match command {
        ModelsCommand::List => list(global, &data).await?,
        ModelsCommand::Install => {
            let folder = managed_model::install(&data)?;
            match global.json {
                true => print_json(&json!({"installed": folder}))?,
                false => println!("the local model is set up in {}", folder.display()),
            }
        }
        ModelsCommand::Up => up(global, &data).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(global: &Global, data: &DataDir) -> anyhow::Result<()> {
    let found = detect(&global.model_urls).await;
    let installed = managed_model::installed(data).is_some();
    let models: Vec<_> = found
        .iter()
        .flat_map(|server| server.models.iter().map(move |model| (server, model)))
        .map(|(server, model)| {
            json!({"model": model.id, "server": server.kind.as_str(),
            "url": server.base_url, "context_tokens": model.context_tokens})
        })
        .collect();
    if global.json {
        return print_json(&json!({"running": models, "managed_installed": installed}));
    }
    let rows = found.iter().flat_map(|server| {
        server.models.iter().map(|model| {
            vec![model.id.clone(), server.kind.as_str().to_owned(), server.base_url.clone()]
        })
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        println!("no model server answers on this machine");
    } else {
        view::table(&["model", "server", "url"], rows);
    }
    match installed {
        true => println!("the managed local model is installed and starts with the server"),
        false => println!("`convergio models install` sets up a small local model"),
    }
    Ok(())
}

async fn up(global: &Global, data: &DataDir) -> anyhow::Result<()> {
    let folder = managed_model::install(data)?;
    let model = managed_model::start(&folder).await?;
    match global.json {
        true => println!("{}", json!({"url": model.server.base_url})),
        false => println!("serving at {}; Ctrl-C ends it", model.server.base_url),
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
