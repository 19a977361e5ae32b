#!/usr/bin/env bash
# Builds and runs every test of the workspace, with a real local model for those that want one.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --workspace --all-targets
data=target/test-data
export CONVERGIO_TEST_DATA=$data
source deploy/real-model.sh

if command -v cargo-nextest >/dev/null; then
    cargo nextest run --workspace --no-fail-fast
else
    cargo test --workspace --no-fail-fast
fi
CONVERGIO_MODEL_URL=$CONVERGIO_TEST_MODEL_URL deploy/examples.sh "$bin"
