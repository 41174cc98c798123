"""One zoo and one daemon for all golden tests: the tiny checkpoints, and SmolLM2 as published and in float32."""

import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import architectures  # noqa: E402
import daemon  # noqa: E402
import dequantize_gguf  # noqa: E402
import gguf_twin  # noqa: E402
import models  # noqa: E402
import tiny_llama  # noqa: E402
import tiny_mixtures  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "timing: measures time; left out under sanitizers")


@pytest.fixture(scope="session")
def smollm2_float_folder():
    """SmolLM2 dequantized; kept between runs, since it is 540 MB of the same bytes each time."""
    path = models.smollm2_gguf()
    if path is None:
        pytest.skip("SmolLM2's GGUF file is neither in the cache nor on the package index")
    folder = daemon.ROOT / "build" / "golden" / "smollm2-float32"
    if not (folder / "config.json").exists():
        dequantize_gguf.convert(path, folder)
    return folder


@pytest.fixture(scope="session")
def zoo(tmp_path_factory, smollm2_float_folder):
    folder = tmp_path_factory.mktemp("golden")
    for variant in tiny_llama.VARIANTS:
        tiny_llama.write_checkpoint(variant, folder / variant)
        daemon.import_model(folder / "zoo", folder / variant, f"tiny-{variant}")
    for variant in tiny_mixtures.VARIANTS:
        tiny_mixtures.write_checkpoint(variant, folder / variant)
        daemon.import_model(folder / "zoo", folder / variant, f"tiny-{variant}")
    for name in architectures.CONFIGURATIONS:
        architectures.write_checkpoint(name, folder / name)
        daemon.import_model(folder / "zoo", folder / name, f"arch-{name}")
    for name in gguf_twin.CONFIGURATIONS:
        gguf_twin.write(name, folder / f"{name}.gguf")
        daemon.import_model(folder / "zoo", folder / f"{name}.gguf", f"gguf-{name}")
    daemon.import_model(folder / "zoo", smollm2_float_folder, "smollm2-float32")
    daemon.import_model(folder / "zoo", models.smollm2_gguf(), "smollm2")
    if models.gemma3_gguf() is not None:
        daemon.import_model(folder / "zoo", models.gemma3_gguf(), "gemma3")
    return folder / "zoo"


@pytest.fixture(scope="session")
def served(zoo, tmp_path_factory):
    with daemon.Daemon(zoo, tmp_path_factory.mktemp("served")) as running:
        yield running
