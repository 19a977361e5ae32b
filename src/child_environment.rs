//! Environment of child processes: an allow-list of variables, without keys and tokens.

use std::process::Command;

/// Variables that every program needs.
const BASIC: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR"];
/// Variables that configure the model's server.
const MODEL_SERVER: [&str; 1] = ["CONVERGIO_MODEL_THREADS"];
/// Variables by which a package fetch reaches its index.
const FETCH: [&str; 13] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// Prefix of pip's own settings: its index, its mirrors, its cache.
const PIP: &str = "PIP_";

/// Restricts the environment of a model's server.
pub(crate) fn of_model_server(command: &mut Command) -> &mut Command {
    keep(command, |name| BASIC.contains(&name) || MODEL_SERVER.contains(&name))
}

/// Restricts the environment of a program that fetches packages.
pub(crate) fn of_package_fetch(command: &mut Command) -> &mut Command {
    keep(command, |name| BASIC.contains(&name) || FETCH.contains(&name) || name.starts_with(PIP))
}

fn keep(command: &mut Command, is_on_list: impl Fn(&str) -> bool) -> &mut Command {
    let listed = |(name, _): &(std::ffi::OsString, _)| name.to_str().is_some_and(&is_on_list);
    command.env_clear().envs(std::env::vars_os().filter(listed))
}
