"""Rows f, g and h of the section `cpu`: our engine beside what the machine can do, and two chains beside one."""

import pathlib
import statistics
import tempfile

import cpu_bound
import daemon
import gguf_shape
from cpu import KINDS, THREADS, engine, model, runs, steps, zoo
from spine import Row

SHARED_LAYERS = 20


def megabytes(size):
    return max(1, round(size / 2**20))


def read_share(arguments):
    """Weights that a decoding step reads, a second, beside what as many threads read from so much memory."""
    for kind in KINDS:
        folder, shares, rates, peaks, bounds = zoo(model(arguments, kind)), [], [], [], []
        size = engine(arguments, "auto", "model", ("read:1",), folder)["load"]["weight_bytes"]
        read, decode = f"read:{megabytes(size)}", f"decode:1:1:{steps(arguments)}"
        for _ in range(runs(arguments)):
            found = engine(arguments, "auto", "model", (read, "peak", decode), folder)
            rates.append(size / found["decode:1:1"]["step_ms"] * 1e-6)
            peaks.append(found["read"]["gb_s"])
            shares.append(rates[-1] / peaks[-1])
            bounds.append(cpu_bound.bound(cpu_bound.shape_of(model(arguments, kind)), ("decode", 1),
                                          1 + steps(arguments) / 2, peaks[-1] * 1e9, found["peak"]))
        share, bound = statistics.median(shares), max(bounds, key=lambda found: found.rate)
        yield Row(f"f {size / 1e6:.0f} MB of weights a step, {kind}, {THREADS} threads",
                  f"{statistics.median(rates):.1f} GB/s",
                  f"read peak at that size {statistics.median(peaks):.1f} GB/s; {bound}: at most "
                  f"{size / bound.seconds / statistics.median(peaks) * 1e-9:.2f}", share, ">= 0.65", share >= 0.65)


def outside_kernels(arguments):
    case, times, took = f"decode:8:128:{steps(arguments)}", [], []
    for _ in range(runs(arguments)):
        found = engine(arguments, "auto", "model", (case,), zoo(model(arguments, "Q4_1")))["decode:8:128"]
        times.append(found["engine_us"])
        took.append(found["step_ms"])
    outside = statistics.median(times)
    yield Row("g engine time outside kernels, 8 streams, Q4_1", f"{outside:.1f} us a step",
              f"step {statistics.median(took):.2f} ms", outside / 60, "<= 60 us", outside <= 60)


def shared_chains(arguments):
    """4 + 4 streams on two chains that share SHARED_LAYERS layers, beside 8 streams on one."""
    source = model(arguments, "Q4_1")
    with tempfile.TemporaryDirectory() as folder:
        variant = pathlib.Path(folder, "variant.gguf")
        private = gguf_shape.upper(source, variant, SHARED_LAYERS, 2)
        both = pathlib.Path(folder, "zoo")
        daemon.import_model(both, source, "base")
        daemon.import_model(both, variant, "variant")
        case, ratios, singles, pairs, rates = f"decode:8:128:{steps(arguments)}", [], [], [], []
        for _ in range(runs(arguments)):
            one = engine(arguments, "auto", "base", (case,), both)
            unique = one["load"]["weight_bytes"] + private
            two = engine(arguments, "auto", "base,variant", (f"read:{megabytes(unique)}", case), both)
            singles.append(one["decode:8:128"]["step_ms"])
            pairs.append(two["decode:8:128"]["step_ms"])
            rates.append(two["read"]["gb_s"])
            ratios.append(pairs[-1] / (singles[-1] + private / rates[-1] * 1e-6))
        ratio = statistics.median(ratios)
        yield Row(f"h step of 4 + 4 streams, {private / 1e6:.0f} MB private, Q4_1", f"{statistics.median(pairs):.2f} ms",
                  f"8 on one chain {statistics.median(singles):.2f} ms, read {statistics.median(rates):.1f} GB/s", ratio,
                  "<= 1.08x of one chain's and the reading of the private bytes", ratio <= 1.08)
        loaded = two["load"]["weight_bytes"]
        yield Row("h weights in memory", f"{loaded / 1e6:.1f} MB", f"unique {unique / 1e6:.1f} MB", loaded / unique,
                  "<= 1.01x", loaded <= 1.01 * unique)
