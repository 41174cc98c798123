"""Scripts around the program: which device the quick start chooses, and how the bench reads a load."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
QUICKSTART = ROOT / "deploy" / "quickstart.sh"
sys.path.append(str(ROOT / "tests" / "bench"))

pytestmark = pytest.mark.skipif(not QUICKSTART.exists(), reason="a bundle has no scripts of a checkout")

H100 = "NVIDIA H100 80GB HBM3, 9.0"


@pytest.fixture
def choose(tmp_path):
    """What the quick start says that it would do, beside these devices and that toolkit."""
    def script(name, *lines):
        path = tmp_path / name
        path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
        path.chmod(0o755)
        return path

    def run(*arguments, devices=(), release="13.0", **variables):
        script("nvidia-smi", *(f"echo '{device}'" for device in devices), "exit 0" if devices else "exit 9")
        nvcc = script("nvcc", f"echo 'Cuda compilation tools, release {release}, V{release}.1'" if release else "exit 1")
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CUDACXX": str(nvcc), **variables}
        environment.setdefault("TESSERA_DEVICE", "auto")
        return subprocess.run(["bash", QUICKSTART, "--dry-run", *arguments], env=environment, capture_output=True, text=True,
                              timeout=60, check=False)
    return run


def takes(done, device, why):
    assert done.returncode == 0, done.stderr
    assert f"device: {device} (" in done.stderr and why in done.stderr, done.stderr
    assert f"build/{'cuda' if device == 'cuda' else 'release'}/tessera" in done.stderr, done.stderr
    assert f"engine.device={device}" in done.stderr


def test_quickstart_takes_a_device_that_will_do(choose):
    takes(choose(devices=[H100]), "cuda", "NVIDIA H100 80GB HBM3, compute capability 9.0; CUDA toolkit 13.0")
    takes(choose(devices=["NVIDIA A100-SXM4-40GB, 8.0"]), "cuda", "compute capability 8.0")
    takes(choose(devices=["NVIDIA L4, 8.9"], release="13.2"), "cuda", "compute capability 8.9; CUDA toolkit 13.2")
    takes(choose(devices=["Tesla T4, 7.5", H100]), "cuda", "H100")


@pytest.mark.parametrize("devices, release, why", [
    ((), "13.0", "no NVIDIA driver shows a device"),
    (("Tesla T4, 7.5",), "13.0", "compute capability 8.0 to 9.0 is needed, there is: Tesla T4, 7.5"),
    (("Tesla T4, 7.5", "NVIDIA GB10, 12.1"), "13.0", "there is: Tesla T4, 7.5; NVIDIA GB10, 12.1"),
    ((H100,), None, "is there, but no CUDA toolkit"),
    ((H100,), "12.4", "the CUDA toolkit 13 is needed"),
], ids=["none", "old device", "new device", "no toolkit", "old toolkit"])
def test_quickstart_falls_back_and_says_why(choose, devices, release, why):
    takes(choose(devices=devices, release=release), "cpu", why)
    forced = choose("--device", "cuda", devices=devices, release=release)
    assert forced.returncode == 1 and "fix: " in forced.stderr, forced.stderr
    assert why.removeprefix("is there, but ") in forced.stderr


def test_quickstart_does_as_asked(choose):
    takes(choose("--device", "cpu", devices=[H100]), "cpu", "as asked")
    takes(choose(devices=[H100], TESSERA_DEVICE="cpu"), "cpu", "as asked")
    takes(choose("--device=cuda", devices=[H100], TESSERA_DEVICE="cpu"), "cuda", "H100")
    wrong = choose("--device", "tpu")
    assert wrong.returncode == 1 and "no device 'tpu'" in wrong.stderr


@pytest.fixture
def gpu(monkeypatch):
    # The module sets a default where nobody chose a binary, which is not for the tests after this one.
    monkeypatch.setenv("TESSERA_BINARY", os.environ.get("TESSERA_BINARY", ""))
    return importlib.import_module("gpu")


def load(seconds, uploaded, link=50.0):
    return {"load": {"load_seconds": seconds, "engine_seconds": 0.24, "weight_bytes": 16.0e9, "uploaded_bytes": uploaded},
            "link": {"gb_s": link}}


def test_a_load_is_read_from_its_own_time(gpu):
    line = "load load_seconds 0.5 engine_seconds 0.24 weight_bytes 16 uploaded_bytes 17"
    assert gpu.pairs(line) == {"load_seconds": 0.5, "engine_seconds": 0.24, "weight_bytes": 16, "uploaded_bytes": 17}
    with pytest.raises(SystemExit, match="'seconds' comes twice"):
        gpu.pairs("load seconds 0.5 engine seconds 0.24")
    row = gpu.loading_row([load(0.8, 16.1e9), load(0.4, 16.1e9)])
    assert row.ok and "16.100 GB over the link" in row.ours and "40.2 GB/s" in row.ours
    assert not gpu.loading_row([load(0.5, 16.1e9)]).ok


def test_a_load_that_cannot_be_is_short(gpu):
    faster_than_the_link, made_on_the_device = load(0.24, 16.1e9), load(0.39, 1e6)
    for wrong in (faster_than_the_link, made_on_the_device):
        row = gpu.loading_row([wrong])
        assert not row.ok and "cannot be" in row.ours
