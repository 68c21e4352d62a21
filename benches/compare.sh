#!/usr/bin/env bash
# Runs `rhetor bench` and `llama-bench` by turns on the same files, and prints medians and ratios as a Markdown table.
#
#   benches/compare.sh RHETOR LLAMA_BENCH MODEL.gguf...
#
# Environment: THREADS="1 2"  PROMPT=512  GENERATE=128  DEPTH=0  ROUNDS=3 (the middle three may be lists: 512,2048)
# Nothing else should run on the machine. Needs python3 for the arithmetic.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
rhetor=$1 llama_bench=$2
shift 2
threads=${THREADS:-1 2} prompt=${PROMPT:-512} generate=${GENERATE:-128} depth=${DEPTH:-0} rounds=${ROUNDS:-3}

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

for model in "$@"; do
    for t in $threads; do
        for ((round = 1; round <= rounds; round++)); do
            name=$(basename "$model" .gguf).$t.$round
            printf '%s, %s threads, round %s of %s\n' "$(basename "$model")" "$t" "$round" "$rounds" >&2
            "$rhetor" bench "$model" --prompt "$prompt" --generate "$generate" --depth "$depth" --threads "$t" \
                --repetitions 1 --json >"$results/$name.rhetor.json"
            "$llama_bench" -m "$model" -p "$prompt" -n "$generate" -d "$depth" -t "$t" -r 1 -o json \
                >"$results/$name.llama.json" 2>/dev/null
        done
    done
done

python3 - "$results" <<'PYTHON'
import collections, json, pathlib, statistics, sys

def rates(path):
    """What was measured -> tokens per second, from either program's JSON."""
    for row in json.loads(path.read_text()):
        if "avg_ts" in row:
            test = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
            depth = row.get("n_depth", 0)
            yield test + (f" @ d{depth}" if depth else ""), row["avg_ts"]
        else:
            yield row["test"], row["tokens_per_second_median"]

found = collections.defaultdict(lambda: collections.defaultdict(list))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    model, threads, _, program = path.name.removesuffix(".json").rsplit(".", 3)
    for test, rate in rates(path):
        found[model, threads, test][program].append(rate)
print("| model | threads | test | rhetor tok/s | llama.cpp tok/s | ratio |")
print("|---|---|---|---|---|---|")
for (model, threads, test), by_program in found.items():
    if len(by_program) == 2:
        ours, theirs = (statistics.median(by_program[program]) for program in ("rhetor", "llama"))
        print(f"| {model} | {threads} | {test} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |")
PYTHON
