#!/usr/bin/env bash
# Starts the server: the binary named by SERACDB, else a release build. Arguments go to `seracdb serve`.
set -euo pipefail
. "$(dirname "$0")/env.sh"
if [ -z "${SERACDB:-}" ]; then
  scripts/setup-build.sh
  cargo build --release --workspace
  SERACDB=$target/release/seracdb
fi
exec "$SERACDB" serve "$@"
