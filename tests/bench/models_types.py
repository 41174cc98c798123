"""Row b of the section `models`: GGUF's quantized types beside llama.cpp's library (--peer-dir) and the gguf package."""

import ctypes
import os
import pathlib
import re
import subprocess

import numpy

import daemon
import weight_types
from spine import Row

ROWS = 512
TOLERANCE = 4e-6  # of the sum of the magnitudes, kLinearTolerance of tests/kernels


def _peer(arguments):
    """llama.cpp's library, or None."""
    folder = arguments.peer_dir
    found = sorted(pathlib.Path(folder).rglob("libggml-base.so")) if folder else []
    return ctypes.CDLL(str(found[0])) if found else None


def _suffix(name):
    return re.sub(r"_k$", "_K", name.lower())


def _peer_decode(library, name, blocks):
    values = numpy.empty((len(blocks), weight_types.COLUMNS), numpy.float32)
    function = getattr(library, f"dequantize_row_{_suffix(name)}")
    function(blocks.ctypes.data_as(ctypes.c_void_p), values.ctypes.data_as(ctypes.c_void_p),
             ctypes.c_int64(values.size))
    return values


def _peer_encode(library, name, values):
    blocks = numpy.empty((len(values), weight_types.row_bytes(name, values.shape[1])), numpy.uint8)
    function = getattr(library, f"quantize_row_{_suffix(name)}_ref")
    function(values.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p),
             ctypes.c_int64(values.size))
    return blocks


def _different(ours, theirs):
    return int(numpy.count_nonzero(ours.view(numpy.uint32) != theirs.view(numpy.uint32)))


def _decoding(library, name):
    blocks = [weight_types.random_blocks(name, ROWS, seed=1),
              weight_types.encode(name, weight_types.normal_rows(ROWS, seed=2)).copy()]
    package = peer = 0
    for some in blocks:
        ours = weight_types.decode(name, some)
        package += _different(ours, weight_types.reference(name, some))
        if library is not None:
            peer += _different(ours, _peer_decode(library, name, numpy.ascontiguousarray(some)))
    beside = f"gguf {package}, llama.cpp {peer if library is not None else 'not given'}"
    return Row(f"b {name} values that differ of {2 * ROWS * weight_types.COLUMNS}", str(package + peer), beside, None,
               "0", package + peer == 0)


def _encoding(library, name):
    values = weight_types.normal_rows(ROWS, seed=3)
    ours = weight_types.relative_error(values, weight_types.decode(name, weight_types.encode(name, values)))
    blocks = _peer_encode(library, name, values)
    theirs = weight_types.relative_error(values, _peer_decode(library, name, blocks))
    return Row(f"b {name} relative error of quantizing", f"{ours:.5f}", f"llama.cpp {theirs:.5f}", ours / theirs,
               "<= 1.05", ours <= 1.05 * theirs)


def types(arguments):
    library = _peer(arguments)
    for name in weight_types.TYPES:
        yield _decoding(library, name)
    for name in weight_types.TYPES if library is not None else []:
        yield _encoding(library, name)
    tests = pathlib.Path(daemon.binary()).resolve().parent / "tests" / "kernels_test"
    done = subprocess.run([str(tests), "--gtest_filter=*LinearTest.MatchesFloat64OnOddShapes*:LinearBits.*"],
                          capture_output=True, text=True, check=False, env={**os.environ, "GTEST_COLOR": "no"})
    passed = re.search(r"\[  PASSED  \] (\d+) tests?", done.stdout)
    yield Row("b products of every type beside float64, and bits that depend on the row alone",
              f"{passed.group(1) if passed else 0} tests pass", "-", None, f"within {TOLERANCE} of the magnitudes",
              done.returncode == 0)
