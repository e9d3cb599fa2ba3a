#!/usr/bin/env bash
# Installs what building and testing dnsfleet needs and this machine lacks. With apt it installs; without, or without
# the right to, it says exactly what to install and ends with 1. It starts no service and enables none.
#
#   scripts/deps.sh                              everything
#   scripts/deps.sh make gcc clickhouse-engine   only these
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly tools=$PWD/.cache/bin
readonly node_major=22            # what is fetched where the system's Node is too old
readonly guard=/usr/sbin/policy-rc.d
readonly engine=./internal/querylog/clickhouse/chtest/fetch.sh
PATH=$tools:$PATH:/usr/sbin # where Debian puts servers, and not everybody looks

have() { command -v "$1" >/dev/null 2>&1; }

# A compiler without the C library's headers is of no use to the race detector.
has_gcc() { have gcc && echo '#include <stdlib.h>' | gcc -x c -fsyntax-only - 2>/dev/null; }

# The dashboard's tool chain wants Node 20.19 or later, but not 21 or early 22: see web/package.json.
has_node() {
  have npm && have node && node -e '
    const [major, minor] = process.versions.node.split(".").map(Number);
    process.exit(major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19) ? 0 : 1)'
}

present() {
  case $1 in
    gcc) has_gcc ;;
    node) has_node ;;
    chromium) ./scripts/chromium.sh >/dev/null ;;
    clickhouse-engine) "$engine" --check ;;
    clickhouse-server) have clickhouse-server || have clickhouse ;;
    *) have "$1" ;;
  esac
}

packages_of() {
  case $1 in
    gcc) echo gcc libc6-dev ;;
    dig) echo bind9-dnsutils ;;
    kdig) echo knot-dnsutils ;;
    node) echo nodejs npm ;;
    chromium) echo chromium fonts-liberation ;;
    clickhouse-engine) have npm || echo npm ;;
    *) echo "$1" ;;
  esac
}

missing() {
  local need
  for need in "${needs[@]}"; do present "$need" || echo "$need"; done
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

may_install() {
  have apt-get || return 1
  [ "$(id -u)" = 0 ] && return 0
  have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }
}

# Debian and Ubuntu start a service as soon as its package is there. policy-rc.d forbids it; disabling keeps it from
# starting at the next boot.
apt_install() {
  if [ ! -e "$guard" ]; then
    trap 'as_root rm -f "$guard"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$guard" >/dev/null
    as_root chmod 755 "$guard"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q -o Acquire::Retries=3 --no-install-recommends "$@"
  local service
  for service in redis-server redis-sentinel clickhouse-server nsd dnsdist unbound dnsmasq; do
    if have systemctl && [[ " $* " == *" $service "* ]]; then
      as_root systemctl disable --quiet "$service" 2>/dev/null || true
    fi
  done
}

# Debian 12 and Ubuntu 24.04 carry Node 18. Its npm can fetch a newer one, which stays in .cache.
fetch_node() {
  local arch
  case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) return 1 ;;
  esac
  echo "deps: node $(node --version) is too old for the dashboard's tool chain; fetching Node $node_major into .cache"
  npm install --silent --no-save --no-fund --no-audit --prefix .cache/node "node-linux-$arch@$node_major" npm@10 || return 1
  mkdir -p "$tools"
  ln -sf "../node/node_modules/node-linux-$arch/bin/node" "$tools/node"
  ln -sf ../node/node_modules/npm/bin/npm-cli.js "$tools/npm"
  ln -sf ../node/node_modules/npm/bin/npx-cli.js "$tools/npx"
  hash -r
}

# The engine is 180 MB, so a registry's bad moment is worth another try.
fetch_engine() {
  local try
  for try in 1 2 3; do
    if "$engine"; then return; fi
    echo "deps: fetching the ClickHouse engine failed, try $try of 3" >&2
    sleep $((try * 2))
  done
  return 1
}

how_to_get() {
  case $1 in
    clickhouse-engine)
      echo "the ClickHouse engine for tests: on Linux x86_64, npm and the way to its registry, then $engine;"
      echo "      elsewhere a libchdb.so of ClickHouse 26.7 (https://clickhouse.com/docs/chdb), its path in CHDB_LIB_PATH"
      ;;
    clickhouse-server) echo "a ClickHouse server of any release: package clickhouse-server, or the program clickhouse in the PATH" ;;
    node) echo "Node 20.19+ or 22.12+ with npm: https://nodejs.org/en/download" ;;
    chromium)
      echo "a Chromium or Chrome that starts without snap, for example"
      echo "      curl -fLO https://dl.google.com/linux/direct/google-chrome-stable_current_amd64.deb"
      echo "      sudo apt-get install ./google-chrome-stable_current_amd64.deb"
      ;;
    redis-server) echo "Redis: package redis-server or redis" ;;
    redis-sentinel) echo "redis-sentinel: package redis-sentinel or redis" ;;
    dig) echo "dig: package bind9-dnsutils, dnsutils or bind-utils" ;;
    gcc) echo "a C compiler with the C library's headers, for the race detector: packages gcc and libc6-dev" ;;
    *) echo "$1" ;;
  esac
}

needs=("$@")
[ ${#needs[@]} -gt 0 ] || needs=(make gcc redis-server redis-sentinel dig kdig node chromium clickhouse-engine clickhouse-server)

mapfile -t absent < <(missing)
[ ${#absent[@]} -gt 0 ] || exit 0
echo "deps: missing: ${absent[*]}"

# The engine alone needs no package where there is npm.
if may_install && { [ "${absent[*]}" != clickhouse-engine ] || ! have npm; }; then
  as_root apt-get update -q
  packages=()
  for need in "${absent[@]}"; do
    # A Node that is there but too old is replaced below, not by the same package again.
    [ "$need" = node ] && have npm && have node && continue
    for package in $(packages_of "$need"); do
      # Ubuntu has no chromium package: leave it to the message at the end.
      if apt-cache show "$package" >/dev/null 2>&1; then packages+=("$package"); fi
    done
  done
  [ ${#packages[@]} -eq 0 ] || apt_install "${packages[@]}"
fi
if ! present node && [[ " ${absent[*]} " == *" node "* ]] && have npm && have node; then
  fetch_node || echo "deps: npm could not fetch a newer Node"
fi
if [[ " ${absent[*]} " == *" clickhouse-engine "* ]] && have npm; then
  echo "deps: fetching the ClickHouse engine for tests, 180 MB, into .cache"
  fetch_engine || echo "deps: the ClickHouse engine could not be fetched"
fi

mapfile -t absent < <(missing)
[ ${#absent[@]} -gt 0 ] || exit 0
{
  echo
  if ! have apt-get; then
    echo "There is no apt-get here, so install these yourself and try again:"
  elif ! may_install; then
    echo "Neither root nor sudo without a password here. Install these and try again:"
    echo "  apt-get install --no-install-recommends $(for need in "${absent[@]}"; do packages_of "$need"; done | tr '\n' ' ')"
    echo "or, one by one:"
  else
    echo "These could not be installed with apt-get; install them and try again:"
  fi
  for need in "${absent[@]}"; do echo "  - $(how_to_get "$need")"; done
} >&2
exit 1
