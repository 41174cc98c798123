#!/usr/bin/env python3
"""Times what torch offers for the kernels of the section `gpu`: attention by cuDNN and by flash, and bfloat16 products
by cuBLAS.

    torch_peers.py decode|prefill|products

Cold: the calls of one CUDA graph go through at least 1 GB of different operands. Prints `name shape backend value`
lines: microseconds a call, for prefill TFLOP/s of the causal half. What a backend does not take has no line.
"""

import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

COLD_BYTES = 1.1e9
HEADS, KV_HEADS, HEAD = 32, 8, 128
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


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


def by_backend(case, calls, value_of):
    for word, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                us = replay_us(calls)
        except RuntimeError as error:
            print(f"{case} {word}: {error}", file=sys.stderr)
            continue
        print(f"{case} {word} {value_of(us):.2f}", flush=True)


def decode():
    for rows, tokens in ((1, 8192), (1, 32768), (1, 131072), (8, 32768), (64, 8192)):
        size = 4.0 * rows * tokens * KV_HEADS * HEAD
        copies = max(1, int(COLD_BYTES / size) + 1)
        q = random(rows, HEADS, 1, HEAD)
        sets = [(random(rows, KV_HEADS, tokens, HEAD), random(rows, KV_HEADS, tokens, HEAD)) for _ in range(copies)]
        by_backend(f"decode {rows}x{tokens}", [lambda k=k, v=v: attention(q, k, v, False) for k, v in sets],
                   lambda us: us)
        del sets
        torch.cuda.empty_cache()


def prefill():
    for tokens in (4096, 16384, 65536):
        q, k, v = (random(1, heads, tokens, HEAD) for heads in (HEADS, KV_HEADS, KV_HEADS))
        flops = 4.0 * HEADS * HEAD * tokens * (tokens + 1) / 2
        by_backend(f"prefill {tokens}", [lambda: attention(q, k, v, True)] * 2, lambda us: flops / us * 1e-6)


def products():
    for out, columns in ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)):
        copies = int(COLD_BYTES / (2 * out * columns)) + 2
        weights = [random(out, columns) for _ in range(copies)]
        for rows in (1, 8, 16, 64):
            x = random(rows, columns)
            us = replay_us([lambda w=w: F.linear(x, w) for w in weights])
            print(f"product {out}x{columns}x{rows} cublas {us:.2f}", flush=True)


def main():
    with torch.inference_mode():
        {"decode": decode, "prefill": prefill, "products": products}[sys.argv[1]]()


if __name__ == "__main__":
    main()
