"""Rows a to e of the section `cpu`: tokens a second beside llama.cpp's, on the same files, threads and processors.

A pair is our engine and the peer one after the other; a row's ratio is the median over the pairs, its figures are the
medians of each side. The peer's builds are those of build_peer.sh; a set of instructions that the processor lacks makes
a row unmeasured, never good.
"""

import atexit
import functools
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile

import cpu_bound
import daemon
import programs
from spine import Row

THREADS, RUNS = 2, 5
WARMED = 2048  # prompts up to this many tokens are computed once before they are measured, on both sides
KINDS = ("Q4_1", "Q8_0", "Q4_0")
# What a set of ours and of the peer's asks of the processor.
FLAGS = {"amx": {"amx_int8", "amx_bf16", "amx_tile", "avx512_bf16"},
         "avx512": {"avx512f", "avx512_vnni", "avx512_bf16", "avx512vbmi"}, "avx2": {"avx2", "fma", "f16c"}}


@functools.cache
def processor_flags():
    return set(pathlib.Path("/proc/cpuinfo").read_text().split())


def lacks(isa):
    """Why nothing can be measured with an instruction set here, or None."""
    return None if FLAGS[isa] <= processor_flags() else f"not measurable here: no {isa.upper()}"


def pinned(arguments):
    return ("taskset", "-c", arguments.cpus) if arguments.cpus else ()


def runs(arguments):
    return 1 if arguments.quick else RUNS


def steps(arguments):
    """Steps of a decoding case; quick ones are fewer."""
    return 32 if arguments.quick else 128


def model(arguments, kind):
    path = pathlib.Path(arguments.models or "", f"SmolLM2-135M-Instruct.{kind}.gguf")
    if not path.exists():
        raise SystemExit(f"no {path} (tests/bench/make_models.sh PEER_DIR {path.parent})")
    return path


@functools.cache
def zoo(path, name="model"):
    """A new zoo of one file."""
    folder = tempfile.mkdtemp(prefix="tessera-zoo-")
    atexit.register(shutil.rmtree, folder, True)
    daemon.import_model(folder, path, name)
    return folder


def engine(arguments, isa, chains, cases, folder):
    return programs.engine_lines(folder, chains, cases, "--device", "cpu", "--isa", isa, "--threads", THREADS,
                                 "--cache-gib", 1, before=pinned(arguments))


def measured(arguments, isa, kind, figure):
    """Tokens a second of our engine, and what bounds them, measured in the same run."""
    what, size = figure
    path = model(arguments, kind)
    shape = cpu_bound.shape_of(path)
    context = 1 if what == "decode" and size == 1 else 128
    case = f"prompt:1:{size}" if what == "prompt" else f"decode:{size}:{context}:{steps(arguments)}"
    warm = () if what == "decode" else (case if size <= WARMED else "prompt:1:128",)
    found = engine(arguments, isa, "model", (f"read:{round(shape.size / 2**20)}", "peak", *warm, case), zoo(path))
    line = found[case.rsplit(":", 1)[0] if what == "decode" else case]
    rate = size * 1e3 / line["step_ms"] if what == "decode" else line["prompt_tokens_per_s"]
    return rate, cpu_bound.bound(shape, figure, context + steps(arguments) / 2, found["read"]["gb_s"] * 1e9,
                                 found["peak"])


def peer_run(arguments, build, program, *words):
    folder = arguments.peer_dir / build / "bin"
    line = [*pinned(arguments), folder / program, "-t", THREADS, *words]
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True,
                          env={**os.environ, "LD_LIBRARY_PATH": str(folder)})
    if done.returncode != 0:
        raise SystemExit(f"{program} of {build} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return done.stdout


def peer(arguments, build, kind, figure):
    what, size = figure
    path = model(arguments, kind)
    if what == "decode" and size > 1:
        tokens = steps(arguments)
        text = peer_run(arguments, build, "llama-batched-bench", "-m", path, "-c", size * (128 + tokens), "-npp", 128,
                        "-ntg", tokens, "-npl", size, "--output-format", "jsonl")
        return next(json.loads(line)["speed_tg"] for line in text.splitlines() if line.startswith("{"))
    tested = ("-p", size, "-n", 0) if what == "prompt" else ("-p", 0, "-n", steps(arguments))
    if what == "prompt" and size > WARMED:
        tested = ("-p", f"128,{size}", "-n", 0, "--no-warmup")
    text = peer_run(arguments, build, "llama-bench", "-m", path, *tested, "-r", 1, "-o", "json")
    return json.loads(text)[-1]["avg_ts"]


_pairs = {}


def pair(arguments, isa, build, kind, figure):
    """(median ratio, ours, peer's, the bound of the fastest memory and arithmetic seen) of a figure, measured once."""
    key = (isa, build, kind, figure)
    if key not in _pairs:
        found = [(*measured(arguments, isa, kind, figure), peer(arguments, build, kind, figure))
                 for _ in range(runs(arguments))]
        _pairs[key] = (statistics.median(a / b for a, _, b in found), statistics.median(a for a, _, _ in found),
                       statistics.median(b for _, _, b in found), max((c for _, c, _ in found), key=lambda c: c.rate))
    return _pairs[key]


NAMES = {("decode", 1): "decode, 1 stream", ("decode", 8): "total of 8 streams", ("decode", 32): "total of 32 streams",
         ("prompt", 512): "prompt of 512", ("prompt", 4096): "prompt of 4096"}


def beside_rows(arguments, row, isa, build, figure, least):
    """`isa`: what our engine is told; `build`: the peer's, which must run here too."""
    if arguments.peer_dir is None:
        raise SystemExit(f"row {row} needs --peer-dir (tests/bench/build_peer.sh DIR, then make_models.sh DIR DIR)")
    target = f">= {least}x"
    for kind in KINDS:
        name = f"{row} {NAMES[figure]}, {kind}, {THREADS} threads, {isa}"
        lack = lacks(build)
        if lack:
            yield Row(name, lack, f"llama.cpp ({build})", None, target, None)
            continue
        ratio, mine, theirs, bound = pair(arguments, isa, build, kind, figure)
        beside = f"llama.cpp ({build}) {theirs:.1f}; {bound}: {bound.rate / theirs:.1f}x, {mine / bound.rate:.0%} reached"
        yield Row(name, f"{mine:.1f} tokens/s", beside, ratio, target, ratio >= least)


def one_stream(arguments):
    yield from beside_rows(arguments, "a", "auto", "amx", ("decode", 1), 1.25)


def eight_streams(arguments):
    yield from beside_rows(arguments, "b", "auto", "amx", ("decode", 8), 3)


def many_streams(arguments):
    yield from beside_rows(arguments, "c", "auto", "amx", ("decode", 32), 4)


def prompts(arguments):
    for size in (512, 4096):
        yield from beside_rows(arguments, "d", "auto", "amx", ("prompt", size), 4)


def narrower(arguments, isa, least):
    """Rows a, b and d with a narrower set beside the peer's build of that set."""
    figures = (("decode", 1), ("decode", 8), ("prompt", 512), ("prompt", 4096))
    for figure, target in zip(figures, (*least, least[2])):
        yield from beside_rows(arguments, "e", isa, isa, figure, target)


def avx512(arguments):
    yield from narrower(arguments, "avx512", (1.4, 2, 1.5))


def avx2(arguments):
    yield from narrower(arguments, "avx2", (1.2, 1.2, 1.2))
