#!/usr/bin/env bash
# Checks the licences and sources of all dependencies by cargo-deny; installs it once if it is missing.
set -euo pipefail

if ! command -v cargo-deny >/dev/null; then
    echo "installing cargo-deny (once, a few minutes) ..."
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=false \
        cargo install --quiet --locked --no-default-features --version 0.20.2 cargo-deny
fi
cargo deny --all-features check licenses bans sources
