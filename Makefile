# Convergio: two commands matter, `make run` and `make test`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
DATA ?= .convergio
FUZZ_SECONDS ?= 60
BIN := target/debug/convergio

.PHONY: help run test soak build lint advisories sbom fmt ffi_test fuzz examples local_llm_test clients_test bench bench_kernel golden clean need


help: ## Shows the targets.
	@grep -hE '^[a-z_]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: build ## Builds, sets up a local model if none runs, runs the example brief, shows the result.
	@$(BIN) --data $(DATA) models list --json | grep -q '"model"' || $(BIN) --data $(DATA) models install
	@$(BIN) --data $(DATA) demo $(DEMO_ARGS)

build: need ## Builds the binary.
	cargo build -p convergio

test: need lint ffi_test ## Everything that CI runs.
	scripts/test.sh

soak: need ## The long forms of tests whose short forms are in `test`; takes hours.
	scripts/soak.sh

lint: need ## Formatting, lints, licences, advisories.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/deny.sh

advisories: ## Brings the newest advisories into the pinned copy; needs the network.
	scripts/advisories/refresh.sh

sbom: need ## Writes what the binary is built from to target/convergio.cdx.json (CycloneDX).
	@mkdir -p target
	python3 scripts/sbom.py target/convergio.cdx.json

fmt: ## Formats the code.
	cargo fmt --all

ffi_test: need ## The C kernel's own tests under address and undefined-behaviour sanitizers, and valgrind.
	$(MAKE) -C kernel-c test $(if $(filter Linux,$(shell uname -s)),valgrind)

fuzz: need ## Fuzzes each entry of the C kernel that takes bytes for FUZZ_SECONDS, three at a time.
	$(MAKE) -C kernel-c -j3 fuzz FUZZ_SECONDS=$(FUZZ_SECONDS)

examples: build ## Runs every example against the real local model.
	scripts/examples.sh $(BIN)

local_llm_test: build ## Runs what needs a real model: calls, SDKs at the front doors, examples.
	scripts/local-llm-test.sh

clients_test: build ## Installs the SDKs and agents of others and runs them at the front doors; needs the network.
	scripts/clients.sh $(BIN)

bench: ## Measures steps, front doors, replay, resume and forks on the embedded log.
	cargo run --release -p convergio -- bench steps --steps 10 --payload 200 --concurrency 1,16,64
	cargo run --release -p convergio -- bench gateway --concurrency 1,16,64
	cargo run --release -p convergio -- bench replay
	cargo run --release -p convergio -- bench resume
	cargo run --release -p convergio -- bench wide

golden: ## Writes anew what is expected of the recorded runs in replay-tests/golden.
	CONVERGIO_BLESS=1 cargo test -p convergio-replay-tests --test golden

bench_kernel: ## Measures the C kernel, by itself and beside petgraph.
	$(MAKE) -C kernel-c bench
	cargo bench -p convergio-kernel-c

clean: ## Removes what was built; the data folder stays.
	cargo clean
	$(MAKE) -C kernel-c clean

need:
	@scripts/need.sh
