#!/usr/bin/env bash
# Mixed statements of several clients for SOAK_MINUTES, with kills and everything in the background often; see soak.py. With the
# binary named by SERACDB, else a dev build, whose checks are on.
set -euo pipefail
. "$(dirname "$0")/env.sh"
if [ -z "${SERACDB:-}" ]; then
  scripts/setup-build.sh
  cargo build --workspace --all-targets
  SERACDB=$target/debug/seracdb
fi
scripts/setup-python.sh
SERACDB_BIN=$SERACDB exec .venv/bin/python integration-tests/python/soak.py --seconds $((SOAK_MINUTES * 60)) "$@"
