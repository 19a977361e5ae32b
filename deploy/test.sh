#!/usr/bin/env bash
# Builds and runs every test of the workspace, with a real local model for those that want one.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --workspace --all-targets
bin=target/debug/convergio
data=target/test-data
export CONVERGIO_TEST_DATA=$data
"$bin" --data "$data" models install

# One PostgreSQL and one model server for all tests; they end with this script.
database_file=$data/database.url
: >"$database_file"
deploy/postgres/up.sh >"$database_file" &
database=$!
url_file=$data/model.url
: >"$url_file"
"$bin" --data "$data" models up --json >"$url_file" &
model=$!
trap 'kill $model $database 2>/dev/null || true; wait $model $database 2>/dev/null || true' EXIT
until grep -q url "$url_file"; do kill -0 $model; sleep 0.2; done
until grep -q postgres "$database_file"; do kill -0 $database; sleep 0.2; done
CONVERGIO_TEST_DATABASE_URL=$(cat "$database_file")
export CONVERGIO_TEST_DATABASE_URL
CONVERGIO_TEST_MODEL_URL=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["url"])' "$url_file")
export CONVERGIO_TEST_MODEL_URL

# The SDKs that the front doors are made for, as their users have them.
sdks=target/test-sdks
[ -x "$sdks/bin/pip" ] || python3 -m venv "$sdks"
"$sdks/bin/pip" install -q --disable-pip-version-check openai==3.52.0 anthropic==2.11.0
export CONVERGIO_TEST_SDKS=$PWD/$sdks/bin/python

if command -v cargo-nextest >/dev/null; then
    cargo nextest run --workspace --no-fail-fast
else
    cargo test --workspace --no-fail-fast
fi
CONVERGIO_MODEL_URL=$CONVERGIO_TEST_MODEL_URL deploy/examples.sh "$bin"
