#!/usr/bin/env bash
# The tour, with the binary named by SERACDB, else a release build.
set -euo pipefail
. "$(dirname "$0")/env.sh"
if [ -z "${SERACDB:-}" ]; then
  scripts/setup-build.sh
  cargo build --release --workspace
  SERACDB=$target/release/seracdb
fi
scripts/setup-python.sh
PYTHONPATH=scripts:integration-tests/python SERACDB_BIN=$SERACDB exec .venv/bin/python demo/tour.py
