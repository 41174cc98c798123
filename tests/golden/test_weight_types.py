"""Every quantized type of GGUF: dequantized to the `gguf` package's bits, and quantized with no more loss."""

import gguf
import numpy
import pytest

import weight_types


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


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"])
def test_quantizing_loses_no_more_than_the_package(name):
    values = weight_types.normal_rows(64, seed=6)
    theirs = weight_types.reference(name, gguf.quants.quantize(values, weight_types.ggml_type(name)))
    ours = weight_types.decode(name, weight_types.encode(name, values))
    assert weight_types.relative_error(values, ours) <= 1.001 * weight_types.relative_error(values, theirs)


@pytest.mark.parametrize("name", weight_types.TYPES)
def test_quantizing_again_changes_little(name):
    """Values that the format holds exactly come back, but for the rounding of float16 scales."""
    once = weight_types.decode(name, weight_types.encode(name, weight_types.normal_rows(64, seed=7)))
    twice = weight_types.decode(name, weight_types.encode(name, once))
    assert weight_types.relative_error(once, twice) < 0.02
