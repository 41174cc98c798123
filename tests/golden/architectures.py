#!/usr/bin/env python3
"""Small random checkpoints of each architecture in Hugging Face form, the same bytes each time, made with numpy alone.

    tests/golden/architectures.py NAME DIR      names: see CONFIGURATIONS

An entry is what config.json says and which tensors there are; what an architecture's settings can vary is varied
among its entries. To add one: an entry, and its reference by `make_goldens.py --only arch_NAME`.
"""

import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tiny_llama  # noqa: E402

VOCABULARY = tiny_llama.VOCABULARY
CONTEXT = 512


def matrix(rows, columns, gain=1.0):
    return ("matrix", (rows, columns), gain)


def norm(*shape):
    return ("norm", shape, 1.0)


def shift(*shape):
    """A norm that multiplies by 1 + w."""
    return ("bias", shape, 0.1)


def bias(size):
    return ("bias", (size,), 0.2)


def head_size(c):
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def linear(out, columns, gain, biased, name):
    yield f"{name}.weight", matrix(out, columns, gain)
    if biased:
        yield f"{name}.bias", bias(out)


def llama(c, qkv_bias=False, o_bias=False, mlp_bias=False, qk_norm=None, scale=norm, layer_bias=False, names=(),
          parallel=False, table=4.0, inner=norm):
    """Llama's names. `names` are the norms of a layer; with layer_bias they have biases."""
    width, hidden, head = c["hidden_size"], c["intermediate_size"], head_size(c)
    q, kv = c["num_attention_heads"] * head, c.get("num_key_value_heads", c["num_attention_heads"]) * head
    yield "model.embed_tokens.weight", matrix(VOCABULARY, width, table)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        for name in names or (["input_layernorm"] if parallel else ["input_layernorm", "post_attention_layernorm"]):
            yield f"{p}{name}.weight", scale(width)
            if layer_bias:
                yield f"{p}{name}.bias", bias(width)
        yield from linear(q, width, 1.4, qkv_bias, p + "self_attn.q_proj")
        yield from linear(kv, width, 1.4, qkv_bias, p + "self_attn.k_proj")
        yield from linear(kv, width, 1.0, qkv_bias, p + "self_attn.v_proj")
        yield from linear(width, q, 1.0, o_bias, p + "self_attn.o_proj")
        if qk_norm == "head":
            yield p + "self_attn.q_norm.weight", inner(head)
            yield p + "self_attn.k_norm.weight", inner(head)
        elif qk_norm == "full":
            yield p + "self_attn.q_norm.weight", norm(q)
            yield p + "self_attn.k_norm.weight", norm(kv)
        elif qk_norm == "heads":
            yield p + "self_attn.q_norm.weight", norm(q // head, head)
            yield p + "self_attn.k_norm.weight", norm(kv // head, head)
        elif qk_norm == "modules":
            for kind, count in (("q", q // head), ("k", kv // head)):
                for k in range(count):
                    yield f"{p}self_attn.{kind}_layernorm.norms.{k}.weight", norm(head)
        yield from linear(hidden, width, 1.2, mlp_bias, p + "mlp.gate_proj")
        yield from linear(hidden, width, 1.2, mlp_bias, p + "mlp.up_proj")
        yield from linear(width, hidden, 1.0, mlp_bias, p + "mlp.down_proj")
    yield "model.norm.weight", scale(width)
    if layer_bias:
        yield "model.norm.bias", bias(width)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", matrix(VOCABULARY, width, 3.0)


def gemma(c, names=(), qk_norm=None):
    return llama(c, names=names, scale=shift, inner=shift, qk_norm=qk_norm, table=1.0)


SANDWICH = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")


def phi3(c):
    """Llama's with fused projections."""
    width, hidden, head = c["hidden_size"], c["intermediate_size"], head_size(c)
    rows = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * head
    for name, tensor in llama(c):
        if name.endswith("q_proj.weight"):
            yield name.replace("q_proj", "qkv_proj"), matrix(rows, width, 1.3)
        elif name.endswith("gate_proj.weight"):
            yield name.replace("gate_proj", "gate_up_proj"), matrix(2 * hidden, width, 1.2)
        elif not name.endswith(("k_proj.weight", "v_proj.weight", "up_proj.weight")):
            yield name, tensor


def normed(name, width):
    yield f"{name}.weight", norm(width)
    yield f"{name}.bias", bias(width)


def gpt2(c, prefix="transformer."):
    """Matrices are [in, out]."""
    width, hidden = c["n_embd"], c.get("n_inner") or 4 * c["n_embd"]
    yield prefix + "wte.weight", matrix(VOCABULARY, width, 3.0)
    yield prefix + "wpe.weight", matrix(c["n_positions"], width, 1.5)
    for i in range(c["n_layer"]):
        p = f"{prefix}h.{i}."
        yield from normed(p + "ln_1", width)
        yield from normed(p + "ln_2", width)
        for name, columns, rows in (("attn.c_attn", width, 3 * width), ("attn.c_proj", width, width),
                                    ("mlp.c_fc", width, hidden), ("mlp.c_proj", hidden, width)):
            # matrix() divides by the square root of its second size.
            yield f"{p}{name}.weight", matrix(columns, rows, 1.2 * (rows / columns) ** 0.5)
            yield f"{p}{name}.bias", bias(rows)
    yield from normed(prefix + "ln_f", width)


def gpt_neox(c):
    width, hidden = c["hidden_size"], c["intermediate_size"]
    yield "gpt_neox.embed_in.weight", matrix(VOCABULARY, width, 4.0)
    for i in range(c["num_hidden_layers"]):
        p = f"gpt_neox.layers.{i}."
        yield from normed(p + "input_layernorm", width)
        yield from normed(p + "post_attention_layernorm", width)
        yield from linear(3 * width, width, 1.3, c.get("attention_bias", True), p + "attention.query_key_value")
        yield from linear(width, width, 1.0, c.get("attention_bias", True), p + "attention.dense")
        yield from linear(hidden, width, 1.2, True, p + "mlp.dense_h_to_4h")
        yield from linear(width, hidden, 1.2, True, p + "mlp.dense_4h_to_h")
    yield from normed("gpt_neox.final_layer_norm", width)
    yield "embed_out.weight", matrix(VOCABULARY, width, 3.0)


def usual(model_class, model_type, width=64, hidden=160, layers=4, heads=4, kv_heads=2, tied=False, **more):
    config = {"architectures": [model_class], "model_type": model_type, "hidden_size": width,
              "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT,
              "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": tied, "rope_theta": 10000.0}
    return {**config, **more}


def local_and_global(*pattern):
    return ["sliding_attention" if local else "full_attention" for local in pattern]


FACTORS = [1.0 + 0.25 * i for i in range(32)]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = {"type": "longrope", "short_factor": FACTORS[:6], "long_factor": [2 * f for f in FACTORS[:6]]}
GEMMA = dict(hidden_activation="gelu_pytorch_tanh", hidden_act="gelu_pytorch_tanh", head_dim=24, tied=True)

# Name: config.json, tensors.
CONFIGURATIONS = {
    "falcon3": (usual("LlamaForCausalLM", "llama", head_dim=32, kv_heads=1, rope_theta=1000042), llama),
    "llama-yarn": (usual("LlamaForCausalLM", "llama", attention_bias=True, mlp_bias=True, rope_scaling=YARN),
                   lambda c: llama(c, qkv_bias=True, o_bias=True, mlp_bias=True)),
    "llama-linear": (usual("LlamaForCausalLM", "llama", kv_heads=4,
                           rope_scaling={"type": "linear", "factor": 2.5}), llama),
    "llama-dynamic": (usual("LlamaForCausalLM", "llama", rope_scaling={"type": "dynamic", "factor": 3.0}), llama),
    "mistral": (usual("MistralForCausalLM", "mistral", sliding_window=24), llama),
    "ministral": (usual("MinistralForCausalLM", "ministral", head_dim=32, sliding_window=40,
                        layer_types=local_and_global(1, 0, 1, 1), rope_parameters={
                            "rope_type": "default", "rope_theta": 50000.0}), llama),
    "qwen2": (usual("Qwen2ForCausalLM", "qwen2", tied=True, use_sliding_window=False, sliding_window=8,
                    max_window_layers=1), lambda c: llama(c, qkv_bias=True)),
    "qwen2-window": (usual("Qwen2ForCausalLM", "qwen2", heads=6, width=96, kv_heads=3, use_sliding_window=True,
                           sliding_window=20, max_window_layers=2), lambda c: llama(c, qkv_bias=True)),
    "qwen3": (usual("Qwen3ForCausalLM", "qwen3", head_dim=32, rope_theta=1000000.0, tied=True),
              lambda c: llama(c, qk_norm="head")),
    "qwen3-yarn": (usual("Qwen3ForCausalLM", "qwen3", head_dim=16, kv_heads=4, attention_bias=True,
                         rope_parameters={"rope_theta": 500000.0, "attention_factor": 1.25, "beta_fast": 16.0,
                                          "beta_slow": 2.0, **YARN}),
                   lambda c: llama(c, qk_norm="head", qkv_bias=True, o_bias=True)),
    "gemma": (usual("GemmaForCausalLM", "gemma", kv_heads=1, **{**GEMMA, "hidden_act": "gelu"}), gemma),
    "gemma2": (usual("Gemma2ForCausalLM", "gemma2", sliding_window=16, query_pre_attn_scalar=24,
                     attn_logit_softcapping=3.0, final_logit_softcapping=12.0, **GEMMA),
               lambda c: gemma(c, SANDWICH)),
    "gemma2-plain": (usual("Gemma2ForCausalLM", "gemma2", kv_heads=4, sliding_window=1000, query_pre_attn_scalar=16,
                           attn_logit_softcapping=None, final_logit_softcapping=None, **GEMMA),
                     lambda c: gemma(c, SANDWICH)),
    "gemma3": (usual("Gemma3ForCausalLM", "gemma3_text", layers=7, sliding_window=20, query_pre_attn_scalar=24,
                     sliding_window_pattern=3, rope_local_base_freq=1000.0, kv_heads=1,
                     rope_scaling={"rope_type": "linear", "factor": 8.0}, **{**GEMMA, "rope_theta": 1000000.0}),
               lambda c: gemma(c, SANDWICH, "head")),
    "gemma3-nested": (usual("Gemma3ForCausalLM", "gemma3_text", sliding_window=600, query_pre_attn_scalar=32,
                            layer_types=local_and_global(1, 0, 0, 1), rope_parameters={
                                "full_attention": {"rope_type": "default", "rope_theta": 200000.0},
                                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}, **GEMMA),
                      lambda c: gemma(c, SANDWICH, "head")),
    "phi3": (usual("Phi3ForCausalLM", "phi3", sliding_window=32, original_max_position_embeddings=CONTEXT,
                   pad_token_id=0), phi3),
    "phi3-short": (usual("Phi3ForCausalLM", "phi3", tied=True, partial_rotary_factor=0.75, kv_heads=4,
                         original_max_position_embeddings=CONTEXT, rope_scaling=LONGROPE, pad_token_id=0), phi3),
    "phi3-long": (usual("Phi3ForCausalLM", "phi3", partial_rotary_factor=0.75, original_max_position_embeddings=4,
                        rope_scaling=LONGROPE, pad_token_id=0), phi3),
    "smollm3": (usual("SmolLM3ForCausalLM", "smollm3", tied=True, no_rope_layer_interval=4, pad_token_id=0), llama),
    "smollm3-list": (usual("SmolLM3ForCausalLM", "smollm3", kv_heads=1, no_rope_layers=[0, 1, 1, 0],
                           use_sliding_window=True, sliding_window=24, attention_bias=True, pad_token_id=0,
                           layer_types=local_and_global(1, 0, 0, 1)),
                     lambda c: llama(c, qkv_bias=True, o_bias=True)),
    "olmo2": (usual("Olmo2ForCausalLM", "olmo2", kv_heads=4),
              lambda c: llama(c, qk_norm="full", names=SANDWICH[1::2])),
    "olmo2-grouped": (usual("Olmo2ForCausalLM", "olmo2", width=96, heads=6, kv_heads=2, tied=True,
                            rope_theta=500000.0), lambda c: llama(c, qk_norm="full", names=SANDWICH[1::2])),
    "granite": (usual("GraniteForCausalLM", "granite", tied=True, embedding_multiplier=6.0, attention_multiplier=0.1,
                      residual_multiplier=0.3, logits_scaling=4.0), llama),
    "granite-wide": (usual("GraniteForCausalLM", "granite", width=96, heads=3, kv_heads=1, embedding_multiplier=1.0,
                           attention_multiplier=0.25, residual_multiplier=1.0, logits_scaling=0.5), llama),
    "stablelm": (usual("StableLmForCausalLM", "stablelm", kv_heads=4, use_qkv_bias=True, layer_norm_eps=1e-5,
                       partial_rotary_factor=0.25), lambda c: llama(c, qkv_bias=True, layer_bias=True)),
    "stablelm-parallel": (usual("StableLmForCausalLM", "stablelm", use_parallel_residual=True, qk_layernorm=True,
                                layer_norm_eps=1e-5, partial_rotary_factor=0.5),
                          lambda c: llama(c, qk_norm="modules", layer_bias=True, parallel=True)),
    "gpt2": ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 64, "n_layer": 4, "n_head": 4,
              "n_positions": CONTEXT, "n_ctx": CONTEXT, "vocab_size": VOCABULARY, "layer_norm_epsilon": 1e-5,
              "activation_function": "gelu_new", "tie_word_embeddings": True}, gpt2),
    "gpt2-inner": ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 96, "n_layer": 3,
                    "n_head": 3, "n_inner": 160, "n_positions": CONTEXT, "vocab_size": VOCABULARY,
                    "layer_norm_epsilon": 1e-6, "activation_function": "gelu", "scale_attn_weights": False},
                   lambda c: gpt2(c, "")),
    "gpt-neox": (usual("GPTNeoXForCausalLM", "gpt_neox", kv_heads=4, hidden_act="gelu", rotary_pct=0.25,
                       rotary_emb_base=10000, layer_norm_eps=1e-5, use_parallel_residual=True), gpt_neox),
    "gpt-neox-sequential": (usual("GPTNeoXForCausalLM", "gpt_neox", width=96, heads=3, kv_heads=3,
                                  hidden_act="gelu_fast", attention_bias=False, rotary_pct=0.5,
                                  rotary_emb_base=30000, layer_norm_eps=1e-6, use_parallel_residual=False), gpt_neox),
    "cohere": (usual("CohereForCausalLM", "cohere", tied=True, layer_norm_eps=1e-5, logit_scale=0.5,
                     rope_theta=75000.0), lambda c: llama(c, parallel=True)),
    "cohere-normed": (usual("CohereForCausalLM", "cohere", width=96, heads=6, kv_heads=6, tied=True,
                            layer_norm_eps=1e-5, logit_scale=0.25, use_qk_norm=True, attention_bias=True),
                      lambda c: llama(c, parallel=True, qk_norm="heads", qkv_bias=True, o_bias=True)),
}


def seed_of(name):
    return sum(ord(letter) * (i + 1) for i, letter in enumerate(name))


def config_of(name):
    return {"bos_token_id": tiny_llama.BOS, "eos_token_id": tiny_llama.EOS, "torch_dtype": "float32",
            **CONFIGURATIONS[name][0]}


def weights_of(name):
    config, tensors = CONFIGURATIONS[name]
    random = numpy.random.RandomState(seed_of(name))  # its stream is frozen across numpy versions
    made = {}
    for tensor, (kind, shape, gain) in tensors(config):
        values = random.standard_normal(shape)
        if kind == "matrix":
            values *= gain / numpy.sqrt(shape[1])
        elif kind == "norm":
            values = 1.0 + 0.1 * values
        else:
            values *= gain
        made[tensor] = values.astype(numpy.float32)
    return made


def write_checkpoint(name, folder):
    tiny_llama.write_files(folder, config_of(name), weights_of(name))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in CONFIGURATIONS:
        sys.exit(f"{__doc__}\nnames: {', '.join(CONFIGURATIONS)}")
    write_checkpoint(sys.argv[1], sys.argv[2])
