"""Writes safetensors files with numpy alone. BF16 is given as a uint16 array and named as such."""

import json

NAMES = {"float32": "F32", "float16": "F16", "uint16": "BF16"}


def write(path, tensors, metadata=None):
    """Writes {name: array}; arrays are stored in name order, their data 8-byte aligned after the header."""
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name in sorted(tensors):
        array = tensors[name]
        header[name] = {"dtype": NAMES[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for name in sorted(tensors):
            out.write(tensors[name].tobytes())
