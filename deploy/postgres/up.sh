#!/usr/bin/env bash
# Starts a PostgreSQL server of its own on loopback, for tests: prints its URL, ends with its caller's
# signal, and leaves nothing behind. Usage: up.sh
set -euo pipefail

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || bin=$(dirname "$(command -v postgres)")
data=$(mktemp -d)
# PostgreSQL refuses to run as root.
as=()
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$data"
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${as[@]}" "$bin/initdb" -D "$data" -U convergio -A trust -E UTF8 --locale=C.UTF-8 >"$data.log" 2>&1 ||
    { cat "$data.log" >&2; exit 1; }
"${as[@]}" "$bin/postgres" -D "$data" -h 127.0.0.1 -p "$port" -k "" >>"$data.log" 2>&1 &
server=$!
trap 'kill -INT $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$data" "$data.log"' EXIT
trap 'exit 0' TERM INT
until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; do
    kill -0 $server 2>/dev/null || { cat "$data.log" >&2; exit 1; }
    sleep 0.2
done
echo "postgres://convergio@127.0.0.1:$port/postgres"
wait $server
