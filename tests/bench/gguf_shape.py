#!/usr/bin/env python3
"""GGUF files of a true shape with weights from a seed: for speed alone, where the real file cannot be.

    gguf_shape.py header FILE OUT            the file without its tensors: metadata, vocabulary, names and shapes
    gguf_shape.py fill HEADER OUT SEED       such a header, and tensors from the seed
    gguf_shape.py upper FILE OUT LAYER SEED  a copy of a file whose layers from LAYER on are made anew

Needs numpy alone. Types: F32 (ones: norms), Q4_0, Q4_1, Q8_0.
"""

import pathlib
import struct
import sys
import zlib

import numpy

# A type's number in the format: its name, elements and bytes of a block.
TYPES = {0: ("F32", 1, 4), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        value, = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self):
        size = self.number("Q")
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def skip(self, kind):
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner in SIZES:
                self.at += count * SIZES[inner]
            else:
                for _ in range(count):
                    self.skip(inner)
        else:
            self.at += SIZES[kind]


def layout(data):
    """(name, type name, offset, bytes) of each tensor, and where the tensors begin."""
    reader = Reader(data)
    if data[:4] != b"GGUF":
        raise SystemExit("not a GGUF file")
    reader.at = 8
    tensors, values, alignment, found = reader.number("Q"), reader.number("Q"), 32, []
    for _ in range(values):
        key, kind = reader.text(), reader.number("I")
        if key == "general.alignment":
            alignment = struct.unpack_from("<I", data, reader.at)[0]
        reader.skip(kind)
    for _ in range(tensors):
        name = reader.text()
        elements = 1
        for _ in range(reader.number("I")):
            elements *= reader.number("Q")
        kind, block, size = TYPES[reader.number("I")]
        found.append((name, kind, reader.number("Q"), elements // block * size))
    return found, -(-reader.at // alignment) * alignment


def noise(name, kind, size, seed):
    """The bytes of a tensor: codes of any value under scales of a usual size."""
    if kind == "F32":
        return numpy.ones(size // 4, numpy.float32).tobytes()
    block = next(b for n, _, b in TYPES.values() if n == kind)
    random = numpy.random.Generator(numpy.random.PCG64([seed, zlib.crc32(name.encode())]))
    blocks = random.integers(0, 256, (size // block, block), numpy.uint8)
    # Weights of a standard deviation of 0.04: codes are even over 16 or 256 values.
    scale = numpy.float16(0.04 / (74 if kind == "Q8_0" else 4.6))
    head = numpy.array([scale, numpy.float16(-7.5 * scale)] if kind == "Q4_1" else [scale], numpy.float16)
    blocks[:, :head.nbytes] = head.view(numpy.uint8)
    return blocks.tobytes()


def fill(header, out, seed):
    data = pathlib.Path(header).read_bytes()
    tensors, begin = layout(data)
    with open(out, "wb") as file:
        file.write(data[:begin])
        for name, kind, offset, size in tensors:
            file.seek(begin + offset)
            file.write(noise(name, kind, size, seed))


def upper(path, out, layer, seed):
    """Writes the copy; returns the bytes of the tensors that differ."""
    data = bytearray(pathlib.Path(path).read_bytes())
    tensors, begin = layout(data)
    changed = 0
    for name, kind, offset, size in tensors:
        parts = name.split(".")
        if parts[0] != "blk" or int(parts[1]) < layer:
            continue
        # Norms stay: of a real file they are not ones.
        if kind != "F32":
            data[begin + offset:begin + offset + size] = noise(name, kind, size, seed)
            changed += size
    pathlib.Path(out).write_bytes(data)
    return changed


def main():
    verb, *words = sys.argv[1:] or [""]
    if verb == "header" and len(words) == 2:
        data = pathlib.Path(words[0]).read_bytes()
        pathlib.Path(words[1]).write_bytes(data[:layout(data)[1]])
    elif verb == "fill" and len(words) == 3:
        fill(words[0], words[1], int(words[2]))
    elif verb == "upper" and len(words) == 4:
        print(upper(words[0], words[1], int(words[2]), int(words[3])))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
