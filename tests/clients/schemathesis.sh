#!/usr/bin/env bash
# Requests made from the OpenAPI document that the server publishes, right and wrong ones: none may end in a 5xx.
# `/api/push` is left out: 501 is what it always says, since nothing leaves the machine. RHETOR_BIN is the program;
# `schemathesis` is on the PATH. The store is empty: the model is the one inside the program.
set -euo pipefail
: "${RHETOR_BIN:?is the rhetor program to be tested}"

home=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$home"' EXIT
mkdir "$home/runs"
"$RHETOR_BIN" serve --listen 127.0.0.1:0 --home "$home" --offline --runs "$home/runs" --request-time 3s --grace 1s \
    2>"$home/log" &
server=$!
for _ in $(seq 100); do
    url=$(sed -n 's/^rhetor listens on //p' "$home/log")
    [ -n "$url" ] && break
    sleep 0.1
done
[ -n "$url" ] || { cat "$home/log"; echo '0 passed, 1 failed'; exit 1; }

failed=0
cd "$home"
schemathesis --config-file /dev/null run "$url/openapi.json" --checks not_a_server_error --exclude-path /api/push \
    --continue-on-failure --phases examples,coverage,fuzzing --max-examples 20 --max-time "${SCHEMATHESIS_SECONDS:-100}" --request-timeout 20 \
    --suppress-health-check all --warnings off --generation-database none --no-color || failed=1
kill -0 "$server" || { failed=1; cat "$home/log"; }
curl -sf "$url/health" >/dev/null || failed=1
echo "$((1 - failed)) passed, $failed failed"
exit $failed
