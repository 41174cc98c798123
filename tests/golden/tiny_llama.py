#!/usr/bin/env python3
"""Small random Llama checkpoints in Hugging Face form, the same bytes each time, made with numpy alone.

    tests/golden/tiny_llama.py VARIANT DIR      variants: see VARIANTS

They exercise what differs among Llama checkpoints: grouped heads, untied and tied embeddings, Llama 3's rope
scaling, one file or shards, float32 or bfloat16, and both spellings of the rope settings. The vocabulary is the 256
bytes, then begin and end; its size is a multiple of nothing.
"""

import json
import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import safetensors_file  # noqa: E402

BOS, EOS, VOCABULARY = 256, 257, 258

VARIANTS = {
    "plain": dict(seed=11, hidden=64, layers=4, heads=4, kv_heads=2, head_dim=16, ffn=160, theta=10000.0),
    "rope3": dict(seed=12, hidden=96, layers=4, heads=6, kv_heads=3, head_dim=16, ffn=224, theta=500000.0, tied=True,
                  shards=2, scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                     "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
    "bf16": dict(seed=13, hidden=64, layers=3, heads=4, kv_heads=1, head_dim=32, ffn=192, theta=10000.0,
                 dtype="bfloat16"),
    # Heads of sizes that devices have kernels for (device_golden.py; the first for tests/e2e).
    "plain64": dict(seed=11, hidden=64, layers=4, heads=4, kv_heads=2, head_dim=64, ffn=192, theta=10000.0,
                    dtype="bfloat16"),
    "heads64": dict(seed=14, hidden=512, layers=6, heads=8, kv_heads=2, head_dim=64, ffn=1536, theta=10000.0,
                    dtype="bfloat16"),
    "heads128": dict(seed=15, hidden=512, layers=4, heads=8, kv_heads=1, head_dim=128, ffn=1536, theta=500000.0,
                     dtype="bfloat16"),
}


def config_of(v):
    rope = {"rope_theta": v["theta"]}
    if v.get("dtype") == "bfloat16":  # the newer spelling
        rope = {"rope_parameters": {"rope_theta": v["theta"], "rope_type": "default"}, "dtype": "bfloat16"}
    else:
        rope.update(torch_dtype="float32", rope_scaling=v.get("scaling"))
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": v["hidden"], "intermediate_size": v["ffn"], "num_hidden_layers": v["layers"],
        "num_attention_heads": v["heads"], "num_key_value_heads": v["kv_heads"], "head_dim": v["head_dim"],
        "vocab_size": VOCABULARY, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": v.get("tied", False), "attention_bias": False, "mlp_bias": False,
        "bos_token_id": BOS, "eos_token_id": EOS, **rope,
    }


def weights_of(v):
    """Weights of a scale that gives logits a few units wide, so that most greedy choices are clear ones."""
    random = numpy.random.RandomState(v["seed"])  # its stream is frozen across numpy versions

    def matrix(rows, columns, gain):
        return (random.standard_normal((rows, columns)) * (gain / numpy.sqrt(columns))).astype(numpy.float32)

    def norm():
        return (1.0 + 0.1 * random.standard_normal(v["hidden"])).astype(numpy.float32)

    query, kv = v["heads"] * v["head_dim"], v["kv_heads"] * v["head_dim"]
    tensors = {"model.embed_tokens.weight": matrix(VOCABULARY, v["hidden"], 4.0)}
    for i in range(v["layers"]):
        p = f"model.layers.{i}."
        tensors[p + "input_layernorm.weight"] = norm()
        tensors[p + "self_attn.q_proj.weight"] = matrix(query, v["hidden"], 1.4)
        tensors[p + "self_attn.k_proj.weight"] = matrix(kv, v["hidden"], 1.4)
        tensors[p + "self_attn.v_proj.weight"] = matrix(kv, v["hidden"], 1.0)
        tensors[p + "self_attn.o_proj.weight"] = matrix(v["hidden"], query, 1.0)
        tensors[p + "post_attention_layernorm.weight"] = norm()
        tensors[p + "mlp.gate_proj.weight"] = matrix(v["ffn"], v["hidden"], 1.2)
        tensors[p + "mlp.up_proj.weight"] = matrix(v["ffn"], v["hidden"], 1.2)
        tensors[p + "mlp.down_proj.weight"] = matrix(v["hidden"], v["ffn"], 1.0)
    tensors["model.norm.weight"] = norm()
    if not v.get("tied"):
        tensors["lm_head.weight"] = matrix(VOCABULARY, v["hidden"], 3.0)
    return tensors


def to_bfloat16(array):
    """Round to nearest, ties to even."""
    bits = array.view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def byte_alphabet():
    """The printable character that byte-level BPE writes for each byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in shown:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def tokenizer_json(vocabulary, merges, added, pre_tokenizer):
    """A byte-level BPE tokenizer.json. `added` is [(id, text)] of special tokens."""
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i, text in added],
        "normalizer": None, "pre_tokenizer": pre_tokenizer, "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocabulary, "merges": merges},
    }


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def write_weights(folder, tensors, shards):
    if shards == 1:
        safetensors_file.write(folder / "model.safetensors", tensors, {"format": "pt"})
        return
    names, index = sorted(tensors), {}
    for k in range(shards):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[k::shards]}
        safetensors_file.write(folder / file, part, {"format": "pt"})
        index.update({name: file for name in part})
    write_json(folder / "model.safetensors.index.json",
               {"metadata": {"total_size": sum(a.nbytes for a in tensors.values())}, "weight_map": index})


def write_files(folder, config, tensors, shards=1):
    """A checkpoint of `tensors`, with the tokenizer of bytes."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, tensors, shards)
    vocabulary = {text: byte for byte, text in byte_alphabet().items()}
    vocabulary.update({"<|bos|>": BOS, "<|eos|>": EOS})
    write_json(folder / "tokenizer.json",
               tokenizer_json(vocabulary, [], [(BOS, "<|bos|>"), (EOS, "<|eos|>")], BYTE_LEVEL))
    write_json(folder / "tokenizer_config.json",
               {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|eos|>",
                "add_bos_token": False, "model_max_length": 512})
    write_json(folder / "generation_config.json", {"bos_token_id": BOS, "eos_token_id": [EOS]})
    write_json(folder / "config.json", config)


def write_checkpoint(variant, folder):
    v = VARIANTS[variant]
    tensors = weights_of(v)
    if v.get("dtype") == "bfloat16":
        tensors = {name: to_bfloat16(array) for name, array in tensors.items()}
    write_files(folder, config_of(v), tensors, v.get("shards", 1))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in VARIANTS:
        sys.exit(f"{__doc__}\nvariants: {', '.join(VARIANTS)}")
    write_checkpoint(sys.argv[1], sys.argv[2])
