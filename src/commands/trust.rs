//! `convergio trust`: trusts a data folder with its present settings, and shows what these send
//! where.

use std::path::Path;
use std::process::ExitCode;

use convergio_process::terminal::print_json;
use convergio_process::{exit, out_line};
use convergio_server::trust;
use serde_json::{Value, json};

use crate::cli::GlobalOptions;

pub(super) fn run(global: &GlobalOptions, folder: &Path) -> anyhow::Result<ExitCode> {
    if !folder.is_dir() {
        return Err(exit::bad_input_error(format!("{folder:?} is no folder")));
    }
    let providers = read_providers(folder)?;
    let path = trust::trust_folder(folder)?;
    if global.json {
        print_json(&json!({"trusted": path, "providers": providers}))?;
        return Ok(ExitCode::SUCCESS);
    }
    out_line!("{path:?} is trusted as it is now");
    for provider in &providers {
        let [name, url, key] = ["name", "base_url", "key"].map(|field| &provider[field]);
        out_line!("  its providers.json sends prompts for {name} to {url}, with the key of {key}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a folder's providers with their URLs and the names of their keys, so that the user sees
/// what is trusted.
fn read_providers(folder: &Path) -> anyhow::Result<Vec<Value>> {
    let file = folder.join("providers.json");
    let Ok(text) = std::fs::read(&file) else { return Ok(Vec::new()) };
    let content: Value = serde_json::from_slice(&text)
        .map_err(|error| exit::bad_input_error(format!("{file:?}: {error}")))?;
    // Both forms of providers.json are valid: a list, and an object with aliases.
    let entries = content.as_array().or_else(|| content["providers"].as_array());
    let entries =
        entries.ok_or_else(|| exit::bad_input_error(format!("{file:?}: it has no providers")))?;
    let provider_summary = |entry: &Value| {
        let key = [&entry["key_env"], &entry["key_file"]].into_iter().find(|key| key.is_string());
        let key = key.cloned().unwrap_or_else(|| "nobody".into());
        json!({"name": entry["name"], "base_url": entry["base_url"], "key": key})
    };
    Ok(entries.iter().map(provider_summary).collect())
}
