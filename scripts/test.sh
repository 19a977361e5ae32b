#!/usr/bin/env bash
# Builds and runs every test of the workspace, with a real local model for those that want one.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --workspace --all-targets
data=target/test-data
export CONVERGIO_TEST_DATA=$data
# How often engines, servers and the power die in each of the log's loops.
export CONVERGIO_CRASH_ROUNDS=${CONVERGIO_CRASH_ROUNDS:-50}

# One PostgreSQL for all tests; it ends with this script.
database_file=$data/database.url
mkdir -p "$data"
: >"$database_file"
deploy/postgres/up.sh >"$database_file" &
database=$!
trap 'kill $database 2>/dev/null || true' EXIT
until grep -q postgres "$database_file"; do kill -0 $database; sleep 0.2; done
CONVERGIO_TEST_DATABASE_URL=$(cat "$database_file")
export CONVERGIO_TEST_DATABASE_URL

source scripts/real-model.sh

# What the tests write stays until it has been looked through for keys.
kept=$PWD/$data/kept
rm -rf "$kept"
export CONVERGIO_TEST_KEEP=$kept

if command -v cargo-nextest >/dev/null; then
    cargo nextest run --workspace --no-fail-fast 2>&1 | tee "$data/suite.log"
else
    cargo test --workspace --no-fail-fast 2>&1 | tee "$data/suite.log"
fi
CONVERGIO_BIN=$bin scripts/canary.sh "$kept" "$data/suite.log"
rm -rf "$kept"
CONVERGIO_MODEL_URL=$CONVERGIO_TEST_MODEL_URL scripts/examples.sh "$bin"
