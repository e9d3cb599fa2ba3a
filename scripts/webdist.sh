#!/usr/bin/env bash
# Builds the dashboard again, aside, and fails where web/dist differs: what is embedded must come from the source.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
(cd web && npm run --silent build -- --outDir "$fresh" --logLevel warn)
if ! diff -r web/dist "$fresh"; then
  echo "web/dist is not what its source builds to: run \`make web\` and commit the result" >&2
  exit 1
fi
