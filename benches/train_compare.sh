#!/bin/sh
# Training steps in rhetor and in PyTorch by turns: tokens per second and peak memory at the sizes of `train_speed`.
#
# benches/train_compare.sh PYTHON [ROUNDS] [CASES] [PRECISIONS]
#   PYTHON is an interpreter with torch; CASES is "gpt2 llama15m lora char" unless given, PRECISIONS "f32 bf16".
#   COMPILE=1 takes torch.compile instead of eager torch; STEPS steps a run (4), THREADS threads (2).
# The best step of all rounds counts, on both sides. Nothing else may run.
set -eu
python=${1:?an interpreter with torch}
rounds=${2:-3}
cases=${3:-gpt2 llama15m lora char}
precisions=${4:-f32 bf16}
here=$(dirname "$0")
speed=${TRAIN_SPEED:-$here/../target/release/examples/train_speed}
[ -x "$speed" ] || cargo build --release -p rhetor-train --example train_speed
export THREADS="${THREADS:-2}"
steps=${STEPS:-4}
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for round in $(seq "$rounds"); do
    for case in $cases; do
        for precision in $precisions; do
            "$speed" "$case" "$precision" "$steps" "$THREADS" >>"$results"
            "$python" "$here/train_torch.py" "$case" "$precision" "$steps" ${COMPILE:+--compile} >>"$results"
        done
    done
    echo "round $round of $rounds is done" >&2
done
"$python" - "$results" <<'PYTHON'
import json
import sys

best = {}
for line in open(sys.argv[1]):
    run = json.loads(line)
    side = "rhetor" if run["program"] == "rhetor" else "torch"
    speed, memory = best.get((run["case"], run["precision"], side), (0.0, float("inf")))
    best[run["case"], run["precision"], side] = (
        max(speed, run["tokens_per_second"]),
        min(memory, run["peak_gb"]),
    )
print("| case | precision | rhetor tok/s | torch tok/s | ratio | rhetor GB | torch GB | ratio |")
print("|---|---|---|---|---|---|---|---|")
for case, precision in dict.fromkeys((case, precision) for case, precision, _ in best):
    (ours, our_gb), (theirs, their_gb) = best[case, precision, "rhetor"], best[case, precision, "torch"]
    print(
        f"| {case} | {precision} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} | "
        f"{our_gb:.2f} | {their_gb:.2f} | {our_gb / their_gb:.2f} |"
    )
PYTHON
