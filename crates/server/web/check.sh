#!/usr/bin/env bash
# The page's types, its unit tests, and that web/dist is what web/src gives.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
npm ci --silent --no-audit --no-fund
npm run --silent build -- --logLevel warn
if [ -n "$(git status --porcelain -- dist)" ]; then
    git status --short -- dist
    echo 'web/dist is not what web/src gives: npm run build, and commit dist' >&2
    exit 1
fi
npm test --silent -- --reporter=dot
