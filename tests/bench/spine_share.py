"""Row b of the section `spine`: two chains that share 20 of 30 layers, beside as many streams on one chain."""

import pathlib
import shutil
import statistics
import tempfile
import threading
import time

import models
import spine

SHARED_LAYERS, STREAMS, TOKENS, RUNS = 20, 8, 96, 5


def perturb_upper_layers(path):
    """Flips the lowest bit of every quant of the layers from SHARED_LAYERS on; returns the bytes of those layers."""
    import gguf

    changed = 0
    reader = gguf.GGUFReader(path, "r+")
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        if parts[0] != "blk" or int(parts[1]) < SHARED_LAYERS:
            continue
        changed += int(tensor.n_bytes)
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q4_1:
            blocks = tensor.data.reshape(-1, 20)
            blocks[:, 4:] ^= 0x11
        else:
            tensor.data[:] *= 1.01
    reader.data.flush()
    return changed


def read_rate(size):
    """Bytes a second that two threads read from arrays of `size` bytes together, best of several."""
    import numpy

    halves = [numpy.ones(size // 16, dtype=numpy.uint64) for _ in range(2)]
    best = 0.0
    for _ in range(12):
        threads = [threading.Thread(target=numpy.max, args=(half,)) for half in halves]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, size / (time.monotonic() - begin))
    return best


def mapped_bytes(pid, folder):
    """Resident bytes of files under `folder` that a process maps."""
    total, inside = 0, False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = str(folder) in line
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def step_ms(caller, plan):
    """Runs the (model, prompt) streams of `plan` together: milliseconds a step, and each one's ids."""
    ids = [None] * len(plan)

    def one(index, model, prompt):
        ids[index] = caller.generate(model, prompt, TOKENS).ids()

    begin = caller.stats()
    threads = [threading.Thread(target=one, args=(i, *entry)) for i, entry in enumerate(plan)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = caller.stats()
    return (end.step_ns - begin.step_ns) / (end.steps - begin.steps) / 1e6, ids


def shared_layers(_arguments):
    import client as e2e

    source = spine.smollm2()
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, "variant.gguf")
        shutil.copyfile(source, copy)
        private = perturb_upper_layers(copy)
        prompts = [[100 + 37 * i, 200 + i] for i in range(STREAMS)]
        with spine.serving({"base": source, "variant": copy}) as running, e2e.Client(running) as caller:
            one = [("base", prompt) for prompt in prompts]
            two = [("base" if i % 2 == 0 else "variant", prompt) for i, prompt in enumerate(prompts)]
            alone = [caller.generate(model, prompt, TOKENS).ids() for model, prompt in two]
            singles, pairs, equal = [], [], True
            for _ in range(RUNS):
                singles.append(step_ms(caller, one)[0])
                took, ids = step_ms(caller, two)
                pairs.append(took)
                equal = equal and ids == alone
            resident = mapped_bytes(running.process.pid, "/zoo/")
        single, pair = statistics.median(singles), statistics.median(pairs)
        rate = read_rate(private)
        limit = single + private / rate * 1e3
        unique = source.stat().st_size + private
        yield spine.Row(f"b step of 4 + 4 streams, {private / 1e6:.0f} MB private at {rate / 1e9:.1f} GB/s",
                        f"{pair:.2f} ms", f"{limit:.2f} ms (8 on one chain {single:.2f})", pair / limit, "<= 1.10x",
                        pair <= 1.10 * limit)
        yield spine.Row("b weights in memory", f"{resident / 1e6:.1f} MB", f"unique {unique / 1e6:.1f} MB",
                        resident / unique, "<= 1.01x", resident <= 1.01 * unique)
        yield spine.Row("b each stream equal to a run alone", str(equal), "-", None, "True", equal)
