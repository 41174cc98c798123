"""Rows of the section `gpu`, measured with the programs of a bundle (deploy/bundle.sh) on the device that is there.

Ceilings are measured in the same call: C is a large copy inside device memory, counting bytes read and written. The
peer's figures come from a file that bench_vllm.py printed in the same call (--vllm FILE), where there is one.
"""

import functools
import json
import os
import pathlib
import re
import shutil
import tempfile
import time
import typing

import daemon
import programs
from programs import pairs, run
from spine import Row

BUNDLE = programs.bundle()

# Llama-3-8B: bytes of a step's weights (the embedding is looked up, not read), and of a token's keys and values.
WEIGHTS = {"bf16": 15.01e9, "f8-channel": 6.98e9 + 1.05e9, "i4-g128": 6.98e9 * 0.5156 + 1.05e9}
KV_TOKEN = 32 * 2 * 8 * 128 * 2
# Operations of a token by the type that multiplies: the head is bf16 in every chain.
OPERATIONS = {"bf16": {"bf16": 2 * 7.505e9}, "f8-channel": {"f8-channel": 2 * 6.98e9, "bf16": 2 * 0.525e9}}


class Ceilings(typing.NamedTuple):
    copy: float  # bytes a second, read and written, inside device memory
    gemm: dict  # operations a second of a large product, by type
    upload: float  # bytes a second from pinned host memory


@functools.cache
def ceilings():
    found = pairs(run(BUNDLE / "gpu" / "ceilings_bench").splitlines()[-1])
    gemm = {"bf16": found["gemm_tflop_s"] * 1e12, "f8-channel": found["gemm_e4m3_tflop_s"] * 1e12}
    return Ceilings(found["copy_gb_s"] * 1e9, gemm, found["upload_gb_s"] * 1e9)


@functools.cache
def zoo():
    folder = tempfile.mkdtemp(prefix="tessera-zoo-")
    import atexit
    atexit.register(shutil.rmtree, folder, True)
    return folder


@functools.cache
def chain(dtype, name=None, *extra):
    name = name or f"llama-{dtype}"
    run(BUNDLE / "tessera", "zoo", "--zoo", zoo(), "synth", "--like", "llama-3-8b", "--seed", 1, "--dtype", dtype,
        "--as", name, *extra)
    return name


@functools.cache
def engine(chains, cases, *flags):
    """The lines that engine_bench printed, by case."""
    return programs.engine_lines(zoo(), chains, cases, "--cache-gib", os.environ.get("TESSERA_BENCH_CACHE_GIB", 48),
                                 *flags)


def vllm(arguments, kind, case):
    """(ms a step, output or prompt tokens a second; None where it ran another load) of a case of the peer, or None."""
    path = getattr(arguments, "vllm", None)
    if path is None or not pathlib.Path(path).exists():
        return None
    section = None
    for line in pathlib.Path(path).read_text().splitlines():
        head = re.match(r"--- (\w+):", line)
        section = head.group(1) if head else section
        words = line.split()
        if section == kind and len(words) == 10 and words[0] == case:
            if case.startswith("e"):
                return float(words[6]), float(words[7])
            # With fewer tokens of output (its --quick) its rate is another workload's.
            return float(words[6]), float(words[8]) if words[3] == "256" else None
    return None


def beside(peer, unit):
    return "peer not run" if peer is None else f"vLLM {peer:.2f} {unit}"


def step_row(name, ours_ms, limit_s, share, peer_ms, factor):
    """With a `factor` of 0 the peer's step is only printed: taken another way (step_alone), it makes no ratio."""
    part = limit_s * 1e3 / ours_ms
    ratio = peer_ms / ours_ms if peer_ms is not None and factor else None
    ok = part >= share and (ratio is None or ratio >= factor)
    return Row(name, f"{ours_ms:.3f} ms, {part:.3f} of the limit {limit_s * 1e3:.3f} ms",
               beside(peer_ms, "ms"), ratio, f">= {share} of the limit, >= {factor}x", ok)


def rate_row(name, ours, peer, factor, unit="tokens/s"):
    ratio = None if peer is None else ours / peer
    return Row(name, f"{ours:.0f} {unit}", beside(peer, unit), ratio, f">= {factor}x",
               ratio is not None and ratio >= factor)


def step_of(found, batch, prompt, output):
    """As the peer's bench takes it: the whole less the prompts, by the steps between. Of many or long prompts it is no
    step's time: one in a hundred of what they take is as much, and steps that mix both are in neither."""
    whole, prompts = found[f"serve:{batch}:{prompt}:{output}"]["seconds"], found[f"prompt:{batch}:{prompt}"]["seconds"]
    return (whole - prompts) / (output - 1) * 1e3


def step_alone(name, batch, mean, case, steps=112):
    """Milliseconds of steps of a full batch after `mean` tokens, by themselves, and what engine_bench printed of that and
    `case`. Sequences whose prompts come first are ahead by as many tokens as the prompts take steps."""
    ahead = min(24, steps // 4) + batch * mean // 8192 // 2
    context = mean - ahead - steps // 2
    found = engine(name, warm(batch) + (f"decode:{batch}:{context}:{steps}",) + case)
    return found[f"decode:{batch}:{context}"]["step_ms"], found


def decode_cases(*batches):
    return tuple(f"{kind}:{b}:1024{tail}" for b in batches for kind, tail in (("prompt", ""), ("serve", ":256")))


def warm(*batches):
    """Kernels are loaded and steps recorded at their first use; the peer does both before it serves."""
    return tuple(f"serve:{b}:256:16" for b in batches)


def few_sequences(arguments):
    copy = ceilings().copy
    found = engine(chain("bf16"), warm(1, 8) + decode_cases(1, 8))
    for batch, case in ((1, "a"), (8, "b")):
        limit = (WEIGHTS["bf16"] + batch * 1152 * KV_TOKEN) / copy
        peer = vllm(arguments, "bf16", case)
        yield step_row(f"a bf16 batch {batch}", step_of(found, batch, 1024, 256), limit, 0.88, peer and peer[0], 1.2)


def quantized(arguments):
    copy = ceilings().copy
    for dtype, share, factor in (("f8-channel", 0.80, 1.4), ("i4-g128", 0.70, 0)):
        found = engine(chain(dtype), warm(1) + decode_cases(1))
        limit = (WEIGHTS[dtype] + 1152 * KV_TOKEN) / copy
        peer = vllm(arguments, "fp8", "a") if dtype.startswith("f8") else None
        yield step_row(f"b {dtype} batch 1", step_of(found, 1, 1024, 256), limit, share, peer and peer[0], factor)


def many(arguments, batch, case, share, factors):
    copy, peaks, _ = ceilings()
    for dtype, kind, factor in (("bf16", "bf16", factors[0]), ("f8-channel", "fp8", factors[1])):
        step, found = step_alone(chain(dtype), batch, 1152, (f"serve:{batch}:1024:256",))
        operations = batch * sum(count / peaks[of] for of, count in OPERATIONS[dtype].items())
        limit = max(WEIGHTS[dtype] / copy, operations) + batch * 1152 * KV_TOKEN / copy
        peer = vllm(arguments, kind, case)
        yield step_row(f"{case} {dtype} batch {batch} step", step, limit, share, peer and peer[0], 0)
        yield rate_row(f"{case} {dtype} batch {batch} output",
                       found[f"serve:{batch}:1024:256"]["output_tokens_per_s"], peer and peer[1], factor)
        if batch == 64 and kind == "bf16":
            yield through_grpc(found[f"serve:{batch}:1024:256"])


def batch_64(arguments):
    yield from many(arguments, 64, "c", 0.85, (1.07, 1.12))


def batch_256(arguments):
    yield from many(arguments, 256, "d", 0.88, (1.05, 1.08))
    copy = ceilings().copy
    step, _ = step_alone(chain("bf16"), 8, 16416, ())
    limit = (WEIGHTS["bf16"] + 8 * 16416 * KV_TOKEN) / copy
    peer = vllm(arguments, "bf16", "f")
    yield step_row("d bf16 batch 8 at 16k", step, limit, 0.92, peer and peer[0], 0)


def prompts(arguments):
    for dtype, kind in (("bf16", "bf16"), ("f8-channel", "fp8")):
        found = engine(chain(dtype), warm(8) + ("prompt:1:16384", "prompt:32:2048", "prompt:1:16384", "prompt:32:2048"))
        for batch, length, case in ((1, 16384, "e1"), (32, 2048, "e2")):
            peer = vllm(arguments, kind, case)
            yield rate_row(f"h {dtype} {batch} x {length}", found[f"prompt:{batch}:{length}"]["prompt_tokens_per_s"],
                           peer and peer[1], 1.0)


def host_gap(_arguments):
    found = engine(chain("bf16"), warm(8) + tuple(f"decode:{b}:1024" for b in (1, 64, 256)))
    for batch in (1, 64, 256):
        line = found[f"decode:{batch}:1024"]
        yield Row(f"i host gap batch {batch}", f"{line['idle_us']:.1f} us a step, engine {line['engine_us']:.0f} us",
                  f"step {line['step_ms'] * 1e3:.0f} us", None, "<= 50 us", line["idle_us"] <= 50)


def shared_chains(_arguments):
    copy = ceilings().copy
    chain("bf16", "pair", "--variants", 2, "--share", 24)
    names = [line.split()[0] for line in run(BUNDLE / "tessera", "zoo", "--zoo", zoo(), "ls").splitlines()
             if line.startswith("pair")]
    case = ("decode:64:1024",)
    one = engine(names[0], warm(8) + case)["decode:64:1024"]["step_ms"]
    found = engine(",".join(names[:2]), warm(8) + case)
    both, load = found["decode:64:1024"]["step_ms"], found["load"]
    extra = 8 * 2 * 218.1e6
    allowed = 1.08 * (one + extra / copy * 1e3)
    unique = 16.06e9 + extra
    yield Row("j two chains sharing 24 of 32", f"{both:.3f} ms", f"allowed {allowed:.3f} ms", allowed / both, ">= 1.00",
              both <= allowed)
    yield Row("j memory", f"{load['weight_bytes'] / 1e9:.2f} GB", f"unique {unique / 1e9:.2f} GB",
              unique / load["weight_bytes"], "unique bytes", load["weight_bytes"] <= 1.01 * unique)


def through_grpc(found):
    """Output tokens a second of 64 requests through the daemon, beside the engine's."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"models": [{"name": "llama-bf16", "preload": True}], "engine": {"device": "cuda", "memory": "100GiB"}}
        with daemon.Daemon(zoo(), folder, settings) as served:
            load = ("bench", "--endpoint", served.grpc, "--model", "llama-bf16", "--concurrency", 64, "--prompt-tokens",
                    1024, "--max-tokens", 256, "--json")
            daemon.command(*load, "--requests", 64)
            line = json.loads(daemon.command(*load, "--requests", 192).stdout)
    rate, engine_rate = line["levels"][0]["output_tokens_per_s"], found["output_tokens_per_s"]
    return Row("c through gRPC", f"{rate:.0f} tokens/s", f"engine {engine_rate:.0f}", rate / engine_rate, ">= 0.95",
               rate >= 0.95 * engine_rate)


def loading_row(runs, one_copy=None):
    """Of engine_bench's lines `load` and `link`, each pair from one process: the faster load. A reading that cannot be
    (weights that never went over the link, or faster than it) is short. `one_copy`: bytes a second of one large copy."""
    best = min(runs, key=lambda run: run["load"]["load_seconds"])
    load, link = best["load"], best["link"]["gb_s"]
    uploaded, weights, seconds = load["uploaded_bytes"] / 1e9, load["weight_bytes"] / 1e9, load["load_seconds"]
    rate = uploaded / seconds
    times = " and ".join(f"{run['load']['load_seconds']:.3f}" for run in runs)
    whole, possible = uploaded >= weights, rate <= 1.02 * link
    doubt = "" if whole and possible else ", which cannot be"
    beside = f"link {link:.1f} GB/s in the same process" + (f", {one_copy / 1e9:.1f} in one copy" if one_copy else "")
    return Row("k load", f"{uploaded:.3f} GB over the link (weights {weights:.3f}) in {seconds:.3f} s of {times}, "
               f"{rate:.1f} GB/s{doubt}", beside, rate / link, ">= 0.80", rate >= 0.80 * link and whole and possible)


def loading(_arguments):
    """A chain of real bytes from page cache to the device; and a start with nothing to load."""
    name = chain("bf16", "llama-bytes", "--materialise")
    for path in pathlib.Path(zoo()).rglob("*"):  # into the page cache
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass
    runs = [engine(name, ("link",), "--cache-gib", gib) for gib in (2, 3)]  # the second is warm
    yield loading_row(runs, ceilings().upload)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"models": [{"name": chain("bf16"), "preload": True}], "engine": {"device": "cuda", "memory": "60GiB"}}
        begin = time.monotonic()
        with daemon.Daemon(zoo(), folder, settings):
            took = time.monotonic() - begin
    yield Row("k start to ready", f"{took:.2f} s", "vLLM 77 s", 77 / took, "<= 5 s", took <= 5)


def deterministic(_arguments):
    cases = warm(8) + ("serve:64:1024:256", "prompt:1:16384", "serve:64:1024:256", "prompt:1:16384")
    flags = ("--numerics", "deterministic")
    fast, fixed = engine(chain("bf16"), cases), engine(chain("bf16"), cases + ("mixed:200:1500:64",), *flags)
    for case, rate in (("serve:64:1024:256", "output_tokens_per_s"), ("prompt:1:16384", "prompt_tokens_per_s")):
        ours, usual = fixed[case][rate], fast[case][rate]
        yield Row(f"l deterministic {case}", f"{ours:.0f} tokens/s", f"default {usual:.0f} tokens/s", ours / usual,
                  ">= 0.90", ours >= 0.90 * usual)
    mixed = fixed["mixed:200:1500:64"]
    yield Row("l mixed requests that answer as alone", f"{mixed['equal']:.0f}", f"of {mixed['requests']:.0f}", None,
              "all", mixed["equal"] == mixed["requests"])


ROWS = {"a": few_sequences, "b": quantized, "c": batch_64, "d": batch_256, "h": prompts, "i": host_gap,
        "j": shared_chains, "k": loading, "l": deterministic}
