//! What programs that we start are told of our environment: a list, and nothing else. Keys and
//! tokens are not on it.

use std::process::Command;

/// What every program needs.
const BASIC: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR"];
/// How the model's server is set.
const MODEL_SERVER: [&str; 1] = ["CONVERGIO_MODEL_THREADS"];
/// How what fetches packages reaches its index.
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
/// Pip's own settings: its index, its mirrors, its cache.
const PIP: &str = "PIP_";

/// For the server of a model.
pub(crate) fn of_model_server(command: &mut Command) -> &mut Command {
    keep(command, |name| BASIC.contains(&name) || MODEL_SERVER.contains(&name))
}

/// For what fetches packages.
pub(crate) fn of_package_fetch(command: &mut Command) -> &mut Command {
    keep(command, |name| BASIC.contains(&name) || FETCH.contains(&name) || name.starts_with(PIP))
}

fn keep(command: &mut Command, is_on_list: impl Fn(&str) -> bool) -> &mut Command {
    let listed = |(name, _): &(std::ffi::OsString, _)| name.to_str().is_some_and(&is_on_list);
    command.env_clear().envs(std::env::vars_os().filter(listed))
}
