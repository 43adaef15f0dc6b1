#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's memory-bound kernels, eager and compiled, on the shapes of bench_cuda_pointwise, _routing, _head and _optimizer.

usage: torch_pointwise.py [--only rms_norm,swiglu,top_k,cross_entropy,adamw]

Prints median microseconds and TB/s. Bytes are counted as those programs count them, whatever PyTorch moves: each operand
read or written once. So the backward pass of RMSNorm adds to the gradient of the residual stream (three matrices read, one
written), cross-entropy reads logits once and writes their gradient once, AdamW moves 28 bytes an element. Calls are timed by
events with a cold second-level cache; the router's selection, too short for that, as 20 calls between two events. Without a
GPU it says so and ends with status 0.
"""
import argparse
import statistics
import sys

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("PyTorch is not installed: nothing to measure")
    sys.exit(0)

ROWS, HIDDEN, WIDTH, VOCABULARY, LOGIT_ROWS, PARAMETERS = 32768, 960, 2560, 49152, 8192, 361_821_120
SELECTIONS = [(16, 2048, 1365), (16, 2048, 682), (64, 2048, 1365), (64, 2048, 682), (16, 8192, 5461)]


def median_seconds(call, prepare=lambda: None, calls=1, count=20):
    """The median time of `call(prepare())`; with several calls, of one of them."""
    flush = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    for _ in range(5):
        call(prepare())
    times = []
    for _ in range(count):
        prepared = prepare()
        for _ in range(8 if calls > 1 else 1):
            flush.zero_()  # a cold cache, and time for the host to enqueue what follows
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call(prepared)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3 / calls)
    return statistics.median(times)


def report(name, mode, seconds, byte_count=None):
    rate = "" if byte_count is None else f", {byte_count / seconds * 1e-12:.2f} TB/s"
    print(f"{name} {mode}: {seconds * 1e6:.1f} us{rate}", flush=True)


def modes(function):
    yield "eager", function
    torch.compiler.reset()
    yield "compile", torch.compile(function, dynamic=False)


def random(*shape, **options):
    return torch.randn(*shape, device="cuda", **{"dtype": torch.bfloat16, **options})


def rms_norm(x, weight):
    """As Hugging Face's Llama writes it."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def fused_rms_norm(x, weight):
    return F.rms_norm(x, (HIDDEN,), weight, 1e-5)


def measure_rms_norm():
    x, weight = random(ROWS, HIDDEN, requires_grad=True), random(HIDDEN, requires_grad=True)
    d_out, d_stream = random(ROWS, HIDDEN), random(ROWS, HIDDEN)
    matrix = 2 * ROWS * HIDDEN
    written = [("written out", rms_norm)] + ([("F.rms_norm", fused_rms_norm)] if hasattr(F, "rms_norm") else [])
    for label, function in written:
        for mode, run in modes(function):
            with torch.no_grad():
                report(f"rms_norm ({label})", mode, median_seconds(lambda _: run(x, weight)), 2 * matrix + 4 * ROWS)
        # The stream goes on beside the norm, so its gradient is added to the norm's.
        for mode, run in modes(lambda a, w: (function(a, w), a.clone())):
            backward = lambda outputs: torch.autograd.grad(outputs, (x, weight), (d_out, d_stream))
            report(f"rms_norm_backward ({label})", mode, median_seconds(backward, lambda: run(x, weight)),
                   4 * matrix + 4 * ROWS)


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def measure_swiglu():
    gate_up, d_out = random(ROWS, 2 * WIDTH, requires_grad=True), random(ROWS, WIDTH)
    for mode, run in modes(swiglu):
        with torch.no_grad():
            report("swiglu", mode, median_seconds(lambda _: run(gate_up)), 6 * ROWS * WIDTH)
    for mode, run in modes(swiglu):
        backward = lambda out: torch.autograd.grad(out, gate_up, d_out)
        report("swiglu_backward", mode, median_seconds(backward, lambda: run(gate_up)), 10 * ROWS * WIDTH)


def measure_top_k():
    for sequences, length, kept in SELECTIONS:
        scores = random(sequences, length, dtype=torch.float32)
        for mode, run in modes(lambda s: torch.topk(s, kept, dim=1, sorted=False).indices.sort(dim=1).values):
            report(f"top_k and sort B {sequences} T {length} k {kept}", mode,
                   median_seconds(lambda _: run(scores), calls=20))


def measure_cross_entropy():
    logits = random(LOGIT_ROWS, VOCABULARY, requires_grad=True)
    targets = torch.randint(VOCABULARY, (LOGIT_ROWS,), device="cuda")
    byte_count = 4 * LOGIT_ROWS * VOCABULARY
    for label, function in (("bf16", lambda a: F.cross_entropy(a, targets, reduction="sum")),
                            ("float", lambda a: F.cross_entropy(a.float(), targets, reduction="sum"))):
        for mode, run in modes(function):
            both = lambda _: torch.autograd.grad(run(logits), logits)
            report(f"cross_entropy forward and backward ({label})", mode, median_seconds(both), byte_count)


def measure_adamw():
    parameter = torch.nn.Parameter(random(PARAMETERS, dtype=torch.float32))
    parameter.grad = random(PARAMETERS, dtype=torch.float32)
    optimizer = torch.optim.AdamW([parameter], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    report("adamw, one tensor of 361.8 million", "fused", median_seconds(lambda _: optimizer.step()), 28 * PARAMETERS)


MEASURES = {"rms_norm": measure_rms_norm, "swiglu": measure_swiglu, "top_k": measure_top_k,
            "cross_entropy": measure_cross_entropy, "adamw": measure_adamw}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(MEASURES))
    chosen = parser.parse_args().only.split(",")
    unknown = sorted(set(chosen) - set(MEASURES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure")
        return
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for name in chosen:
        MEASURES[name]()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
