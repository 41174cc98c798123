"""Small model files with one thing wrong each: what an import must refuse, and what its error must name.

`gguf()` and `huggingface()` yield `Damage`; the sound files they start from are `SOUND`. Written with the standard
library alone, from the formats' definitions.
"""

import json
import os
import struct
import subprocess
import tempfile
from dataclasses import dataclass

WIDTH, HIDDEN, HEADS, VOCABULARY = 64, 96, 4, 16
HUGE = 10_000_000_000


@dataclass
class Damage:
    name: str
    files: dict  # relative path -> bytes
    names: tuple = ()  # texts of which the error must have one, beside an offset or the file
    entry: str = ""  # what is imported, relative; "": the folder


def shapes():
    """(GGUF name, Hugging Face name, shape) of one layer's model."""
    layer = [("attn_norm", "input_layernorm", [WIDTH]), ("attn_q", "self_attn.q_proj", [WIDTH, WIDTH]),
             ("attn_k", "self_attn.k_proj", [WIDTH, WIDTH]), ("attn_v", "self_attn.v_proj", [WIDTH, WIDTH]),
             ("attn_output", "self_attn.o_proj", [WIDTH, WIDTH]), ("ffn_norm", "post_attention_layernorm", [WIDTH]),
             ("ffn_gate", "mlp.gate_proj", [HIDDEN, WIDTH]), ("ffn_up", "mlp.up_proj", [HIDDEN, WIDTH]),
             ("ffn_down", "mlp.down_proj", [WIDTH, HIDDEN])]
    yield "token_embd.weight", "model.embed_tokens.weight", [VOCABULARY, WIDTH]
    for gguf_name, name, shape in layer:
        yield f"blk.0.{gguf_name}.weight", f"model.layers.0.{name}.weight", shape
    yield "output_norm.weight", "model.norm.weight", [WIDTH]
    yield "output.weight", "lm_head.weight", [VOCABULARY, WIDTH]


def elements(shape):
    count = 1
    for dimension in shape:
        count *= dimension
    return count


# ---- GGUF ------------------------------------------------------------------------------------------------------------

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
Q8_0 = 8


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


def array(kind, values):
    packed = b"".join(text(v) for v in values) if kind == STRING else struct.pack(
        f"<{len(values)}{'f' if kind == F32 else 'i'}", *values)
    return struct.pack("<IQ", kind, len(values)) + packed


def values():
    u32 = lambda value: struct.pack("<I", value)  # noqa: E731
    tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab"] + [f"t{i}" for i in range(6, VOCABULARY)]
    return {
        "general.architecture": (STRING, text("llama")), "llama.block_count": (U32, u32(1)),
        "llama.context_length": (U32, u32(128)), "llama.embedding_length": (U32, u32(WIDTH)),
        "llama.feed_forward_length": (U32, u32(HIDDEN)), "llama.attention.head_count": (U32, u32(HEADS)),
        "llama.attention.head_count_kv": (U32, u32(HEADS)),
        "llama.attention.layer_norm_rms_epsilon": (F32, struct.pack("<f", 1e-5)),
        "llama.rope.freq_base": (F32, struct.pack("<f", 10000.0)), "general.alignment": (U32, u32(32)),
        "tokenizer.ggml.model": (STRING, text("gpt2")), "tokenizer.ggml.tokens": (ARRAY, array(STRING, tokens)),
        "tokenizer.ggml.scores": (ARRAY, array(F32, [0.0] * VOCABULARY)),
        "tokenizer.ggml.token_type": (ARRAY, array(I32, [1] * VOCABULARY)),
        "tokenizer.ggml.merges": (ARRAY, array(STRING, ["a b"])), "tokenizer.ggml.eos_token_id": (U32, u32(2)),
        "tokenizer.chat_template": (STRING, text("{{ messages }}")),
    }


def tensor_bytes(kind, shape):
    count = elements(shape)
    if kind == Q8_0:
        return struct.pack("<e32b", 0.01, *range(32)) * (count // 32)
    return struct.pack(f"<{count}f", *((i % 7 - 3) * 0.05 for i in range(count)))


class Gguf:
    """A file in parts; `fields` says where each of them lies in what `build` made last."""

    def __init__(self):
        self.version, self.magic, self.align = 3, b"GGUF", 32
        self.values = [(name, *value) for name, value in values().items()]
        self.tensors, self.data = [], b""
        for name, _, shape in shapes():
            self.add(name, Q8_0 if len(shape) == 2 else 0, shape)
        self.counts = None
        self.fields = {}

    def add(self, name, kind, shape):
        self.data += bytes(-len(self.data) % self.align)
        self.tensors.append({"name": name, "shape": shape[::-1], "kind": kind, "offset": len(self.data)})
        self.data += tensor_bytes(kind, shape)

    def set(self, key, kind, value):
        self.values = [(k, kind, value) if k == key else (k, t, v) for k, t, v in self.values]
        if key not in [k for k, _, _ in self.values]:
            self.values.append((key, kind, value))
        return self

    def tensor(self, name):
        return next(t for t in self.tensors if t["name"] == name)

    def build(self):
        out, self.fields = bytearray(), {}

        def put(field, data):
            self.fields[field] = (len(out), len(data))
            out.extend(data)

        tensors, count = self.counts or (len(self.tensors), len(self.values))
        put("magic", self.magic)
        put("version", struct.pack("<I", self.version))
        put("tensor count", struct.pack("<Q", tensors))
        put("value count", struct.pack("<Q", count))
        for key, kind, value in self.values:
            raw = key if isinstance(key, bytes) else key.encode()
            put(f"length of key {key}", struct.pack("<Q", len(raw)))
            put(f"key {key}", raw)
            put(f"type of {key}", struct.pack("<I", kind))
            put(f"value of {key}", value)
        for t in self.tensors:
            name = t["name"]
            put(f"length of name {name}", struct.pack("<Q", len(name.encode())))
            put(f"name {name}", name.encode())
            put(f"dimensions of {name}", struct.pack("<I", len(t["shape"])))
            put(f"shape of {name}", struct.pack(f"<{len(t['shape'])}Q", *t["shape"]))
            put(f"element type of {name}", struct.pack("<I", t["kind"]))
            put(f"offset of {name}", struct.pack("<Q", t["offset"]))
        out.extend(bytes(-len(out) % self.align))
        put("data", self.data)
        return bytes(out)


def patched(data, at, replacement):
    return data[:at] + replacement + data[at + len(replacement):]


def gguf_cuts(data, fields):
    for field, (at, size) in fields.items():
        yield f"cut before {field}", data[:at], ("byte",)
        if size > 1:
            yield f"cut inside {field}", data[:at + size // 2], ("byte",)


def gguf_fields(data, fields):
    """Lengths, counts and types with values that no file has."""
    for field, (at, size) in fields.items():
        if field.startswith("length of") or field.endswith("count") and size == 8:
            for wrong in (2**64 - 1, 2**63, HUGE, 2**32, len(data)):
                yield f"{field} = {wrong}", patched(data, at, struct.pack("<Q", wrong)), ("byte",)
        if field.startswith("type of"):
            yield f"{field} = 13", patched(data, at, struct.pack("<I", 13)), ("byte",)
            yield f"{field} = 2^31", patched(data, at, struct.pack("<I", 2**31)), ("byte",)
        if field.startswith("dimensions of"):
            for wrong in (0, 5, 2**32 - 1):
                yield f"{field} = {wrong}", patched(data, at, struct.pack("<I", wrong)), ("byte",)
        if field.startswith("element type of"):
            name = field.removeprefix("element type of ")
            for wrong in (4, 24, 28, 1000, 2**32 - 1):
                yield f"{field} = {wrong}", patched(data, at, struct.pack("<I", wrong)), (name,)
        if field.startswith("offset of"):
            name = field.removeprefix("offset of ")
            for wrong in (1, len(data) + 31 & ~31, 2**63, 2**64 - 32):
                yield f"{field} = {wrong}", patched(data, at, struct.pack("<Q", wrong)), (name,)
        if field.startswith("shape of"):
            name = field.removeprefix("shape of ")
            for wrong in (0, 2**32, 2**63, 2**64 - 1, 33):
                yield f"{field} = {wrong}", patched(data, at, struct.pack("<Q", wrong)), (name, "byte")


def gguf_values():
    """Settings that are there and wrong, or not there."""
    u32 = lambda value: struct.pack("<I", value)  # noqa: E731
    needed = ["general.architecture", "llama.block_count", "llama.context_length", "llama.embedding_length",
              "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"]
    for key in needed:
        file = Gguf()
        file.values = [v for v in file.values if v[0] != key]
        yield f"without {key}", file, (key,)
        yield f"{key} as a bool array", Gguf().set(key, ARRAY, array(I32, [1, 2])), (key,)
        if key != "general.architecture":
            yield f"{key} as text", Gguf().set(key, STRING, text("7")), (key,)
    for key in needed[1:6]:
        for wrong in (0, 2**32 - 1, *([7] if key != "llama.context_length" else [])):
            yield f"{key} = {wrong}", Gguf().set(key, U32, u32(wrong)), ()
    for wrong in (float("nan"), float("inf"), -1.0, 1e30):
        yield f"epsilon {wrong}", Gguf().set(needed[6], F32, struct.pack("<f", wrong)), (needed[6],)
        if wrong != 1e30:
            yield (f"rope base {wrong}", Gguf().set("llama.rope.freq_base", F32, struct.pack("<f", wrong)),
                   ("rope.freq_base",))
    for wrong in (0, 3, 2**31, 2**17):
        yield f"alignment {wrong}", Gguf().set("general.alignment", U32, u32(wrong)), ("alignment",)
    yield "alignment as text", Gguf().set("general.alignment", STRING, text("32")), ("alignment",)
    yield "unknown architecture", Gguf().set("general.architecture", STRING, text("gpt-17")), ("gpt-17",)
    tokens = "tokenizer.ggml.tokens"
    yield "tokens as numbers", Gguf().set(tokens, ARRAY, array(I32, [1] * VOCABULARY)), (tokens,)
    yield "a token of bad UTF-8", Gguf().set(tokens, ARRAY, array(STRING, [b"\xff\xfe"] * VOCABULARY)), (tokens,)
    yield "too few scores", Gguf().set("tokenizer.ggml.scores", ARRAY, array(F32, [0.0] * 3)), ("scores",)
    yield "scores as texts", Gguf().set("tokenizer.ggml.scores", ARRAY, array(STRING, ["0"] * VOCABULARY)), ("scores",)
    yield "too many types", Gguf().set("tokenizer.ggml.token_type", ARRAY, array(I32, [1] * 99)), ("token_type",)
    merges = "tokenizer.ggml.merges"
    for wrong in ("ab", "", "a ", " "):
        yield f"the merge {wrong!r}", Gguf().set(merges, ARRAY, array(STRING, ["a b", wrong])), (merges,)
    yield "a merge of bad UTF-8", Gguf().set(merges, ARRAY, array(STRING, [b"\xc3 a"])), (merges,)
    yield "merges as numbers", Gguf().set(merges, ARRAY, array(I32, [1])), (merges,)
    for wrong in (VOCABULARY, 2**31):
        yield f"end token {wrong}", Gguf().set("tokenizer.ggml.eos_token_id", U32, u32(wrong)), ("eos_token_id",)
    yield "end token as text", Gguf().set("tokenizer.ggml.eos_token_id", STRING, text("2")), ("eos_token_id",)
    yield "tokenizer model as a number", Gguf().set("tokenizer.ggml.model", U32, u32(1)), ("tokenizer.ggml.model",)
    yield "a template of bad UTF-8", Gguf().set("tokenizer.chat_template", STRING, text(b"\xff")), ("chat_template",)
    yield "a template as a number", Gguf().set("tokenizer.chat_template", U32, u32(1)), ("chat_template",)
    deep = struct.pack("<IQ", ARRAY, 1) * 20 + struct.pack("<IQ", U8, 1) + b"\0"
    yield "arrays twenty deep", Gguf().set("deep", ARRAY, deep), ("byte",)
    for length in (2**64 - 1, HUGE, 2**40):
        for kind in (U8, STRING, F64, ARRAY):
            yield (f"an array of {length} of type {kind}", Gguf().set("long", ARRAY, struct.pack("<IQ", kind, length)),
                   ("byte",))


def gguf_tensors():
    for name, _, shape in shapes():
        file = Gguf()
        file.tensors = [t for t in file.tensors if t["name"] != name]
        if name != "output.weight":  # then it is a tied one
            yield f"without {name}", file, (name,)
        file = Gguf()
        file.tensors.append(dict(file.tensor(name)))
        yield f"{name} twice", file, (name,)
        file = Gguf()
        other = next(t for t in file.tensors if t["name"] != name)
        file.tensor(name)["offset"] = other["offset"]
        yield f"{name} over another", file, ("overlaps",)
        file = Gguf()
        file.tensor(name)["shape"] = [*file.tensor(name)["shape"][:-1], 32]
        yield f"{name} of another shape", file, (name, "byte")
        file = Gguf()
        at = file.tensor(name)["offset"]
        bad = struct.pack("<e", float("nan")) if len(shape) == 2 else struct.pack("<f", float("inf"))
        file.data = patched(file.data, at + (34 * 3 if len(shape) == 2 else 8), bad)
        yield f"{name} with a scale that is no number", file, (name,)
    file = Gguf()
    file.add("blk.0.attn_mystery.weight", 0, [WIDTH])
    yield "a tensor of no known use", file, ("attn_mystery",)
    for version in (0, 1, 4, 2**31, 3 << 24, 2 << 24):
        file = Gguf()
        file.version = version
        yield f"version {version}", file, ("byte",)
    for magic in (b"GGML", b"ggjt", b"FUGG", bytes(4)):
        file = Gguf()
        file.magic = magic
        yield f"magic {magic}", file, ("byte",)
    for key in ("llama.block_count", "general.architecture"):
        file = Gguf()
        file.values.append(next(v for v in file.values if v[0] == key))
        yield f"{key} twice", file, (key,)
    file = Gguf()
    file.values.append(("", U8, b"\0"))
    yield "an empty key", file, ("byte",)
    for counts in ((2**64 - 1, 3), (3, 2**64 - 1), (HUGE, HUGE), (13, 17), (11, 18), (2**20 + 1, 17)):
        file = Gguf()
        file.counts = counts
        yield f"counts {counts}", file, ()


def gguf_splits():
    def part(number, count, tensors, keep):
        file = Gguf()
        file.set("split.no", U16, struct.pack("<H", number)).set("split.count", U16, struct.pack("<H", count))
        file.set("split.tensors.count", I32, struct.pack("<i", tensors))
        file.tensors = [t for t in file.tensors if keep(t["name"])]
        return file.build()

    names = [f"m-{i:05d}-of-00002.gguf" for i in (1, 2)]
    layer, rest = (lambda n: n.startswith("blk")), (lambda n: not n.startswith("blk"))
    sound = {names[0]: part(0, 2, 12, layer), names[1]: part(1, 2, 12, rest)}
    wrongs = {
        "a part missing": ({names[0]: sound[names[0]]}, names[1]),
        "the same part twice": ({n: sound[names[0]] for n in names}, "split.no"),
        "parts swapped": ({names[0]: sound[names[1]], names[1]: sound[names[0]]}, "00002"),
        "a part of three": ({**sound, names[1]: part(1, 3, 12, rest)}, "split.count"),
        "another tensor count": ({**sound, names[1]: part(1, 2, 13, rest)}, "split.tensors.count"),
        "too few tensors": ({names[0]: part(0, 2, 14, layer), names[1]: part(1, 2, 14, rest)}, "split.tensors.count"),
        "a tensor in both": ({**sound, names[1]: part(1, 2, 12, lambda n: True)}, "earlier part"),
        "a number beyond the count": ({**sound, names[0]: part(7, 2, 12, layer)}, "split.no"),
        "65535 parts": ({**sound, names[0]: part(0, 65535, 12, layer)}, "split.count"),
        "a negative tensor count": ({**sound, names[0]: part(0, 2, -1, layer)}, "split.tensors.count"),
        "a part that is cut": ({**sound, names[1]: sound[names[1]][:-40]}, names[1]),
        "a part that is empty": ({**sound, names[1]: b""}, names[1]),
    }
    for name, (files, says) in wrongs.items():
        yield Damage(f"split: {name}", files, (says,), names[0])
    yield Damage("split: renamed", {"renamed.gguf": sound[names[0]], names[1]: sound[names[1]]}, ("00001-of-00002",),
                 "renamed.gguf")


def gguf():
    file = Gguf()
    sound = file.build()
    for source in (gguf_cuts(sound, file.fields), gguf_fields(sound, file.fields)):
        for name, data, says in source:
            yield Damage(name, {"m.gguf": data}, says, "m.gguf")
    for source in (gguf_values(), gguf_tensors()):
        for name, made, says in source:
            yield Damage(name, {"m.gguf": made.build()}, says, "m.gguf")
    yield from gguf_splits()


# ---- Hugging Face ----------------------------------------------------------------------------------------------------

CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "num_hidden_layers": 1,
          "intermediate_size": HIDDEN, "vocab_size": VOCABULARY, "num_attention_heads": HEADS,
          "num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS, "max_position_embeddings": 128,
          "rms_norm_eps": 1e-5, "hidden_act": "silu"}


def hf_tensors():
    return {name: ("F32", shape, tensor_bytes(0, shape)) for _, name, shape in shapes()}


def header_of(tensors):
    header, data = {}, b""
    for name, (kind, shape, raw) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return header, data


def safetensors(header, data, length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def folder(weights=None, config=CONFIG, **others):
    config = config if isinstance(config, bytes) else json.dumps(config).encode()
    files = {"config.json": config, "model.safetensors": safetensors(*header_of(hf_tensors())) if weights is None else weights}
    files.update({name: data for name, data in others.items() if data is not None})
    return files


def hf_headers():
    header, data = header_of(hf_tensors())
    whole = safetensors(header, data)
    start = len(whole) - len(data)
    for at in sorted({0, 1, 7, 8, 9, start - 1, start, len(whole) - 1, *range(16, start, max(1, start // 24)),
                      *(start + e["data_offsets"][1] - 4 for e in header.values()),
                      *(start + e["data_offsets"][0] for e in header.values())}):
        yield f"cut at {at}", whole[:at], ("header", "data_offsets", "byte")
    raw = json.dumps(header).encode()
    for length in (0, 1, len(raw) - 1, len(raw) + 1, HUGE, 2**63, 2**64 - 1, 100_000_001):
        yield f"header of {length} bytes", safetensors(raw, data, length), ("header", "byte")
    for wrong in (b"", b"[]", b"null", b"7", b"{", b"\xff\xfe", b'{"a":', b"[" * 50_000, b'{"a":' * 20_000):
        yield f"header {wrong[:9]!r}", safetensors(wrong, data), ("header",)
    for name in header:
        yield (f"{name} twice", safetensors(raw[:-1] + b", " + json.dumps({name: header[name]}).encode()[1:], data),
               (name,))
        for field in ("dtype", "shape", "data_offsets"):
            entry = {k: v for k, v in header[name].items() if k != field}
            yield f"{name} without {field}", safetensors({**header, name: entry}, data), (name,)
        begin, end = header[name]["data_offsets"]
        wrongs = [("dtype", 7), ("dtype", "F4"), ("dtype", "Q8_0"), ("dtype", "I64"), ("shape", [2**63, 2]),
                  ("shape", [-1]), ("shape", ["64"]), ("shape", [1.5]), ("shape", 64), ("shape", [0]),
                  ("shape", header[name]["shape"] + [2]), ("data_offsets", [begin]), ("data_offsets", [end, begin]),
                  ("data_offsets", [begin, 2**64 - 1]), ("data_offsets", [begin, HUGE]),
                  ("data_offsets", [begin + 4, end + 4]), ("data_offsets", [-1, end]), ("data_offsets", "all")]
        for field, wrong in wrongs:
            entry = {**header[name], field: wrong}
            yield f"{name}: {field} = {wrong}", safetensors({**header, name: entry}, data), (name, "overlap", "gap")
        yield f"{name} is no object", safetensors({**header, name: 3}, data), (name,)
    yield "bytes after the last tensor", whole + b"more", ("data",)
    yield "a name that is empty", safetensors({**header, "": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}},
                                              data), ("header", "shape")


def hf_contents():
    for name in hf_tensors():
        tensors = hf_tensors()
        kind, shape, raw = tensors[name]
        for word, bad in (("a NaN", float("nan")), ("an infinity", float("-inf"))):
            yield (f"{name} with {word}",
                   safetensors(*header_of({**tensors, name: (kind, shape, patched(raw, 8, struct.pack("<f", bad)))})),
                   (name,))
        if name != "lm_head.weight":
            yield f"without {name}", safetensors(*header_of({k: v for k, v in tensors.items() if k != name})), (name,)
        wrong = [*shape[:-1], 32]
        yield f"{name} of another shape", safetensors(*header_of({**tensors, name: (kind, wrong, tensor_bytes(0, wrong))})), (name,)
    yield ("a tensor of no known use", safetensors(*header_of({**hf_tensors(), "model.mystery": ("F32", [1], bytes(4))})),
           ("model.mystery",))


def hf_configs():
    for field in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "num_attention_heads"):
        yield f"config without {field}", {k: v for k, v in CONFIG.items() if k != field}, (field,)
        for wrong in (0, -1, 2**40, 1.5, "64", [], None, True if field == "hidden_size" else {}):
            yield f"{field} = {wrong!r}", {**CONFIG, field: wrong}, (field, "shape", "layers.")
    for field, wrong in (("rms_norm_eps", -1), ("rms_norm_eps", "small"), ("rms_norm_eps", 1e9), ("head_dim", 3),
                         ("num_key_value_heads", 3), ("hidden_act", "quick_gelu_17"), ("hidden_act", 7),
                         ("rope_theta", -5), ("rope_scaling", {"rope_type": "mystery", "factor": 2}),
                         ("architectures", ["Gpt17ForCausalLM"]), ("architectures", []),
                         ("max_position_embeddings", 0),
                         ("quantization_config", {"quant_method": "mystery"})):
        yield f"{field} = {wrong!r}", {**CONFIG, field: wrong}, (field, "is not supported", "setting")
    for wrong in (b"", b"[]", b"{", b"\xff", b"7", b'{"a":' * 5000 + b"1" + b"}" * 5000):
        yield f"config {wrong[:9]!r}", wrong, ("config.json",)


def hf_companions():
    """Other files of the folder."""
    broken = {"tokenizer.json": b"{", "tokenizer_config.json": b"[]", "generation_config.json": b"\xff",
              "chat_template.jinja": b"\xff\xfe"}
    for name, wrong in broken.items():
        yield Damage(f"{name} {wrong!r}", folder(**{name: wrong}), (name, "chat template"))
    for wrong in (7, [{"name": "default"}], [{"name": "other", "template": "x"}]):
        yield Damage(f"chat_template {wrong!r}",
                     folder(**{"tokenizer_config.json": json.dumps({"chat_template": wrong}).encode()}),
                     ("chat_template",))
    weights = safetensors(*header_of(hf_tensors()))
    mapped = {name: "a.safetensors" for name in hf_tensors()}
    indexes = {
        "no object": b"[]", "no map": b"{}", "a map of numbers": b'{"weight_map":{"a":1}}',
        "a file outside": b'{"weight_map":{"a":"../a.safetensors"}}', "an absolute path": b'{"weight_map":{"a":"/x"}}',
        "no name": b'{"weight_map":{"a":""}}', "a missing file": b'{"weight_map":{"a":"b.safetensors"}}',
        "a missing tensor": json.dumps({"weight_map": {**mapped, "more": "a.safetensors"}}).encode(),
        "a tensor in two": json.dumps({"weight_map": {**mapped, "lm_head.weight": "c.safetensors"}}).encode(),
        "cut": json.dumps({"weight_map": mapped}).encode()[:-9],
    }
    for name, index in indexes.items():
        files = folder(**{"model.safetensors.index.json": index, "a.safetensors": weights, "c.safetensors": weights})
        del files["model.safetensors"]
        yield Damage(f"index: {name}", files, ("index", "weight_map", "safetensors", "shards"))
    yield Damage("no weights", {"config.json": folder()["config.json"]}, ("model.safetensors",))
    yield Damage("pickled weights", {"config.json": b"{}", "pytorch_model.bin": b"PK"}, ("safetensors",))


def hf_quantized():
    """One projection quantized, with something wrong about it."""
    name = "model.layers.0.self_attn.q_proj.weight"
    plain = {k: v for k, v in hf_tensors().items() if k != name}
    one, nan = struct.pack("<f", 1), struct.pack("<f", float("nan"))
    codes = ("F8_E4M3", [WIDTH, WIDTH], b"\x20" * WIDTH * WIDTH)
    fp8 = {"quant_method": "fp8"}
    for word, tensors in {
            "no scale": {name: codes},
            "a NaN scale": {name: codes, name + "_scale": ("F32", [1], nan)},
            "a scale of integers": {name: codes, name + "_scale": ("I32", [1], one)},
            "a scale for each column": {name: codes, name + "_scale": ("F32", [1, WIDTH], one * WIDTH)},
            "a scale for too many rows": {name: codes, name + "_scale": ("F32", [2 * WIDTH], one * 2 * WIDTH)},
            "a code that is no number": {name: (codes[0], codes[1], b"\x7f" + codes[2][1:]),
                                         name + "_scale": ("F32", [1], one)},
            "codes of one dimension": {name: ("F8_E4M3", [WIDTH * WIDTH], codes[2]), name + "_scale": ("F32", [1], one)},
            "codes of another shape": {name: ("F8_E4M3", [32, WIDTH], codes[2][:32 * WIDTH]),
                                       name + "_scale": ("F32", [1], one)},
            "a scale alone": {name: hf_tensors()[name], name + "_scale": ("F32", [1], one)}}.items():
        yield f"fp8: {word}", fp8, {**plain, **tensors}, (name,)
    yield "fp8: blocks of 64", {**fp8, "weight_block_size": [64, 64]}, plain, ("weight_block_size",)
    base = name.removesuffix(".weight")
    half = struct.pack("<e", 0.01)
    gptq = {base + ".qweight": ("I32", [WIDTH // 8, WIDTH], b"\x88" * (WIDTH * WIDTH // 2)),
            base + ".qzeros": ("I32", [1, WIDTH // 8], b"\x77" * (WIDTH // 2)),
            base + ".scales": ("F16", [1, WIDTH], half * WIDTH),
            base + ".g_idx": ("I32", [WIDTH], bytes(4 * WIDTH))}
    setting = {"quant_method": "gptq", "bits": 4}
    for part in list(gptq)[:3]:
        without = {k: v for k, v in gptq.items() if k != part}
        yield f"gptq: without {part}", setting, {**plain, **without}, (base,)
        kind, shape, raw = gptq[part]
        yield f"gptq: {part} of another type", setting, {**plain, **gptq, part: ("U16", shape, raw[:2 * elements(shape)] if kind == "I32" else raw)}, (base,)
        yield f"gptq: {part} of another shape", setting, {**plain, **gptq, part: (kind, [elements(shape)], raw)}, (base,)
    order = struct.pack(f"<{WIDTH}i", *(i % 2 for i in range(WIDTH)))
    for word, wrong in (("activation order", order), ("a negative group", b"\xff" * 4 * WIDTH)):
        yield f"gptq: {word}", setting, {**plain, **gptq, base + ".g_idx": ("I32", [WIDTH], wrong)}, ("g_idx",)
    yield "gptq: zero points of 16", setting, {**plain, **gptq, base + ".qzeros": ("I32", [1, WIDTH // 8], b"\xff" * (WIDTH // 2))}, ("qzeros",)
    for bits in (2, 3, 8, "four", None):
        yield f"gptq: bits {bits}", {**setting, "bits": bits}, {**plain, **gptq}, ("bits",)
    packed = {name + "_packed": ("I32", [WIDTH, WIDTH // 8], b"\x88" * (WIDTH * WIDTH // 2)),
              name + "_scale": ("F16", [WIDTH, 1], half * WIDTH),
              name + "_shape": ("I64", [2], struct.pack("<2q", WIDTH, WIDTH))}
    compressed = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    for word, tensors in {
            "no scale": {k: v for k, v in packed.items() if not k.endswith("_scale")},
            "no shape": {k: v for k, v in packed.items() if not k.endswith("_shape")},
            "a negative shape": {**packed, name + "_shape": ("I64", [2], struct.pack("<2q", -1, WIDTH))},
            "a huge shape": {**packed, name + "_shape": ("I64", [2], struct.pack("<2q", 2**62, 2**62))},
            "a shape of three": {**packed, name + "_shape": ("I64", [3], struct.pack("<3q", 1, 1, 1))},
            "groups of 16": {**packed, name + "_scale": ("F16", [WIDTH, 4], half * 4 * WIDTH)},
            "groups of a fraction": {**packed, name + "_scale": ("F16", [WIDTH, 3], half * 3 * WIDTH)},
            "an infinite scale": {**packed, name + "_scale": ("F16", [WIDTH, 1], struct.pack("<e", float("inf")) * WIDTH)},
            "zero points of another shape": {**packed, name + "_zero_point": ("I32", [1, 1], bytes(4))},
            "ordered groups": {**packed, name + "_g_idx": ("I32", [WIDTH], order)}}.items():
        yield f"compressed-tensors: {word}", compressed, {**plain, **tensors}, (name,)


def huggingface():
    for source in (hf_headers(), hf_contents()):
        for name, weights, says in source:
            yield Damage(name, folder(weights), says)
    for name, config, says in hf_configs():
        yield Damage(name, folder(config=config), says)
    for name, setting, tensors, says in hf_quantized():
        yield Damage(name, folder(safetensors(*header_of(tensors)), {**CONFIG, "quantization_config": setting}), says)
    yield from hf_companions()


SOUND = {"gguf": Damage("sound", {"m.gguf": Gguf().build()}, (), "m.gguf"),
         "huggingface": Damage("sound", folder())}
KINDS = {"gguf": gguf, "huggingface": huggingface}


# ---- Running -----------------------------------------------------------------------------------------------------------


def write(damage, folder):
    """Writes the files; returns the path to import."""
    folder.mkdir(parents=True)
    for name, data in damage.files.items():
        (folder / name).write_bytes(data)
    return folder / damage.entry


def run(binary, zoo, path):
    """Imports `path`: (exit code, negative for a signal; stderr; peak resident bytes)."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([binary, "zoo", "--zoo", str(zoo), "import", str(path), "--name", "damaged"],
                                   stdout=subprocess.DEVNULL, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return process.returncode, out.read().decode(errors="replace"), usage.ru_maxrss * 1024


def problem(damage, code, error):
    """What is wrong with how an import of the damage ended; "" when it ended as it should."""
    if code < 0:
        return f"killed by signal {-code}"
    if code == 0:
        return "imported"
    if code not in (1, 2, 4, 5) or not error.startswith("error: "):
        return f"exit {code} without an error of ours: {error[:200]}"
    if not any(text in error for text in damage.names or (*damage.files, "byte ", "setting", "tensor")):
        return f"names none of {damage.names}: {error[:300]}"
    return ""
