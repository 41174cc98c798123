"""The tiny checkpoints of architectures.py as GGUF files, as llama.cpp's converter writes them.

Tensor names and keys come from the `gguf` package. What the converter changes on the way is changed here: pairs of
rotated rows, norms of 1 + w, [in, out] matrices, and heads whose queries, keys and values lie together.
"""

import re

import gguf
import numpy

import architectures
import tiny_llama

# Model type: GGUF's architecture.
NAMES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2",
         "gemma3_text": "gemma3", "phi3": "phi3", "smollm3": "smollm3", "olmo2": "olmo2", "granite": "granite",
         "stablelm": "stablelm", "gpt2": "gpt2", "gpt_neox": "gptneox", "cohere": "command-r"}
PERMUTED = {"llama", "smollm3", "granite"}
# What GGUF's keys cannot say: this scaling, scalars, layers or activation.
WITHOUT = {"llama-dynamic", "mistral", "ministral", "qwen2-window", "gemma2-plain", "gemma3-nested", "smollm3-list",
           "gpt2-inner", "gpt-neox-sequential"}
CONFIGURATIONS = [name for name in architectures.CONFIGURATIONS if name not in WITHOUT]


def permuted(array, heads):
    """The halves of each head's rows become neighbours."""
    rows = array.shape[0] // heads // 2
    return array.reshape(heads, 2, rows, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def split_heads(array, heads):
    """Rows q, k, v of each head become all of q, all of k, all of v."""
    parts = array.reshape(heads, 3, -1, *array.shape[1:])
    return numpy.concatenate([parts[:, i].reshape(-1, *array.shape[1:]) for i in range(3)])


def converted(name, array, config):
    kind = config["model_type"]
    heads = config.get("num_attention_heads") or config["n_head"]
    if kind in PERMUTED and re.search(r"\.[qk]_proj\.", name):
        return permuted(array, heads if ".q_proj." in name else config["num_key_value_heads"])
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        return array + numpy.float32(1)
    if kind == "gpt2" and re.search(r"\.(c_attn|c_proj|c_fc)\.weight$", name):
        return array.T.copy()
    if "query_key_value" in name:
        return split_heads(array, heads)
    return array


def stacked(tensors):
    """Norms of single heads become the rows of one tensor."""
    result, parts = {}, {}
    for name, array in tensors.items():
        match = re.match(r"(.*)\.norms\.(\d+)(\.weight)$", name)
        if match:
            parts.setdefault(match[1] + match[3], []).append((int(match[2]), array))
        else:
            result[name] = array
    result.update({name: numpy.stack([array for _, array in sorted(rows)]) for name, rows in parts.items()})
    return result


def add_shape(writer, c):
    width, heads = c.get("hidden_size") or c["n_embd"], c.get("num_attention_heads") or c["n_head"]
    writer.add_context_length(architectures.CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(c.get("num_hidden_layers") or c["n_layer"])
    writer.add_feed_forward_length(c.get("intermediate_size") or c.get("n_inner") or 4 * width)
    writer.add_head_count(heads)
    if "num_key_value_heads" in c:
        writer.add_head_count_kv(c["num_key_value_heads"])
    if "head_dim" in c:
        writer.add_key_length(c["head_dim"])
        writer.add_value_length(c["head_dim"])
    epsilon = c.get("layer_norm_eps") or c.get("layer_norm_epsilon")
    if epsilon:
        writer.add_layer_norm_eps(epsilon)
    else:
        writer.add_layer_norm_rms_eps(c["rms_norm_eps"])


def add_rotary(writer, c):
    if c["model_type"] == "gpt2":
        return
    head = architectures.head_size(c)
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    partial = c.get("partial_rotary_factor") or c.get("rotary_pct") or 1.0
    writer.add_rope_dimension_count(int(partial * head))
    writer.add_rope_freq_base(rope.get("rope_theta") or c.get("rotary_emb_base") or c["rope_theta"])
    if "rope_local_base_freq" in c:
        writer.add_rope_freq_base_swa(c["rope_local_base_freq"])
    kind = rope.get("rope_type") or rope.get("type")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in (("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
                         ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
                         ("beta_slow", writer.add_rope_scaling_yarn_beta_slow)):
            if key in rope:
                add(rope[key])
    if kind == "longrope":
        original = c["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(original)
        scale = architectures.CONTEXT / original
        factor = 1.0 if scale <= 1.0 else float(numpy.sqrt(1 + numpy.log(scale) / numpy.log(original)))
        writer.add_rope_scaling_attn_factors(factor)
        for key, tensor in (("long_factor", gguf.MODEL_TENSOR.ROPE_FACTORS_LONG),
                            ("short_factor", gguf.MODEL_TENSOR.ROPE_FACTORS_SHORT)):
            writer.add_tensor(gguf.TENSOR_NAMES[tensor] + ".weight", numpy.array(rope[key], dtype=numpy.float32))


def add_extras(writer, c):
    """Windows, caps and multipliers."""
    if c.get("use_sliding_window", True) and c.get("sliding_window"):
        writer.add_sliding_window(c["sliding_window"])
    if "sliding_window_pattern" in c:
        writer.add_sliding_window_pattern(c["sliding_window_pattern"])
    for key, add in (("attn_logit_softcapping", writer.add_attn_logit_softcapping),
                     ("final_logit_softcapping", writer.add_final_logit_softcapping),
                     ("embedding_multiplier", writer.add_embedding_scale),
                     ("attention_multiplier", writer.add_attention_scale),
                     ("residual_multiplier", writer.add_residual_scale),
                     ("logits_scaling", writer.add_logit_scale), ("logit_scale", writer.add_logit_scale)):
        if c.get(key):
            add(c[key])
    if c["model_type"] == "gpt_neox":
        writer.add_parallel_residual(c["use_parallel_residual"])


def add_vocabulary(writer):
    texts = [text for _, text in sorted((byte, text) for byte, text in tiny_llama.byte_alphabet().items())]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*texts, "<|bos|>", "<|eos|>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 2)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(tiny_llama.BOS)
    writer.add_eos_token_id(tiny_llama.EOS)


def write(name, path):
    config, _ = architectures.CONFIGURATIONS[name]
    architecture = NAMES[config["model_type"]]
    writer = gguf.GGUFWriter(str(path), architecture)
    add_shape(writer, config)
    add_rotary(writer, config)
    add_extras(writer, config)
    add_vocabulary(writer)
    layers = config.get("num_hidden_layers") or config["n_layer"]
    kind = next(key for key, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture)
    names = gguf.get_tensor_name_map(kind, layers)
    for tensor, array in stacked(architectures.weights_of(name)).items():
        found = names.get_name(tensor, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(found, numpy.ascontiguousarray(converted(tensor, array, config)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
