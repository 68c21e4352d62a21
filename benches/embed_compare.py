"""Sentences per second of a sentence encoder: rhetor against onnxruntime and PyTorch, in turns on the same machine.

Run: python benches/embed_compare.py MODEL_DIR [--threads 2] [--rounds 3] [--seconds 3]
after `cargo build --release -p rhetor-encode --example embed_speed`; needs torch, transformers, onnx, onnxruntime. Batches of 32
texts of 128 and of 16 tokens, hidden states averaged. Prints the best of the rounds, and ratios to onnxruntime and to PyTorch in
bfloat16.
"""
import argparse, os, re, subprocess, tempfile, time

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--seconds", type=float, default=3)
parser.add_argument("--binary", default="target/release/examples/embed_speed")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import onnxruntime
import torch
from transformers import AutoModel

torch.set_num_threads(args.threads)
LENGTHS = [128, 16]
BATCH = 32
model = AutoModel.from_pretrained(args.model, attn_implementation="sdpa").float().eval()
half = AutoModel.from_pretrained(args.model, attn_implementation="sdpa", dtype=torch.bfloat16).eval()


class Mean(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, attention_mask):
        states = self.inner(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)


def inputs(length):
    ids = torch.tensor([[1000 + (i * 131 + j * 17) % 20000 for j in range(length)] for i in range(BATCH)])
    return ids, torch.ones_like(ids)


def rate(run):
    run()
    start, n = time.time(), 0
    while time.time() - start < args.seconds:
        run()
        n += BATCH
    return n / (time.time() - start)


def session(folder):
    path = os.path.join(folder, "model.onnx")
    eager = AutoModel.from_pretrained(args.model, attn_implementation="eager").float().eval()
    axes = {"input_ids": {0: "b", 1: "t"}, "attention_mask": {0: "b", 1: "t"}}
    torch.onnx.export(Mean(eager), inputs(16), path, input_names=["input_ids", "attention_mask"],
                      output_names=["vectors"], dynamic_axes=axes, dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def ours(precision):
    command = [args.binary, args.model, str(args.threads), precision, str(args.seconds)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [float(n) for n in re.findall(r"tokens: ([\d.]+) sentences/s", out)]


best = {}


def keep(name, rates):
    best[name] = [max(pair) for pair in zip(best.get(name, [0] * len(LENGTHS)), rates)]


with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
    onnx = session(folder)
    for _ in range(args.rounds):
        keep("rhetor f32", ours("f32"))
        keep("rhetor bf16", ours("bf16"))
        feeds = [dict(zip(["input_ids", "attention_mask"], (x.numpy() for x in inputs(n)))) for n in LENGTHS]
        keep("onnxruntime f32", [rate(lambda: onnx.run(None, feed)) for feed in feeds])
        keep("torch f32", [rate(lambda: Mean(model)(*inputs(n))) for n in LENGTHS])
        keep("torch bf16", [rate(lambda: Mean(half)(*inputs(n))) for n in LENGTHS])
print(f"{'sentences/s':18}" + "".join(f"{n:>8} tokens" for n in LENGTHS))
for name, rates in best.items():
    print(f"{name:18}" + "".join(f"{rate:15.1f}" for rate in rates))
for name in ["rhetor f32", "rhetor bf16"]:
    for peer in ["onnxruntime f32", "torch bf16"]:
        ratios = [a / b for a, b in zip(best[name], best[peer])]
        print(f"{name} / {peer}: " + ", ".join(f"{ratio:.2f} at {n}" for ratio, n in zip(ratios, LENGTHS)))
