#!/usr/bin/env bash
# The project's own venv (.venv) with the pinned packages of the tests and the demo, and the Python client.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. scripts/packages.sh

requirements=integration-tests/python/requirements.txt
stamp=.venv/.installed-$(cat "$requirements" clients/python/pyproject.toml | sha256sum | cut -c1-16)
[ -f "$stamp" ] && exit 0

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || die "missing: Python 3.11 or newer as python3"
python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv || exit 1

say "installing the Python packages of $requirements into .venv"
python3 -m venv .venv
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { .venv/bin/python -m pip install -q --disable-pip-version-check -r "$requirements" &&
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e clients/python; } >"$log" 2>&1; then
  die "missing: the Python packages of $requirements; pip could not install them (offline?): $(tail -n 1 "$log")"
fi
rm -f .venv/.installed-*
touch "$stamp"
