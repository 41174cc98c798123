"""The trained model of the test data, with heads of a size that devices have kernels for; the same function.

stories260K has heads of 8 elements. A head of 64 that is zero elsewhere computes the same: pair i of 4 goes to pair 8 i of
32, where rotary positions turn it by the same angle; the query makes up for the divisor sqrt(64) instead of sqrt(8).
Feed-forward blocks get idle units up to a multiple of 64. Weights stay float32.
"""

import numpy

HEAD_DIM, UNITS = 64, 64


def spread(weight, places, wide):
    """weight [heads, narrow, in] with its rows at `places` of `wide` ones a head, zeros between."""
    made = numpy.zeros((weight.shape[0], wide, weight.shape[2]), numpy.float32)
    made[:, places] = weight
    return made.reshape(-1, weight.shape[2])


def widened(name, weight, heads, narrow):
    """One tensor of a layer, [out, in] as the file has it."""
    kind = name.split(".")[2]
    if kind in ("attn_q", "attn_k", "attn_v"):
        places = numpy.arange(narrow)
        if kind != "attn_v":  # neighbours are a pair
            places = places // 2 * (HEAD_DIM // narrow) * 2 + places % 2
        weight = spread(weight.reshape(-1, narrow, weight.shape[1]), places, HEAD_DIM)
        return weight * numpy.float32(numpy.sqrt(HEAD_DIM / narrow)) if kind == "attn_q" else weight
    if kind == "attn_output":
        columns = numpy.ascontiguousarray(weight.T).reshape(heads, narrow, -1)
        return numpy.ascontiguousarray(spread(columns, numpy.arange(narrow), HEAD_DIM).T)
    idle = -(weight.shape[1] if kind == "ffn_down" else weight.shape[0]) % UNITS
    if kind == "ffn_down":
        return numpy.pad(weight, ((0, 0), (0, idle)))
    return numpy.pad(weight, ((0, idle), (0, 0))) if kind in ("ffn_gate", "ffn_up") else weight


def write(source, path):
    import gguf

    reader = gguf.GGUFReader(source)
    setting = {name: field.contents() for name, field in reader.fields.items()}
    heads = setting["llama.attention.head_count"]
    narrow = setting["llama.embedding_length"] // heads
    units = setting["llama.feed_forward_length"]
    changed = {"llama.rope.dimension_count": HEAD_DIM, "llama.attention.key_length": HEAD_DIM,
               "llama.attention.value_length": HEAD_DIM, "llama.feed_forward_length": units + -units % UNITS}
    writer = gguf.GGUFWriter(path, setting["general.architecture"])
    for name, field in reader.fields.items():
        if name != "general.architecture" and not name.startswith("GGUF.") and name not in changed:
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for name, value in changed.items():
        writer.add_uint32(name, value)
    for tensor in reader.tensors:
        weight = numpy.array(tensor.data)
        writer.add_tensor(tensor.name, widened(tensor.name, weight, heads, narrow) if tensor.name.startswith("blk.") and
                          weight.ndim == 2 else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
