//! Environment of child processes: an allow-list of variables, without keys and tokens.

use std::process::Command;

/// Variables that every program needs.
const BASIC_VARIABLES: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR"];
/// Variables that configure the model's server.
const MODEL_SERVER_VARIABLES: [&str; 1] = ["CONVERGIO_MODEL_THREADS"];
/// Variables by which a package fetch reaches its index.
const FETCH_VARIABLES: [&str; 13] = [
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
const PIP_PREFIX: &str = "PIP_";

/// Restricts the environment of a model's server.
pub(crate) fn restrict_for_model_server(command: &mut Command) -> &mut Command {
    restrict_environment(command, |name| {
        BASIC_VARIABLES.contains(&name) || MODEL_SERVER_VARIABLES.contains(&name)
    })
}

/// Restricts the environment of a program that fetches packages.
pub(crate) fn restrict_for_package_fetch(command: &mut Command) -> &mut Command {
    restrict_environment(command, |name| {
        BASIC_VARIABLES.contains(&name)
            || FETCH_VARIABLES.contains(&name)
            || name.starts_with(PIP_PREFIX)
    })
}

fn restrict_environment(command: &mut Command, is_allowed: impl Fn(&str) -> bool) -> &mut Command {
    let listed = |(name, _): &(std::ffi::OsString, _)| name.to_str().is_some_and(&is_allowed);
    command.env_clear().envs(std::env::vars_os().filter(listed))
}
