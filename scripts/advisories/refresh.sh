#!/usr/bin/env bash
# Brings the newest advisories into the pinned copy. Needs the network.
set -euo pipefail
cd "$(dirname "$0")"
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT
git clone --quiet --depth 1 https://github.com/rustsec/advisory-db "$clone"
git -C "$clone" archive --format=tar HEAD crates rust support.toml LICENSE.txt | gzip -9n >advisory-db.tar.gz
commit=$(git -C "$clone" rev-parse HEAD)
date=$(git -C "$clone" show -s --format=%cI HEAD)
sed -i -e "s/^commit: .*/commit: $commit/" -e "s/^date: .*/date: $date/" README.md
echo "advisories of $date"
