#!/usr/bin/env bash
# Prints the path of a Chromium or Chrome that starts; ends with 1 where there is none. CHROMIUM in the environment wins.
# Ubuntu's chromium-browser may be a stub that only tells about a snap, so each is asked for its version.
set -euo pipefail

for browser in ${CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
  if path=$(command -v "$browser") && "$path" --version >/dev/null 2>&1; then
    echo "$path"
    exit 0
  fi
done
exit 1
