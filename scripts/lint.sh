#!/usr/bin/env bash
# Formatting, clippy, rustdoc, licences: warnings are errors.
set -euo pipefail
. "$(dirname "$0")/env.sh"
{ cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 ||
  die "missing: rustfmt and clippy; get them by: rustup component add rustfmt clippy"
cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
if cargo deny --version >/dev/null 2>&1; then
  cargo deny check licenses bans sources
else
  say "SKIPPED licences, bans and sources: cargo-deny is not installed"
fi
