#!/usr/bin/env bash
# What building needs beyond a Rust toolchain: libclang (bindings to RocksDB), a C++ compiler, ccache.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. scripts/packages.sh

command -v cargo >/dev/null || die "missing: a Rust toolchain (cargo); see https://rustup.rs"

has_libclang() {
  # The library alone is not enough: bindgen also reads clang's own headers.
  { [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' || compgen -G '/usr/lib*/libclang.so*' ||
    compgen -G '/usr/lib/*/libclang*.so*'; } >/dev/null &&
    { compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' || compgen -G '/usr/lib*/clang/*/include/stddef.h'; } >/dev/null
}

missing=()
has_libclang || missing+=(libclang-dev)
# Asked for its version: ccache has a c++ also where there is none.
c++ --version >/dev/null 2>&1 || missing+=(g++)
if [ ${#missing[@]} -gt 0 ]; then install_packages "${missing[@]}" || exit 1; fi

if ! command -v ccache >/dev/null; then
  install_packages ccache || say "going on without ccache: each build profile compiles RocksDB anew"
fi
