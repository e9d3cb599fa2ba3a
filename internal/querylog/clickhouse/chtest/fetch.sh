#!/usr/bin/env bash
# Fetches the ClickHouse engine that tests run on into .cache/chdb: 180 MB from the npm registry, 570 MB unpacked. It does
# nothing where the engine is there already, or where CHDB_LIB_PATH names another.
#
#   fetch.sh          fetches it
#   fetch.sh --check  only says by its exit status whether it is there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../../.."

readonly version=26.7.3-stable.1
readonly cache=$PWD/.cache/chdb

there() {
  if [ -n "${CHDB_LIB_PATH:-}" ]; then [ -f "$CHDB_LIB_PATH" ]; return; fi
  [ "$(cat "$cache/version" 2>/dev/null)" = "$version" ] && [ -f "$cache/package/libchdb.so" ]
}

there && exit 0
[ "${1:-}" != --check ] || exit 1

case $(uname -sm) in
  "Linux x86_64") package=@chdb/lib-linux-x64-gnu ;;
  *)
    echo "fetch.sh: no engine is known for $(uname -sm): set CHDB_LIB_PATH to a libchdb.so of ClickHouse 26.7" >&2
    exit 1
    ;;
esac
mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "$package@$version" >/dev/null
tar xzf ./*.tgz
test -f package/libchdb.so
rm -rf "$cache/package"
mv package "$cache/package"
echo "$version" >"$cache/version"
