"""On what the tests run, and what follows from it for models and numbers.

TESSERA_TEST_DEVICE: `cuda` for a CUDA device; `auto` or empty for the processor, also of a build that has devices.
TESSERA_TEST_MODELS: `device` for the models of a device on the processor; empty for those of TESSERA_TEST_DEVICE.
"""

import os


def _choice(name, *allowed):
    value = os.environ.get(name, "")
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, must be one of {', '.join(filter(None, allowed))} or empty")
    return value


ON_DEVICE = _choice("TESSERA_TEST_DEVICE", "", "auto", "cuda") == "cuda"
# Devices have kernels for heads of 64 elements and more.
WIDE_HEADS = _choice("TESSERA_TEST_MODELS", "", "device") == "device" or ON_DEVICE

# Settings of a daemon whose tokens and scores do not depend on what else runs; the processor's never do.
EXACT = {"engine": {"deterministic": "always"}}

# Log-probabilities nearer than this may change places on a device, where activations are BF16. On stories260K that moves
# one by 0.008 (root mean square), at most by 0.05, as numpy says that rounds where a device does.
NEAR_TIE = 0.1 if ON_DEVICE else 0.0


def tolerance(on_processor):
    """The relative one for a mean of log-probabilities of two runs in different batches."""
    return NEAR_TIE / 10 if ON_DEVICE else on_processor


def choose():
    """Makes every command and daemon from here on use it."""
    os.environ["TESSERA_ENGINE__DEVICE"] = "cuda" if ON_DEVICE else "cpu"
