"""Rows of the section `spine`: one stream beside the peer, many streams, prefix reuse, start and idle memory."""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

import daemon
import models

THREADS, RUNS = 2, 5


@dataclass
class Row:
    name: str
    ours: str
    beside: str
    ratio: float | None
    target: str
    ok: bool | None  # None: not measured


@contextlib.contextmanager
def serving(sources, settings=None):
    """A daemon over a new zoo of {name: file}."""
    with tempfile.TemporaryDirectory() as folder:
        for name, path in sources.items():
            daemon.import_model(pathlib.Path(folder, "zoo"), path, name)
        base = {"engine": {"threads": THREADS}}
        with daemon.Daemon(pathlib.Path(folder, "zoo"), pathlib.Path(folder, "run"),
                           daemon.merged(base, settings or {})) as running:
            yield running


def generate(running, model, ids, tokens):
    return json.loads(daemon.command(
        "generate", "--endpoint", running.grpc, "--model", model, "--token-ids", ",".join(map(str, ids)),
        "--max-tokens", tokens, "--temperature", 0, "--ignore-eos", "--json").stdout)


def smollm2():
    path = models.smollm2_gguf()
    if path is None:
        raise SystemExit("SmolLM2's GGUF file is neither in the cache nor on the package index")
    return path


def peer_build():
    """The peer's build to stand beside: AVX-512 where the processor has it, else what its compiler finds here."""
    flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    return "avx512" if {"avx512_vnni", "avx512_bf16", "avx512vbmi"} <= flags else "native"


def peer_decode(arguments, path):
    """llama-bench's tokens a second, one run of 128 tokens."""
    bin_folder = arguments.peer_dir / peer_build() / "bin"
    line = [bin_folder / "llama-bench", "-m", path, "-t", THREADS, "-p", 0, "-n", 128, "-r", 1, "-o", "json"]
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True, check=True,
                          env={**os.environ, "LD_LIBRARY_PATH": str(bin_folder)})
    return json.loads(done.stdout)[0]["avg_ts"]


def one_stream(arguments):
    if arguments.peer_dir is None:
        raise SystemExit("row a needs --peer-dir (tests/bench/build_peer.sh DIR, then make_models.sh DIR DIR)")
    for kind in ("Q4_1", "Q8_0"):
        path = arguments.models / f"SmolLM2-135M-Instruct.{kind}.gguf"
        ours, peer = [], []
        with serving({"model": path}) as running:
            generate(running, "model", [1], 16)
            for _ in range(RUNS):
                timing = generate(running, "model", [1], 128)
                ours.append((timing["completion_tokens"] - 1) / timing["timings"]["decode_s"])
                peer.append(peer_decode(arguments, path))
        ours, peer = statistics.median(ours), statistics.median(peer)
        yield Row(f"a {kind} decode, one stream, {THREADS} threads", f"{ours:.1f} tokens/s", f"llama.cpp ({peer_build()}) {peer:.1f}",
                  ours / peer, ">= 1.0x", ours >= peer)


def many_streams(arguments):
    """512 streams of 64 tokens at once: no error, and memory stays what it was when 64 of them had finished."""
    import client as e2e
    path = models.test_data("models/stories260K/stories260K.gguf")
    with serving({"stories": path}, {"admission": {"max_waiting_requests": 1024}}) as running:
        with e2e.Client(running) as caller:
            failures, finished, first = [], 0, 0
            lock = threading.Lock()

            def one(seed):
                nonlocal finished, first
                try:
                    assert len(caller.generate("stories", [1, 3 + seed % 500], 64).ids()) == 64
                except Exception as error:  # noqa: BLE001 - every kind counts
                    failures.append(error)
                with lock:
                    finished += 1
                    if finished == 64:
                        first = running.resident_bytes()

            begin = caller.stats()
            start = time.monotonic()
            threads = [threading.Thread(target=one, args=(i,)) for i in range(512)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.monotonic() - start
            peak, end = running.resident_bytes(), caller.stats()
        steps, rows = end.steps - begin.steps, end.rows - begin.rows
        outside = (end.overhead_ns - begin.overhead_ns) / 1e3
        yield Row("c 512 streams, errors", str(len(failures)), "-", None, "0", not failures)
        yield Row("c resident memory after 512, after 64", f"{peak / 2**20:.0f} MB", f"{first / 2**20:.0f} MB",
                  peak / first, "<= 1.05x", peak <= 1.05 * first)
        allowed = 50 * steps + rows
        yield Row(f"c engine time outside kernels, {steps} steps, {512 * 64 / took:.0f} tokens/s",
                  f"{outside / steps:.1f} us a step", f"{allowed / steps:.1f} us a step", outside / allowed, "<= 1.0x",
                  outside <= allowed)


def prefix(arguments):
    with serving({"model": smollm2()}) as running:
        shared, times, cached, short = [(17 * k) % 40000 + 100 for k in range(1024)], [], set(), []
        generate(running, "model", shared + [5] * 32, 2)
        for run in range(RUNS):
            answer = generate(running, "model", shared + [(31 * k + 997 * run) % 40000 + 50 for k in range(32)], 2)
            cached.add(answer["prompt_tokens"] - answer["cached_tokens"])
            times.append(answer["timings"]["first_token_s"])
            alone = generate(running, "model", [(37 * k + 991 * run) % 40000 + 60 for k in range(32)], 2)
            short.append(alone["timings"]["first_token_s"])
        long_ms, short_ms = 1e3 * statistics.median(times), 1e3 * statistics.median(short)
        yield Row("d computed tokens of 1024 shared + 32 new", str(sorted(cached)), "-", None, "exactly 32", cached == {32})
        yield Row("d first token after a shared start", f"{long_ms:.1f} ms", f"32-token prompt {short_ms:.1f} ms",
                  long_ms / short_ms, "<= + 20 ms", long_ms <= short_ms + 20)


def start_and_idle(arguments):
    with tempfile.TemporaryDirectory() as folder:
        zoo = pathlib.Path(folder, "zoo")
        daemon.import_model(zoo, smollm2(), "model")
        times, resident = [], 0
        for run in range(RUNS):
            begin = time.monotonic()
            settings = {"models": [{"name": "model", "preload": True}]}
            with daemon.Daemon(zoo, pathlib.Path(folder, f"run{run}"), settings) as running:
                times.append(time.monotonic() - begin)
                time.sleep(0.3)
                resident = max(resident, running.resident_bytes())
        weights = smollm2().stat().st_size
        ready = statistics.median(times)
        yield Row("g start to ready", f"{ready:.2f} s", "-", None, "<= 1 s", ready <= 1)
        yield Row("g resident memory at idle", f"{resident / 2**20:.0f} MB", f"weights {weights / 2**20:.0f} MB",
                  resident / weights, "<= weights + 64 MB", resident <= weights + 64 * 2**20)

