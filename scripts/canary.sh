#!/usr/bin/env bash
# Looks for the keys that the tests used in all that they wrote: data folders, databases, logs, traces, what was said.
# Records are compressed: of every log it also reads them decoded. CONVERGIO_BIN names the program that does.
# Usage: canary.sh FOLDER [FILE...]
set -euo pipefail

kept=${1:?the folder of what the tests wrote}
marks='canary-0123456789|canary-key-0123456789'
bin=${CONVERGIO_BIN:-target/debug/convergio}

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

# Some tests damage their logs on purpose: those cannot be read to their end, which is counted.
records=$(mktemp)
trap 'rm -f "$records"' EXIT
opened=0
damaged=0
lines=0
while read -r log; do
    if "$bin" log print --data "$(dirname "$log")" >"$records" 2>/dev/null; then
        opened=$((opened + 1))
    else
        damaged=$((damaged + 1))
    fi
    lines=$((lines + $(wc -l <"$records")))
    if grep -qaE "$marks" "$records"; then
        echo "canary: a key stands in a record of $log" >&2
        exit 1
    fi
done < <(find "$kept" -name log.db)
if [ "$opened" -lt 10 ] || [ "$lines" -lt 100 ]; then
    echo "canary: only $opened logs could be read, with $lines records ($damaged could not)" >&2
    exit 1
fi
echo "canary: no key in $files files and $lines decoded records of $opened logs ($damaged damaged)"
