#!/usr/bin/env bash
# Looks for the keys that the tests used in all that they wrote: data folders, databases, logs, traces, what was said.
# Usage: canary.sh FOLDER [FILE...]
set -euo pipefail

kept=${1:?the folder of what the tests wrote}
marks='canary-0123456789|canary-key-0123456789'

# A search that looks at nothing finds nothing.
files=$(find "$@" -type f | wc -l)
logs=$(find "$kept" -name server.err -size +0 | wc -l)
databases=$(find "$kept" -name '*.db' | wc -l)
if [ "$files" -lt 50 ] || [ "$logs" -lt 10 ] || [ "$databases" -lt 10 ]; then
    echo "canary: $files files, $logs logs, $databases databases: the tests did not keep what they wrote" >&2
    exit 1
fi
if found=$(grep -rlaE "$marks" "$@"); then
    echo "canary: a key stands in:" >&2
    echo "$found" >&2
    exit 1
fi
echo "canary: no key in $files files"
