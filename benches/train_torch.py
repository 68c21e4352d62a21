"""Training steps in PyTorch, at the sizes of `train_speed`: tokens per second and peak memory, as one line of JSON.

train_torch.py gpt2|llama15m|lora|char f32|bf16 [steps] [--compile]
train_torch.py run TEXT f32|bf16 [steps]       the recipe shakespeare-char: all steps on a text, seconds and losses

Modules are plain PyTorch, written as their papers say, with fused attention (scaled_dot_product_attention), the
fused AdamW, and autocast for bf16. The best step counts.
"""

import json
import math
import os
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

CASES = {
    "gpt2": dict(kind="gpt2", dim=768, layers=12, heads=12, kv=12, ffn=3072, vocab=50257, tied=True, batch=4, len=256),
    "llama15m": dict(
        kind="llama", dim=288, layers=6, heads=6, kv=6, ffn=768, vocab=32000, tied=True, batch=16, len=256
    ),
    "lora": dict(
        kind="llama", dim=576, layers=30, heads=9, kv=3, ffn=1536, vocab=49152, tied=True, batch=2, len=512, rank=16
    ),
    "char": dict(kind="llama", dim=128, layers=4, heads=8, kv=8, ffn=344, vocab=65, tied=False, batch=32, len=64),
}


class LoraLinear(nn.Module):
    """y = W x + 2 B A x, W frozen (arXiv:2106.09685)."""

    def __init__(self, base, rank):
        super().__init__()
        self.base = base
        self.a = nn.Linear(base.in_features, rank, bias=False)
        self.b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return self.base(x) + 2.0 * self.b(self.a(x))


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, d = c, c["dim"] // c["heads"]
        bias = c["kind"] == "gpt2"
        norm = nn.LayerNorm if bias else nn.RMSNorm
        self.norm1, self.norm2 = norm(c["dim"]), norm(c["dim"])
        self.out = nn.Linear(c["dim"], c["dim"], bias=bias)
        if bias:
            self.qkv = nn.Linear(c["dim"], 3 * c["dim"])
            self.up = nn.Linear(c["dim"], c["ffn"])
        else:
            self.q = nn.Linear(c["dim"], c["dim"], bias=False)
            self.k = nn.Linear(c["dim"], c["kv"] * d, bias=False)
            self.v = nn.Linear(c["dim"], c["kv"] * d, bias=False)
            self.gate = nn.Linear(c["dim"], c["ffn"], bias=False)
            self.up = nn.Linear(c["dim"], c["ffn"], bias=False)
        self.down = nn.Linear(c["ffn"], c["dim"], bias=bias)

    def forward(self, x, cos, sin):
        b, t, dim = x.shape
        d = dim // self.c["heads"]
        h = self.norm1(x)
        if self.c["kind"] == "gpt2":
            q, k, v = (y.view(b, t, -1, d).transpose(1, 2) for y in self.qkv(h).split(dim, dim=2))
        else:
            q, k, v = (p(h).view(b, t, -1, d).transpose(1, 2) for p in (self.q, self.k, self.v))
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            if self.c["kv"] != self.c["heads"]:
                n = self.c["heads"] // self.c["kv"]
                k, v = k.repeat_interleave(n, dim=1), v.repeat_interleave(n, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, dim))
        h = self.norm2(x)
        if self.c["kind"] == "gpt2":
            return x + self.down(F.gelu(self.up(h), approximate="tanh"))
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embd = nn.Embedding(c["vocab"], c["dim"])
        self.positions = nn.Embedding(1024, c["dim"]) if c["kind"] == "gpt2" else None
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = nn.LayerNorm(c["dim"]) if c["kind"] == "gpt2" else nn.RMSNorm(c["dim"])
        self.output = nn.Linear(c["dim"], c["vocab"], bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
        if c["tied"]:
            self.output.weight = self.embd.weight
        half = c["dim"] // c["heads"] // 2
        angles = torch.outer(torch.arange(c["len"]), 10000.0 ** (-torch.arange(half) / half))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        if "rank" in c:
            self.requires_grad_(False)
            for block in self.blocks:
                for name in ("q", "k", "v", "out", "gate", "up", "down"):
                    setattr(block, name, LoraLinear(getattr(block, name), c["rank"]))

    def forward(self, ids, targets):
        x = self.embd(ids)
        if self.positions is not None:
            x = x + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.output(self.norm(x))
        return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.reshape(-1))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def autocast(precision):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


def measure(case, precision, n_steps, compiles):
    c = CASES[case]
    model = Model(c)
    if "rank" in c and precision == "bf16":
        # The frozen base is stored as bf16.
        for p in model.parameters():
            if not p.requires_grad:
                p.data = p.data.to(torch.bfloat16)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    ids = torch.randint(0, c["vocab"], (c["batch"], c["len"] + 1))
    step_of = torch.compile(model) if compiles else model
    best = {"forward": math.inf, "backward": math.inf, "optimizer": math.inf, "all": math.inf}
    for _ in range(n_steps):
        start = time.perf_counter()
        with autocast(precision):
            loss = step_of(ids[:, :-1], ids[:, 1:])
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end = time.perf_counter()
        took = [forward - start, backward - forward, end - backward, end - start]
        best = {name: min(old, new) for (name, old), new in zip(best.items(), took)}
    tokens = c["batch"] * c["len"] / best["all"]
    n_trained = sum(p.numel() for p in trained)
    program = "torch.compile" if compiles else "torch"
    return dict(
        program=program, case=case, precision=precision, tokens_per_second=round(tokens, 1), peak_gb=round(peak(), 3),
        forward=round(best["forward"], 4), backward=round(best["backward"], 4),
        optimizer=round(best["optimizer"], 4), trained=n_trained,
    )


def run(path, precision, n_steps):
    """The recipe shakespeare-char: windows from anywhere, cosine to a tenth after 100 steps of warmup."""
    text = open(path, encoding="utf-8").read()
    letters = sorted(set(text))
    of = {letter: i for i, letter in enumerate(letters)}
    ids = torch.tensor([of[letter] for letter in text])
    n_train = len(ids) * 9 // 10
    c = dict(CASES["char"], vocab=len(letters))
    model = Model(c)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    start = time.perf_counter()
    for step in range(n_steps):
        part = max(0.0, (step - 100) / max(1, n_steps - 100))
        factor = (step + 1) / 100 if step < 100 else 0.1 + 0.45 * (1 + math.cos(math.pi * part))
        optimizer.param_groups[0]["lr"] = 2e-3 * factor
        at = torch.randint(0, n_train - c["len"] - 1, (c["batch"],))
        windows = torch.stack([ids[i : i + c["len"] + 1] for i in at])
        with autocast(precision):
            loss = model(windows[:, :-1], windows[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad(), autocast(precision):
        rest = ids[n_train:][:100_000]
        n = (len(rest) - 1) // c["len"] // 32 * 32
        rows = torch.stack([rest[i * c["len"] : (i + 1) * c["len"] + 1] for i in range(n)])
        losses = [float(model(part[:, :-1], part[:, 1:])) for part in rows.split(32)]
    tokens = n_steps * c["batch"] * c["len"] / seconds
    return dict(
        program="torch", case="run", precision=precision, seconds=round(seconds, 2), steps=n_steps,
        tokens_per_second=round(tokens, 1), train_loss=round(float(loss), 4),
        validation_loss=round(sum(losses) / len(losses), 4), peak_gb=round(peak(), 3),
    )


def main():
    args = [arg for arg in sys.argv[1:] if not arg.startswith("--")]
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    torch.manual_seed(0)
    if args[0] == "run":
        print(json.dumps(run(args[1], args[2], int(args[3]) if len(args) > 3 else 1500)))
    else:
        n_steps = int(args[2]) if len(args) > 2 else 4
        print(json.dumps(measure(args[0], args[1], n_steps, "--compile" in sys.argv)))


main()
