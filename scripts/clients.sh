#!/usr/bin/env bash
# Installs the clients of tests/clients/versions.txt into target/clients and runs them against a server
# in front of a model that is not real: scripts/clients.sh BINARY [NAME...]. Needs the network to install,
# Python 3.11 and Node 20; everything that runs then stays on loopback.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=$1
shift
versions=$PWD/tests/clients/versions.txt
clients=$PWD/target/clients
mkdir -p "$clients"

value() { sed -n "s/^$1 //p" "$versions"; }
day=$(value day)

install_pip() {
    python3 -m venv --clear "$1"
    "$clients/uv/bin/uv" pip install --quiet --python "$1/bin/python" --exclude-newer "$day" "${@:2}"
}

install_npm() {
    rm -rf "$1" && mkdir "$1"
    echo '{"private": true, "type": "module"}' >"$1/package.json"
    (cd "$1" && npm install --no-audit --no-fund --loglevel=error --before="$day" "${@:2}")
}

# What an environment was made from stands in it: it is made again when that changes.
install() {
    local kind=$1 folder=$clients/$2 from="$day $*"
    [[ -f $folder/made-from && $(cat "$folder/made-from") == "$from" ]] && return
    echo "installs $2" >&2
    "install_$kind" "$folder" "${@:3}"
    echo "$from" >"$folder/made-from"
}

if [[ ! -x $clients/uv/bin/uv || $("$clients/uv/bin/uv" --version) != "uv $(value uv)"* ]]; then
    python3 -m venv --clear "$clients/uv"
    "$clients/uv/bin/pip" install --quiet "uv==$(value uv)"
fi
# Words of a line are arguments as they are.
while read -r kind name packages; do
    case $kind in pip | npm) install "$kind" "$name" $packages ;; esac
done <"$versions"

python3 tests/clients/run.py "$binary" "$clients" "$@"
