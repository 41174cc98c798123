"""Every quantized type of GGUF: dequantized to the `gguf` package's bits, and quantized with no more loss."""

import numpy
import pytest

import weight_types

# Of llama.cpp's quantize_row_*_ref on the rows below (tests/bench/models_types.py measures both).
LLAMA_CPP_ERRORS = {"Q8_0": 0.00620, "Q4_0": 0.09730, "Q4_1": 0.08143, "Q5_0": 0.04891, "Q5_1": 0.03973, "Q2_K": 0.30212,
                    "Q3_K": 0.15648, "Q4_K": 0.07499, "Q5_K": 0.03774, "Q6_K": 0.01976, "IQ4_NL": 0.08505,
                    "IQ4_XS": 0.08385, "MXFP4": 0.12412}


@pytest.mark.parametrize("name", weight_types.TYPES)
def test_random_blocks_have_the_packages_bits(name):
    blocks = weight_types.random_blocks(name, 64, seed=len(name))
    ours, theirs = weight_types.decode(name, blocks), weight_types.reference(name, blocks)
    assert numpy.array_equal(ours.view(numpy.uint32), theirs.view(numpy.uint32))


@pytest.mark.parametrize("name", weight_types.TYPES)
def test_blocks_of_weights_have_the_packages_bits(name):
    blocks = weight_types.encode(name, weight_types.normal_rows(64, seed=5))
    ours, theirs = weight_types.decode(name, blocks), weight_types.reference(name, blocks)
    assert numpy.array_equal(ours.view(numpy.uint32), theirs.view(numpy.uint32))


@pytest.mark.parametrize("name", weight_types.TYPES)
def test_quantizing_loses_no_more_than_llama_cpp(name):
    values = weight_types.normal_rows(64, seed=6)
    ours = weight_types.decode(name, weight_types.encode(name, values))
    assert weight_types.relative_error(values, ours) <= 1.05 * LLAMA_CPP_ERRORS[name]
