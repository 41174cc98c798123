"""Rows e, f and g of the section `gpu`: kernels alone, beside what torch offers for them in the same call."""

import functools
import pathlib
import re
import subprocess
import sys

import gpu
from spine import Row

PEERS = pathlib.Path(__file__).resolve().parent / "torch_peers.py"
TERA = 1e12


@functools.cache
def peers(kind):
    """{(shape, backend): value} of torch_peers.py; empty where torch or a device for it is missing."""
    done = subprocess.run([sys.executable, str(PEERS), kind], capture_output=True, text=True, timeout=400, check=False)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {(words[1], words[2]): float(words[3]) for words in lines if len(words) == 4}


def text_of(peer, unit):
    return "peer not run" if peer is None else f"torch {peer:.1f} {unit}"


def attention_peer(theirs, shape, unit):
    """cuDNN's figure, or flash's where cuDNN does not take the shape, and both as text."""
    found = {word: theirs[shape, word] for word in ("cudnn", "flash") if (shape, word) in theirs}
    if not found:
        return None, "peer not run"
    text = ", ".join(f"{word} {value:.1f} {unit}" for word, value in found.items())
    return next(iter(found.values())), f"torch {text}"


def decode_attention(_arguments):
    """The table of decode_check --bench: rows tokens type dim q alone settled chain settled limit of-C plan."""
    theirs = peers("decode")
    for line in gpu.run(gpu.BUNDLE / "gpu" / "decode_check", "--bench").splitlines():
        words = line.split()
        if len(words) != 12 or words[2:5] != ["bf16", "128", "1"]:
            continue
        shape, us, limit = f"{words[0]}x{words[1]}", float(words[5]), float(words[9])
        if shape not in ("1x8192", "1x32768", "1x131072", "8x32768", "64x8192"):
            continue
        peer, peer_text = attention_peer(theirs, shape, "us")
        factor = 2.0 if shape == "1x8192" else 1.0
        share = 0.95 if limit * 1e-6 * gpu.ceilings().copy >= 1e9 else 0
        ratio = None if peer is None else peer / us
        yield Row(f"e decode attention {shape}", f"{us:.1f} us, {limit / us:.3f} of the limit", peer_text, ratio,
                  f">= {factor}x" + (f", >= {share} of the limit" if share else ""),
                  ratio is not None and ratio >= factor and limit / us >= share)


def prefill_attention(_arguments):
    theirs = peers("prefill")
    for line in gpu.run(gpu.BUNDLE / "gpu" / "prefill_check", "--bench-long").splitlines():
        found = re.search(r"wgmma head 128, 32/ ?8 heads, +1 x +(\d+) queries at +0, window +0: .* ([\d.]+) TFLOP/s", line)
        if not found:
            continue
        rate = float(found.group(2))
        peer, peer_text = attention_peer(theirs, found.group(1), "TFLOP/s")
        ratio = None if peer is None else rate / peer
        yield Row(f"f prefill attention {found.group(1)}", f"{rate:.0f} TFLOP/s", peer_text, ratio,
                  ">= 1.0x", ratio is not None and ratio >= 1.0)


SHAPES = ("6144x4096", "4096x4096", "28672x4096", "4096x14336")
WANTED = {("bf16", 1): 0.88, ("bf16", 8): 0.88, ("bf16", 16): 0.88, ("bf16", 64): 0.80}


def skinny_products(_arguments):
    """Lines of skinny_check --bench: type rows, then four products, their sum and a chain: us (share of C)."""
    theirs = peers("products")
    for line in gpu.run(gpu.BUNDLE / "gpu" / "skinny_check", "--bench").splitlines():
        # Of e4m3 and int4 weights the way that rows go where weights divide evenly, as these do.
        found = re.match(r"(bf16|fp8 channel, coded|int4 128, coded)\s+(\d+)\s+(.*)", line)
        if not found:
            continue
        dtype, rows = found.group(1).split()[0], int(found.group(2))
        of_codes = {"fp8": " of e4m3 rows", "int4": " of int8 rows"}.get(dtype, "")
        if rows == 32:
            continue
        pairs = re.findall(r"([\d.]+) \(([\d.]+)\)", found.group(3))
        us, share, chain = float(pairs[4][0]), float(pairs[4][1]), float(pairs[5][1])
        wanted = WANTED.get((dtype, rows), 0.80 if dtype == "fp8" else 0.70)
        parts = [theirs.get((f"{shape}x{rows}", "cublas")) for shape in SHAPES]
        peer = None if None in parts else sum(parts)
        yield Row(f"g products {dtype}{of_codes} M={rows}", f"{us:.1f} us, {share:.3f} C ({chain:.3f} in a chain)",
                  text_of(peer, "us, bf16"), None if peer is None else peer / us, f">= {wanted} C", share >= wanted)


ROWS = {"e": decode_attention, "f": prefill_attention, "g": skinny_products}
