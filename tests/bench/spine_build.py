"""Rows e, e2, f and h of the section `spine`: builds, test runs, the quick start and the fuzz targets.

Everything runs in a clean clone of HEAD in a temporary folder; compiler caches are off. Rows e2 and f take many minutes.
"""

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import time

import models
import spine

FUZZ_RUNS = int(os.environ.get("TESSERA_FUZZ_RUNS", "1000000"))


@contextlib.contextmanager
def clean_clone():
    with tempfile.TemporaryDirectory() as folder:
        clone = pathlib.Path(folder, "tessera")
        subprocess.run(["git", "clone", "--quiet", str(models.ROOT), str(clone)], check=True)
        yield clone


def timed(command, folder, **environment):
    """(minutes or seconds as a float of seconds, output) of a command that must succeed."""
    base = {k: v for k, v in os.environ.items() if not k.startswith("TESSERA_")}
    keep = {k: v for k, v in os.environ.items() if k in ("TESSERA_TEST_DATA", "TESSERA_SMOLLM2_GGUF")}
    begin = time.monotonic()
    done = subprocess.run(command, cwd=folder, env={**base, **keep, "CCACHE_DISABLE": "1", **environment}, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    took = time.monotonic() - begin
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return took, done.stdout


def limit_row(name, seconds, limit):
    return spine.Row(name, f"{seconds:.0f} s", f"{limit:.0f} s", seconds / limit, f"<= {limit:.0f} s", seconds <= limit)


def build(_arguments):
    with clean_clone() as clone:
        configured, _ = timed(["cmake", "--preset", "release", "-DTESSERA_CCACHE="], clone)
        built, _ = timed(["ninja", "-C", "build/release"], clone)
        yield limit_row("e clean release build with tests", configured + built, 300)
        source = clone / "server" / "core" / "frontend.cc"
        source.write_text(source.read_text() + "\n// touched\n")
        again, _ = timed(["ninja", "-C", "build/release"], clone)
        yield limit_row("e incremental after one .cc in server", again, 30)


def test_runs(_arguments):
    data = str(models.ROOT.parent / "shared" / "data")
    environment = {"TESSERA_TEST_DATA": os.environ.get("TESSERA_TEST_DATA", data)}
    with clean_clone() as clone:
        for arguments, limit in (([], 900), (["--quick"], 180), (["--all"], 2700)):
            took, output = timed(["bash", "tests/run.sh", *arguments], clone, **environment)
            yield limit_row(f"e2 tests/run.sh {' '.join(arguments)}: {output.strip().splitlines()[-1]}", took, limit)


def quickstart(_arguments):
    with clean_clone() as clone, tempfile.TemporaryDirectory() as home:
        ports = {"TESSERA_HOME": home, "TESSERA_GRPC": "127.0.0.1:50971", "TESSERA_HTTP": "127.0.0.1:50972"}
        try:
            first, _ = timed(["bash", "deploy/quickstart.sh"], clone, **ports)
            second, _ = timed(["bash", "deploy/quickstart.sh"], clone, **ports)
        finally:
            subprocess.run(["bash", "deploy/quickstart.sh", "--stop"], cwd=clone, env={**os.environ, **ports}, check=False,
                           stdout=subprocess.DEVNULL)
        yield limit_row("f quickstart from a clean clone", first, 600)
        yield limit_row("f second run to the answer", second, 15)


def fuzz(_arguments):
    with clean_clone() as clone:
        timed(["cmake", "--preset", "asan"], clone)
        timed(["ninja", "-C", "build/asan"], clone)
        for target in sorted((clone / "build" / "asan" / "fuzz").glob("*_fuzz")):
            corpus = clone / "tests" / "fuzz" / "corpus" / target.name
            corpus.mkdir(parents=True, exist_ok=True)
            took, output = timed([str(target), f"-runs={FUZZ_RUNS}", "-max_len=4096", "-timeout=20", str(corpus)], clone)
            runs = int(re.findall(r"Done (\d+) runs", output)[-1])
            yield spine.Row(f"h {target.name}, {took:.0f} s", f"{runs} runs, 0 findings", "-", None,
                            f">= {FUZZ_RUNS} runs", runs >= FUZZ_RUNS)
