#!/usr/bin/env bash
# Formatting, clippy, rustdoc, licences: warnings are errors.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
if cargo deny --version >/dev/null 2>&1; then
  cargo deny check licenses bans sources
else
  say "SKIPPED licences, bans and sources: cargo-deny is not installed"
fi
