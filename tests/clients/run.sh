#!/usr/bin/env bash
# The official clients against a running server, installed from their registries. RHETOR_BIN is the program; RHETOR_HOME
# its store, which must hold smollm2-135m-instruct and all-minilm-l6-v2, or they are pulled.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
RHETOR_BIN=$(realpath "${RHETOR_BIN:?is the rhetor program to be tested}")
export RHETOR_BIN

for model in smollm2-135m-instruct all-minilm-l6-v2; do
    "$RHETOR_BIN" pull "$model" >/dev/null
done

if [ ! -x venv/bin/python ]; then
    python3 -m venv venv
fi
venv/bin/pip install -q --disable-pip-version-check -r requirements.txt
npm ci --silent --no-audit --no-fund --ignore-scripts

failed=0
for script in openai_client.py openai_client.mjs ollama_client.py ollama_client.mjs schemathesis.sh; do
    if [ ! -e "$script" ]; then
        continue
    fi
    printf -- '-- %s\n' "$script"
    case $script in
    *.py) timeout 600 venv/bin/python "$script" || failed=1 ;;
    *.mjs) timeout 600 node "$script" || failed=1 ;;
    *.sh) PATH=$PWD/venv/bin:$PATH timeout 600 bash "$script" || failed=1 ;;
    esac
done
exit $failed
