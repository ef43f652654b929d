# Sourced: install_packages NAME… by apt-get, as root or by a sudo that asks nothing.

# Prints why packages cannot be installed, or nothing when they can.
cannot_install() {
  if ! command -v apt-get >/dev/null; then
    echo "no apt-get on this machine"
  elif [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
    echo "not root, and no sudo without a password"
  fi
}

# Returns 1 after saying in one line what is missing and why it could not be installed.
install_packages() {
  local why sudo=() log
  why=$(cannot_install)
  if [ -n "$why" ]; then
    say "missing: $* (Debian's names); install them and try again ($why)"
    return 1
  fi
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  say "installing $*"
  log=$(mktemp)
  # The package lists are refreshed only when the install fails without it.
  local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y)
  if "${apt[@]}" install --no-install-recommends "$@" >"$log" 2>&1 </dev/null ||
    { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
    rm -f "$log"
    return 0
  fi
  say "missing: $*; apt-get could not install them (offline?): $(tail -n 1 "$log")"
  rm -f "$log"
  return 1
}
