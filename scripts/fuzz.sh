#!/usr/bin/env bash
# Runs every fuzz target of the module, each for the given time.
#   scripts/fuzz.sh 10s
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fuzztime=${1:-10s}
found=0
while IFS=: read -r file target; do
  echo "== $target in ${file%/*}"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "./${file%/*}"
  found=$((found + 1))
done < <(git ls-files -co --exclude-standard -- '*_test.go' | xargs -r grep -oE '^func Fuzz\w+' /dev/null | sed 's/func //' | sort -u)
echo "$found fuzz targets ran for $fuzztime each"
[ "$found" -gt 0 ]
