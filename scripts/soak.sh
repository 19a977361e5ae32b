#!/usr/bin/env bash
# The long forms of tests whose short forms run in CI. Each is set by a variable of its own; what is
# set already stays. Usage: soak.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# Full disks under load: rounds x seconds.
export CONVERGIO_SOAK_FULL_DISK=${CONVERGIO_SOAK_FULL_DISK:-20x1,20x10,20x60}
cargo test -p convergio --test platform -- --nocapture --test-threads 1 full_disk::

# Lives of executors under a clock that is not real, among rivals.
CONVERGIO_SIM_SEEDS=${CONVERGIO_SIM_SEEDS:-10000} \
    cargo test -p convergio-replay-tests --test simulation -- --nocapture
