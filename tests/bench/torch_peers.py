#!/usr/bin/env python3
"""Times what torch offers for the kernels of the section `gpu`: attention by cuDNN or flash, as torch prefers, and
bfloat16 products by cuBLAS.

    torch_peers.py decode|prefill|products

Cold: the calls of one CUDA graph go through at least 1 GB of different operands. Prints `name shape value` lines:
microseconds a call, for prefill TFLOP/s of the causal half.
"""

import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

COLD_BYTES = 1.1e9
HEADS, KV_HEADS, HEAD = 32, 8, 128


def replay_us(calls):
    """Median microseconds of one of `calls` functions, recorded as one graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        calls[0]()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                call()
        times = []
        for _ in range(23):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e3 / len(calls))
    return statistics.median(times[3:])


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def attention(q, k, v, causal):
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)


def decode():
    for rows, tokens in ((1, 8192), (1, 32768), (1, 131072), (8, 32768), (64, 8192)):
        size = 4.0 * rows * tokens * KV_HEADS * HEAD
        copies = max(1, int(COLD_BYTES / size) + 1)
        q = random(rows, HEADS, 1, HEAD)
        sets = [(random(rows, KV_HEADS, tokens, HEAD), random(rows, KV_HEADS, tokens, HEAD)) for _ in range(copies)]
        us = replay_us([lambda k=k, v=v: attention(q, k, v, False) for k, v in sets])
        print(f"decode {rows}x{tokens} {us:.2f}", flush=True)
        del sets
        torch.cuda.empty_cache()


def prefill():
    for tokens in (4096, 16384, 65536):
        q, k, v = (random(1, heads, tokens, HEAD) for heads in (HEADS, KV_HEADS, KV_HEADS))
        us = replay_us([lambda: attention(q, k, v, True)] * 2)
        flops = 4.0 * HEADS * HEAD * tokens * (tokens + 1) / 2
        print(f"prefill {tokens} {flops / us * 1e-6:.1f}", flush=True)


def products():
    for out, columns in ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)):
        copies = int(COLD_BYTES / (2 * out * columns)) + 2
        weights = [random(out, columns) for _ in range(copies)]
        for rows in (1, 8, 16, 64):
            x = random(rows, columns)
            us = replay_us([lambda w=w: F.linear(x, w) for w in weights])
            print(f"product {out}x{columns}x{rows} {us:.2f}", flush=True)


def main():
    with torch.inference_mode(), sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]):
        {"decode": decode, "prefill": prefill, "products": products}[sys.argv[1]]()


if __name__ == "__main__":
    main()
