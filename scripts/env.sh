# Sourced by the other scripts: changes to the project's root, sets PATH and $target.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# ccache through PATH rather than CC/CXX: cargo rebuilds RocksDB whenever those two differ between shells.
case ":$PATH:" in
  *:/usr/lib/ccache:*) ;;
  *) if [ -d /usr/lib/ccache ]; then PATH=/usr/lib/ccache:$PATH; fi ;;
esac
# Last, so that a Go of the machine's own wins over the venv's.
PATH=$PATH:$PWD/.venv/bin
export PATH
# Always the whole workspace, in the dev profile with --all-targets: otherwise cargo picks other features of shared
# dependencies and builds DataFusion again.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

say() { printf 'seracdb: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
