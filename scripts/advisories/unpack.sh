#!/usr/bin/env bash
# Lays the pinned copy of the advisory database out as cargo-deny expects a fetched one.
# Usage: unpack.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
commit=$(sed -n 's/^commit: //p' "$here/README.md")
date=$(sed -n 's/^date: //p' "$here/README.md")
# The name that cargo-deny gives to a clone of https://github.com/rustsec/advisory-db.
clone=$folder/advisory-db-3157b0e258782691
if [ "$(cat "$clone/.commit" 2>/dev/null)" = "$commit" ]; then
    exit 0
fi
rm -rf "$clone"
mkdir -p "$clone"
tar -xzf "$here/advisory-db.tar.gz" -C "$clone"
git -C "$clone" init --quiet --initial-branch main
git -C "$clone" add --force .
GIT_COMMITTER_DATE=$date GIT_AUTHOR_DATE=$date git -C "$clone" \
    -c user.name=advisory-db -c user.email=advisory-db@localhost -c commit.gpgsign=false \
    commit --quiet --message "$commit"
git -C "$clone" update-ref refs/remotes/origin/main HEAD
git -C "$clone" rev-parse HEAD >"$clone/.git/FETCH_HEAD"
echo "$commit" >"$clone/.commit"
