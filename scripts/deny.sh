#!/usr/bin/env bash
# Checks licences, sources, duplicates and known vulnerabilities of all dependencies by cargo-deny; installs it
# once if it is missing. The advisories are a pinned copy: `make advisories` brings a newer one.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo-deny >/dev/null; then
    echo "installing cargo-deny (once, a few minutes) ..."
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=false \
        cargo install --quiet --locked --no-default-features --version 0.20.2 cargo-deny
fi
scripts/advisories/unpack.sh target/advisory-db
# What other platforms are built from is read too, and a build for this one has not fetched it.
cargo fetch --quiet --locked
cargo deny --all-features --offline check advisories licenses bans sources
