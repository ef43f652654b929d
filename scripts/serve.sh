#!/usr/bin/env bash
# Starts the server: the binary named by SERACDB, else a release build. Arguments go to `seracdb serve`.
set -euo pipefail
. "$(dirname "$0")/env.sh"
if [ -z "${SERACDB:-}" ]; then
  scripts/setup-build.sh
  cargo build --release --bin seracdb
  SERACDB=$target/release/seracdb
fi
exec "$SERACDB" serve "$@"
