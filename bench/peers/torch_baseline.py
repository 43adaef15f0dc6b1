#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The training steps of bench_cuda_train_step in PyTorch, eager and compiled: what a researcher would run today.

usage: torch_baseline.py [--size 135m|360m|1.7b] [--sequences N] [--variants vanilla,recursive3,mor2,mor3,mor4]
                         [--modes eager,compile] [--steps N]

Weights and arithmetic in bf16, fused scaled-dot-product attention, fused AdamW, gradient clipping by norm, random tokens.
Prints one line a run: variant, mode, median tokens a second, milliseconds a step, peak GiB. Without a GPU it says so and
ends with status 0.
"""
import argparse
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("PyTorch is not installed: nothing to measure")
    sys.exit(0)

SHAPES = {"135m": (30, 576, 9, 3, 1536), "360m": (32, 960, 15, 5, 2560), "1.7b": (24, 2048, 32, 32, 8192)}
VOCABULARY, LENGTH, HEAD_DIM = 49152, 2048, 64


class RMSNorm(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))

    def forward(self, x):
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Layer(torch.nn.Module):
    def __init__(self, hidden, heads, kv_heads, intermediate):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.norm1, self.norm2 = RMSNorm(hidden), RMSNorm(hidden)
        self.qkv = torch.nn.Linear(hidden, (heads + 2 * kv_heads) * HEAD_DIM, bias=False)
        self.o = torch.nn.Linear(heads * HEAD_DIM, hidden, bias=False)
        self.gate_up = torch.nn.Linear(hidden, 2 * intermediate, bias=False)
        self.down = torch.nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, self.heads + 2 * self.kv_heads, HEAD_DIM).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), 1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        x = x + self.o(attended.transpose(1, 2).reshape(batch, length, -1))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(torch.nn.Module):
    """Vanilla (recursions 1), recursive, or expert-choice MoR with a middle cycle and capacities (Nr..1)/Nr."""

    def __init__(self, size, recursions, routed):
        super().__init__()
        layers, hidden, heads, kv_heads, intermediate = SHAPES[size]
        self.recursions, self.routed = recursions, routed
        make = lambda count: torch.nn.ModuleList(Layer(hidden, heads, kv_heads, intermediate) for _ in range(count))
        inner = layers if recursions == 1 else -(-(layers - 2) // recursions)
        self.first, self.block, self.last = make(0 if recursions == 1 else 1), make(inner), make(0 if recursions == 1 else 1)
        self.embedding = torch.nn.Embedding(VOCABULARY, hidden)
        self.norm = RMSNorm(hidden)
        self.routers = torch.nn.ModuleList(torch.nn.Linear(hidden, 1, bias=False) for _ in range(recursions if routed else 0))
        self.apply(lambda m: torch.nn.init.normal_(m.weight, std=0.02) if isinstance(m, (torch.nn.Linear, torch.nn.Embedding)) else None)
        angles = torch.arange(LENGTH)[:, None] * 10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for layer in self.first:
            x = layer(x, self.cos, self.sin)
        auxiliary = 0.0
        if self.routed:
            x, auxiliary = self.recur(x)
        else:
            for _ in range(self.recursions):
                for layer in self.block:
                    x = layer(x, self.cos, self.sin)
        for layer in self.last:
            x = layer(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.view(-1, VOCABULARY).float(), targets.view(-1)) + 0.001 * auxiliary

    def recur(self, x):
        batch, length, hidden = x.shape
        positions = torch.arange(length, device=x.device).expand(batch, length)
        auxiliary = 0.0
        for step, router in enumerate(self.routers):
            active = x.gather(1, positions[..., None].expand(-1, -1, hidden))
            logits = router(active).squeeze(-1).float()
            keep = length * (self.recursions - step) // self.recursions
            chosen = logits.topk(keep, dim=1, sorted=False).indices.sort(dim=1).values
            auxiliary = auxiliary + F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits).scatter(1, chosen, 1.0))
            positions = positions.gather(1, chosen)
            index = positions[..., None].expand(-1, -1, hidden)
            gate = 0.1 * torch.sigmoid(logits.gather(1, chosen))
            y = x.gather(1, index)
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
            for layer in self.block:
                y = layer(y, cos, sin)
            x = x.scatter_add(1, index, (gate[..., None] * y).to(x.dtype))
        return x, auxiliary


def run(size, variant, mode, sequences, steps):
    recursions = int(variant[-1]) if variant[-1].isdigit() else 1
    torch.manual_seed(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = Model(size, recursions, variant.startswith("mor")).to("cuda", torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model) if mode == "compile" else model
    tokens = torch.randint(0, VOCABULARY, (sequences, LENGTH), device="cuda")
    targets = torch.randint(0, VOCABULARY, (sequences, LENGTH), device="cuda")

    def step():
        loss_of(tokens, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    for _ in range(4):
        step()
    times = []
    for _ in range(steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    print(f"torch {torch.__version__} {size} {variant:10s} {mode:7s} {sequences * LENGTH / median:9.0f} tok/s "
          f"{1e3 * median:8.2f} ms  {torch.cuda.max_memory_allocated() / 2**30:6.1f} GiB  first step {first:.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="360m", choices=SHAPES)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--variants", default="vanilla,recursive3,mor2,mor3,mor4")
    parser.add_argument("--modes", default="eager,compile")
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure")
        return
    print(torch.cuda.get_device_name())
    for variant in options.variants.split(","):
        for mode in options.modes.split(","):
            run(options.size, variant, mode, options.sequences, options.steps)


if __name__ == "__main__":
    main()
