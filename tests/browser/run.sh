#!/usr/bin/env bash
# Journeys on the page, in real Chromium.
# Wants node >= 20 and the program in RHETOR_BIN; fetches SmolLM2 (93 MB) and npm's packages; installs Chromium where
# there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$(cd ../.. && pwd)
: "${RHETOR_BIN:=$root/target/debug/rhetor}"
export RHETOR_BIN
export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}

if [ ! -x "$CHROMIUM" ]; then
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium >/dev/null
fi
npm ci --silent --no-audit --no-fund
node journeys.mjs "$@"
