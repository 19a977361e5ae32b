#!/usr/bin/env bash
# Runs every test that needs a real model, with the managed local one, and the SDKs of others at the
# front doors.
set -euo pipefail
cd "$(dirname "$0")/.."

data=target/test-data
source scripts/real-model.sh
cargo test -p convergio-executor --test model -- --ignored
cargo test -p convergio --test front
CONVERGIO_MODEL_URL=$CONVERGIO_TEST_MODEL_URL CONVERGIO_TEST_DATA=$data scripts/examples.sh target/debug/convergio
