"""GGUF's quantized types beside the `gguf` package's own dequantization: blocks to try, and our codec."""

import pathlib
import subprocess

import gguf
import numpy

import daemon

CONVERT = pathlib.Path(daemon.binary()).resolve().parent / "tests" / "convert_weights"  # beside the binary under test
TYPES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"]
COLUMNS = 1024
# Byte offsets of the float16 values of a block: random ones are ordinary numbers, so that no value overflows.
HALVES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": []}


def ggml_type(name):
    return gguf.GGMLQuantizationType[name]


def row_bytes(name, columns=COLUMNS):
    elements, size = gguf.GGML_QUANT_SIZES[ggml_type(name)]
    return columns // elements * size


def random_blocks(name, rows, seed):
    """Rows of blocks whose every byte is random, [rows, bytes of a row]."""
    generator = numpy.random.default_rng(seed)
    size = gguf.GGML_QUANT_SIZES[ggml_type(name)][1]
    blocks = generator.integers(0, 256, (rows * row_bytes(name) // size, size), dtype=numpy.uint8)
    for at in HALVES[name]:
        halves = generator.normal(0, 0.1, len(blocks)).astype(numpy.float16)
        blocks[:, at:at + 2] = halves.view(numpy.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


def normal_rows(rows, seed, columns=COLUMNS):
    """Weights as layers have them: normal, a spread of its own for each row, some far out."""
    generator = numpy.random.default_rng(seed)
    values = generator.normal(0, 0.02, (rows, columns)) * generator.uniform(0.5, 2, (rows, 1))
    values[generator.random(values.shape) < 0.001] *= 8
    return values.astype(numpy.float32)


def _convert(verb, name, columns, array):
    done = subprocess.run([str(CONVERT), verb, name, str(columns)], input=numpy.ascontiguousarray(array).tobytes(),
                          stdout=subprocess.PIPE, check=True)
    return done.stdout


def decode(name, blocks, columns=COLUMNS):
    """Our float32 values of [rows, bytes] blocks."""
    return numpy.frombuffer(_convert("decode", name, columns, blocks), numpy.float32).reshape(-1, columns)


def encode(name, values):
    """Our blocks of [rows, columns] float32 values."""
    blocks = _convert("encode", name, values.shape[1], values.astype(numpy.float32))
    return numpy.frombuffer(blocks, numpy.uint8).reshape(len(values), -1)


def reference(name, blocks):
    """The package's float32 values."""
    with numpy.errstate(over="ignore"):  # MXFP4's largest scale times its largest values is infinite
        return gguf.quants.dequantize(blocks, ggml_type(name)).astype(numpy.float32)


def relative_error(values, back):
    """|back - values| / |values| in float64."""
    exact = values.astype(numpy.float64)
    return float(numpy.linalg.norm(back.astype(numpy.float64) - exact) / numpy.linalg.norm(exact))
