"""What a figure of the section `cpu` could be at most on this machine: bytes and operations over measured peaks.

Counted: the weights once a step, and what decoding rows read of keys and values, over what as many threads read from so
much memory; int8 products over the peak of the instruction set chosen (of tiles where there are some, whose products of 64 k a
group fills by half); the float steps of each group of 32, which the one arithmetic of every set asks for (a conversion, a
product and a fused sum, and one more for a minimum), and attention's products, over the float peaks. An instruction is
two operations, as a fused sum is. Tiles multiply beside the vectors, but each row of a product and each row of it that is
stored take the place of a vector's instruction, and a conversion is two additions there; without tiles products and
float steps share their ports and add up.
Memory and arithmetic overlap. Not counted: unpacking, quantizing, exponentials, norms, gates, barriers, and what one core has in flight towards
memory. So it is a bound, not an estimate: nothing gets there.
"""

import dataclasses
import functools

import gguf_shape

FLOAT_STEPS = {"Q4_1": 4, "Q8_0": 3, "Q4_0": 3}
TILE_STEPS = 3  # a product's row, its store, the second addition
GROUP = 32


@dataclasses.dataclass(frozen=True)
class Product:
    kind: str
    elements: int
    size: int  # bytes


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int
    q_width: int
    kv_width: int
    body: tuple  # the products of all layers
    head: Product

    @property
    def size(self):
        return self.head.size + sum(product.size for product in self.body)


@functools.cache
def shape_of(path):
    found = {}
    for name, kind, _, size in gguf_shape.layout(path.read_bytes())[0]:
        block, held = next((elements, held) for n, elements, held in gguf_shape.TYPES.values() if n == kind)
        found[name] = Product(kind, size // held * block, size)
    hidden = found["output_norm.weight"].elements
    layers = sum(name.endswith("attn_k.weight") for name in found)
    body = tuple(product for name, product in found.items() if name.startswith("blk.") and product.kind != "F32")
    return Shape(layers, found["blk.0.attn_q.weight"].elements // hidden,
                 found["blk.0.attn_k.weight"].elements // hidden, body,
                 found.get("output.weight", found["token_embd.weight"]))


@dataclasses.dataclass(frozen=True)
class Bound:
    tokens: int
    memory_s: float
    products_s: float
    floats_s: float
    tiles: bool

    @property
    def seconds(self):
        arithmetic = max(self.products_s, self.floats_s) if self.tiles else self.products_s + self.floats_s
        return max(self.memory_s, arithmetic)

    @property
    def rate(self):
        return self.tokens / self.seconds

    def __str__(self):
        parts = f"memory {self.memory_s * 1e3:.2f} ms, int8 {self.products_s * 1e3:.2f}, float {self.floats_s * 1e3:.2f}"
        return f"bound {self.rate:.0f} tokens/s ({parts})"


def bound(shape, figure, context, read_bytes_per_s, peaks):
    """`figure`: ("decode", rows) with `context` tokens before each, or ("prompt", tokens); `peaks`: operations a second
    by type."""
    what, rows = figure
    decodes = what == "decode"
    seen = context if decodes else (rows + 1) / 2
    head_rows = rows if decodes else 1
    size = shape.size + (rows * context * shape.layers * 2 * shape.kv_width * 2 if decodes else 0)
    launches = [(product, rows) for product in shape.body] + [(shape.head, head_rows)]
    products = sum(2 * product.elements * count for product, count in launches)
    tiles = "bf16" in peaks
    beside = TILE_STEPS if tiles else 0
    floats = sum(2 * (FLOAT_STEPS[product.kind] + beside) * product.elements / GROUP * count for product, count in launches)
    attention = 4 * shape.q_width * seen * rows * shape.layers
    if tiles:
        products_s = 2 * products / peaks["int8"] + attention / peaks["bf16"]
        floats_s = floats / peaks["float32"]
    else:
        products_s = products / peaks["int8"]
        floats_s = (floats + attention) / peaks["float32"]
    return Bound(rows, size / read_bytes_per_s, products_s, floats_s, tiles)
