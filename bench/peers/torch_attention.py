#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's fused attention (FlashAttention-2 and cuDNN) on the causal shapes of bench_cuda_attention.

Prints TFLOP/s forward and backward, causal pairs counted once, the backward pass as 2.5 times the forward pass; medians of
calls timed by events with a cold second-level cache. Without a GPU it says so and ends with status 0.
"""
import statistics
import sys

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError:
    print("PyTorch is not installed: nothing to measure")
    sys.exit(0)

SHAPES = [(16, 2048, 15, 5, 64), (16, 1365, 15, 5, 64), (16, 682, 15, 5, 64), (8, 2048, 32, 32, 64),
          (16, 2048, 16, 16, 128), (4, 8192, 16, 16, 128)]


def median_seconds(call, flush, count=15):
    for _ in range(3):
        call()
    times = []
    for _ in range(count):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(times)


def main():
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure")
        return
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    flush = torch.empty(128 << 20, dtype=torch.uint8, device="cuda")
    for batch, length, heads, kv_heads, dim in SHAPES:
        make = lambda h: torch.randn(batch, length, h, dim, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        q, k, v = make(heads), make(kv_heads), make(kv_heads)
        flops = 4.0 * batch * heads * dim * length * (length + 1) / 2
        for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
            try:
                with sdpa_kernel(backend):
                    call = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
                    forward = median_seconds(call, flush)
                    out = call()
                    gradient = torch.randn_like(out)
                    backward = median_seconds(lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True), flush)
                print(f"{name} B {batch} T {length} heads {heads}/{kv_heads} dim {dim}: forward {flops / forward * 1e-12:.0f}, "
                      f"backward {2.5 * flops / backward * 1e-12:.0f} TFLOP/s", flush=True)
            except RuntimeError as problem:
                print(f"{name} B {batch} T {length} heads {heads}/{kv_heads} dim {dim}: {str(problem).splitlines()[0]}")


if __name__ == "__main__":
    main()
