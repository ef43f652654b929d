# SeracDB from the command line. `make help` lists the targets.
#   SERACDB=path   use this binary (serve, demo) instead of building one
#   ARGS="…"       further arguments for `seracdb serve`, the benchmark or the soak
#   SOAK_MINUTES   how long `make soak` takes
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
SERACDB ?=
ARGS ?=
SOAK_MINUTES ?= 20

.PHONY: help setup serve test demo bench bench-smoke soak fmt lint

help:   ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 24

setup:  ## install what building and testing need and this machine lacks
	@scripts/setup-build.sh
	@scripts/setup-clients.sh

serve:  ## build release and start the server on ./seracdb-data
	@SERACDB="$(SERACDB)" scripts/serve.sh $(ARGS)

test:   ## everything: lint, Rust, Python, JDBC and Go tests, toy benchmarks, the demo
	@scripts/test.sh

demo:   ## a tour with a server of its own; leaves nothing behind
	@SERACDB="$(SERACDB)" scripts/demo.sh

bench:  ## the benchmarks at full size, release build
	@scripts/setup-build.sh
	@. scripts/env.sh; cargo build --release --workspace; $$target/release/seracdb-bench $(ARGS)

bench-smoke:    ## the benchmarks at toy size, dev build: do they still run?
	@. scripts/env.sh; cargo build --workspace --all-targets; $$target/debug/seracdb-bench --smoke $(ARGS)

soak:   ## mixed statements for 20 minutes, with kills; then every row, file and byte of memory is accounted for
	@SERACDB="$(SERACDB)" SOAK_MINUTES="$(SOAK_MINUTES)" scripts/soak.sh $(ARGS)

fmt:    ## format the Rust sources
	@. scripts/env.sh; cargo fmt --all

lint:   ## formatting, clippy, rustdoc and licences
	@scripts/lint.sh
