#!/usr/bin/env python3
"""Turns a Llama GGUF file with a byte-level BPE vocabulary into a float32 Hugging Face directory.

    tests/golden/dequantize_gguf.py FILE DIR

The values are those of the `gguf` package's own dequantization, so that a reference implementation and Tessera
start from the same numbers.
"""

import pathlib
import sys

import gguf
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import safetensors_file  # noqa: E402
import tiny_llama  # noqa: E402

LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL = 3  # token type


def field(reader, name, default=None):
    found = reader.fields.get(name)
    return default if found is None else found.contents()


def unpermute(array, heads):
    """GGUF keeps rotary pairs side by side; Hugging Face keeps them half a head apart."""
    rows, columns = array.shape
    return numpy.ascontiguousarray(
        array.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns))


def tensors_of(reader):
    heads = field(reader, "llama.attention.head_count")
    kv_heads = field(reader, "llama.attention.head_count_kv", heads)
    tensors = {}
    for tensor in reader.tensors:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{LAYER[parts[2]]}.weight"
            if parts[2] in ("attn_q", "attn_k"):
                array = unpermute(array, heads if parts[2] == "attn_q" else kv_heads)
        else:
            name = WHOLE[parts[0]] + ".weight"
        tensors[name] = array
    return tensors


def config_of(reader, tied, vocabulary):
    hidden, heads = field(reader, "llama.embedding_length"), field(reader, "llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
        "intermediate_size": field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": field(reader, "llama.block_count"), "num_attention_heads": heads,
        "num_key_value_heads": field(reader, "llama.attention.head_count_kv", heads), "head_dim": hidden // heads,
        "vocab_size": vocabulary, "max_position_embeddings": field(reader, "llama.context_length"),
        "rms_norm_eps": float(field(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": float(field(reader, "llama.rope.freq_base", 10000.0)), "rope_scaling": None,
        "tie_word_embeddings": tied, "attention_bias": False, "mlp_bias": False, "torch_dtype": "float32",
        "bos_token_id": field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": field(reader, "tokenizer.ggml.eos_token_id"),
    }


def convert(path, folder):
    reader, folder = gguf.GGUFReader(path), pathlib.Path(folder)
    if field(reader, "general.architecture") != "llama" or field(reader, "tokenizer.ggml.model") != "gpt2":
        sys.exit(f"{path}: only Llama models with a byte-level BPE vocabulary are converted")
    folder.mkdir(parents=True, exist_ok=True)
    tokens, types = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.token_type")
    tensors = tensors_of(reader)
    safetensors_file.write(folder / "model.safetensors", tensors, {"format": "pt"})
    config = config_of(reader, "lm_head.weight" not in tensors, len(tokens))
    added = [(i, text) for i, (text, kind) in enumerate(zip(tokens, types)) if kind == CONTROL]
    # The `smollm` rules: digits one by one, then GPT-2's pattern.
    rules = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, tiny_llama.BYTE_LEVEL]}
    merges = [merge.split(" ") for merge in field(reader, "tokenizer.ggml.merges")]
    tiny_llama.write_json(folder / "tokenizer.json",
                          tiny_llama.tokenizer_json({t: i for i, t in enumerate(tokens)}, merges, added, rules))
    tiny_llama.write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": tokens[config["bos_token_id"]],
        "eos_token": tokens[config["eos_token_id"]], "add_bos_token": False,
        "chat_template": field(reader, "tokenizer.chat_template")})
    tiny_llama.write_json(folder / "generation_config.json",
                          {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]})
    tiny_llama.write_json(folder / "config.json", config)  # last: its presence says that the directory is whole


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    convert(sys.argv[1], sys.argv[2])
