#!/usr/bin/env bash
# Runs every example against the real local model on a data folder of its own. Usage: examples.sh BINARY
set -euo pipefail

bin=$1
data=${CONVERGIO_TEST_DATA:-target/examples-data}
mkdir -p "$data"
run() { echo "example: $*"; "$bin" --data "$data" graph run "$@"; }

run examples/small.yaml --input "text=  hello world "
run examples/parallel.yaml
run examples/brief.yaml --input-file doc=examples/documents/constitution.md
run examples/research.yaml --input "question=How many minutes are in a week?"

# The lesson waits for a teacher: started, answered, followed.
"$bin" --data "$data" serve --listen 127.0.0.1:0 >/dev/null &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
until "$bin" --data "$data" doctor --json | grep -q '"running at'; do sleep 0.2; done
id=$("$bin" --data "$data" graph run examples/lesson.yaml --input "topic=the water cycle" --detach --json |
    python3 -c 'import json,sys; print(json.load(sys.stdin)["run_id"])') || true
until approval=$("$bin" --data "$data" approvals list --json |
    python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][0]["id"])' 2>/dev/null); do sleep 0.5; done
"$bin" --data "$data" approvals answer "$approval" --grant --reason "good"
"$bin" --data "$data" runs tail "$id"
kill $server && wait $server || true
trap - EXIT
"$bin" --data "$data" projections check
"$bin" --data "$data" log verify
echo "examples: all passed"
