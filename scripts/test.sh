#!/usr/bin/env bash
# Every check of the project, stage by stage, in the dev profile. A failed stage does not stop the next one; a failed
# build does. The last line counts the tests of all runners; a stage that fails without naming a test counts as one.
set -euo pipefail
. "$(dirname "$0")/env.sh"

scripts/setup-build.sh
scripts/setup-clients.sh

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 skipped=0
failures=()

# stage NAME COMMAND…
stage() {
  local name=$1 log=$logs/stage started=$SECONDS status=0 counts
  shift
  printf '\n=== %s\n' "$name"
  "$@" 2>&1 </dev/null | tee "$log" || status=$?
  read -r -a counts < <(python3 scripts/count_tests.py "$status" <"$log")
  passed=$((passed + counts[0])) failed=$((failed + counts[1])) skipped=$((skipped + counts[2]))
  if [ "$status" = 0 ] && [ "${counts[1]}" = 0 ]; then
    printf '=== %s: ok in %ds\n' "$name" $((SECONDS - started))
  else
    printf '=== %s: FAILED in %ds\n' "$name" $((SECONDS - started))
    failures+=("$name")
    return 1
  fi
}

finish() {
  printf '\n=== all stages in %ds\n' "$SECONDS"
  [ "$skipped" = 0 ] || printf '%d skipped, each with its reason above\n' "$skipped"
  [ ${#failures[@]} = 0 ] || printf 'failed: %s\n' "${failures[@]}"
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [ ${#failures[@]} = 0 ]
}

jdbc() {
  local version=$1 maven=(mvn -B -ntp -Dstyle.color=never -f integration-tests/jdbc/pom.xml "-Ddriver.version=$1") log=$logs/resolve
  # Only a registry that lacks this version is a reason to go on without it.
  if ! "${maven[@]}" dependency:resolve >"$log" 2>&1; then
    if [ "$version" != 18.3.0 ] && grep -qE "Could not find artifact .*:flight-sql-jdbc-driver|flight-sql-jdbc-driver:jar:$version was not found" "$log"; then
      echo "SKIPPED: Maven's registry here has no flight-sql-jdbc-driver $version"
      return 0
    fi
    cat "$log"
    return 1
  fi
  python3 scripts/testserver.py "${maven[@]}" test
}

go_tests() {
  # Compiled before the server starts; -count=1 because a cached pass says nothing about this binary.
  (cd integration-tests/go && go vet ./... && python3 ../../scripts/testserver.py go test -v -count=1 ./...)
}

stage "lint" scripts/lint.sh || true
stage "build" cargo build --workspace --all-targets || { finish; exit 1; }
export SERACDB_BIN=$target/debug/seracdb
stage "rust" cargo test --workspace --no-fail-fast || true
stage "python" .venv/bin/python -m pytest integration-tests/python || true
stage "jdbc 18.3.0" jdbc 18.3.0 || true
stage "jdbc 19.0.0" jdbc 19.0.0 || true
stage "go" go_tests || true
stage "bench-smoke" make --no-print-directory bench-smoke || true
stage "demo" make --no-print-directory demo SERACDB="$SERACDB_BIN" || true
finish
