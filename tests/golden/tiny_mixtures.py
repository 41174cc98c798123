#!/usr/bin/env python3
"""Small random checkpoints of mixtures of experts and latent attention in Hugging Face form, made with numpy alone.

    tests/golden/tiny_mixtures.py VARIANT DIR      variants: see VARIANTS

Each family comes in configurations that differ in what its router and its attention do.
"""

import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tiny_llama  # noqa: E402

COMMON = {"hidden_act": "silu", "vocab_size": tiny_llama.VOCABULARY, "max_position_embeddings": 512,
          "bos_token_id": tiny_llama.BOS, "eos_token_id": tiny_llama.EOS, "tie_word_embeddings": False}
YARN = {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1}


class Weights:
    """Tensors of a scale that gives logits a few units wide, drawn in the order in which they are added."""

    def __init__(self, seed):
        self.random = numpy.random.RandomState(seed)  # its stream is frozen across numpy versions
        self.tensors = {}

    def matrix(self, name, rows, columns, gain=1.0):
        self.tensors[name] = (self.random.standard_normal((rows, columns)) *
                              (gain / numpy.sqrt(columns))).astype(numpy.float32)

    def stack(self, name, count, rows, columns, gain=1.0):
        self.tensors[name] = (self.random.standard_normal((count, rows, columns)) *
                              (gain / numpy.sqrt(rows))).astype(numpy.float32)

    def vector(self, name, *size, middle=0.0, spread=0.1):
        self.tensors[name] = (middle + spread * self.random.standard_normal(size)).astype(numpy.float32)

    def norm(self, name, size):
        self.vector(name, size, middle=1.0)

    def gated(self, prefix, width, hidden, names=("gate_proj", "up_proj", "down_proj")):
        self.matrix(f"{prefix}.{names[0]}.weight", hidden, width, 1.2)
        self.matrix(f"{prefix}.{names[1]}.weight", hidden, width, 1.2)
        self.matrix(f"{prefix}.{names[2]}.weight", width, hidden)

    def attention(self, prefix, c, bias=()):
        width, head_dim = c["hidden_size"], c["head_dim"]
        q, kv = c["num_attention_heads"] * head_dim, c["num_key_value_heads"] * head_dim
        for name, rows, columns, gain in (("q", q, width, 1.4), ("k", kv, width, 1.4), ("v", kv, width, 1.0),
                                          ("o", width, q, 1.0)):
            self.matrix(f"{prefix}.{name}_proj.weight", rows, columns, gain)
            if name in bias:
                self.vector(f"{prefix}.{name}_proj.bias", rows, spread=0.3)


def ends(w, c, layers):
    """Embedding, the layers' norms and what `layers(prefix, index)` adds, final norm and head."""
    w.matrix("model.embed_tokens.weight", c["vocab_size"], c["hidden_size"], 4.0)
    for i in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{i}"
        w.norm(f"{prefix}.input_layernorm.weight", c["hidden_size"])
        w.norm(f"{prefix}.post_attention_layernorm.weight", c["hidden_size"])
        layers(prefix, i)
    w.norm("model.norm.weight", c["hidden_size"])
    if not c["tie_word_embeddings"]:
        w.matrix("lm_head.weight", c["vocab_size"], c["hidden_size"], 3.0)


def mixtral(w, c):
    def layer(prefix, _):
        w.attention(f"{prefix}.self_attn", c)
        moe = f"{prefix}.block_sparse_moe"
        w.matrix(f"{moe}.gate.weight", c["num_local_experts"], c["hidden_size"], 2.0)
        for e in range(c["num_local_experts"]):
            w.gated(f"{moe}.experts.{e}", c["hidden_size"], c["intermediate_size"], ("w1", "w3", "w2"))
    ends(w, c, layer)


def sparse(c, i):
    return i not in c.get("mlp_only_layers", []) and (i + 1) % c.get("decoder_sparse_step", 1) == 0


def qwen_moe(w, c):
    def layer(prefix, i):
        w.attention(f"{prefix}.self_attn", c, "qkv" if c["model_type"] == "qwen2_moe" else "")
        if c["model_type"] == "qwen3_moe":
            w.norm(f"{prefix}.self_attn.q_norm.weight", c["head_dim"])
            w.norm(f"{prefix}.self_attn.k_norm.weight", c["head_dim"])
        if not sparse(c, i):
            w.gated(f"{prefix}.mlp", c["hidden_size"], c["intermediate_size"])
            return
        w.matrix(f"{prefix}.mlp.gate.weight", c["num_experts"], c["hidden_size"], 2.0)
        for e in range(c["num_experts"]):
            w.gated(f"{prefix}.mlp.experts.{e}", c["hidden_size"], c["moe_intermediate_size"])
        if c["model_type"] == "qwen2_moe":
            w.gated(f"{prefix}.mlp.shared_expert", c["hidden_size"], c["shared_expert_intermediate_size"])
            w.matrix(f"{prefix}.mlp.shared_expert_gate.weight", 1, c["hidden_size"], 2.0)
    ends(w, c, layer)


def latent_attention(w, prefix, c):
    width, heads, rank = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    nope, rope, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    if c["q_lora_rank"]:
        w.matrix(f"{prefix}.q_a_proj.weight", c["q_lora_rank"], width, 1.2)
        w.norm(f"{prefix}.q_a_layernorm.weight", c["q_lora_rank"])
        w.matrix(f"{prefix}.q_b_proj.weight", heads * (nope + rope), c["q_lora_rank"], 1.4)
    else:
        w.matrix(f"{prefix}.q_proj.weight", heads * (nope + rope), width, 1.4)
    w.matrix(f"{prefix}.kv_a_proj_with_mqa.weight", rank + rope, width, 1.4)
    w.norm(f"{prefix}.kv_a_layernorm.weight", rank)
    w.matrix(f"{prefix}.kv_b_proj.weight", heads * (nope + v), rank, 1.2)
    w.matrix(f"{prefix}.o_proj.weight", width, heads * v)
    if c["attention_bias"]:
        if c["q_lora_rank"]:
            w.vector(f"{prefix}.q_a_proj.bias", c["q_lora_rank"], spread=0.3)
        w.vector(f"{prefix}.kv_a_proj_with_mqa.bias", rank + rope, spread=0.3)
        w.vector(f"{prefix}.o_proj.bias", width, spread=0.3)


def deepseek(w, c):
    def layer(prefix, i):
        latent_attention(w, f"{prefix}.self_attn", c)
        if i < c["first_k_dense_replace"]:
            w.gated(f"{prefix}.mlp", c["hidden_size"], c["intermediate_size"])
            return
        w.matrix(f"{prefix}.mlp.gate.weight", c["n_routed_experts"], c["hidden_size"], 2.0)
        if c["model_type"] == "deepseek_v3":
            w.vector(f"{prefix}.mlp.gate.e_score_correction_bias", c["n_routed_experts"], spread=0.2)
        for e in range(c["n_routed_experts"]):
            w.gated(f"{prefix}.mlp.experts.{e}", c["hidden_size"], c["moe_intermediate_size"])
        w.gated(f"{prefix}.mlp.shared_experts", c["hidden_size"], c["moe_intermediate_size"] * c["n_shared_experts"])
    ends(w, c, layer)


def gpt_oss(w, c):
    width, hidden, experts = c["hidden_size"], c["intermediate_size"], c["num_local_experts"]

    def layer(prefix, _):
        w.attention(f"{prefix}.self_attn", c, "qkvo")
        w.vector(f"{prefix}.self_attn.sinks", c["num_attention_heads"], spread=1.0)
        w.matrix(f"{prefix}.mlp.router.weight", experts, width, 2.0)
        w.vector(f"{prefix}.mlp.router.bias", experts, spread=0.5)
        w.stack(f"{prefix}.mlp.experts.gate_up_proj", experts, width, 2 * hidden, 3.0)
        w.vector(f"{prefix}.mlp.experts.gate_up_proj_bias", experts, 2 * hidden, spread=0.3)
        w.stack(f"{prefix}.mlp.experts.down_proj", experts, hidden, width, 0.4)
        w.vector(f"{prefix}.mlp.experts.down_proj_bias", experts, width, spread=0.3)
    ends(w, c, layer)


def dense_attention(heads, kv_heads, head_dim):
    return {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}


def latents(heads, rank, nope, rope, v, q_rank=None, bias=False):
    return {"num_attention_heads": heads, "num_key_value_heads": heads, "kv_lora_rank": rank, "q_lora_rank": q_rank,
            "qk_nope_head_dim": nope, "qk_rope_head_dim": rope, "v_head_dim": v, "attention_bias": bias}


def variant(family, seed, architecture, model_type, dtype="float32", **config):
    return {"family": family, "seed": seed, "dtype": dtype,
            "config": {"architectures": [architecture], "model_type": model_type, "torch_dtype": dtype, **COMMON,
                       **config}}


VARIANTS = {
    "mixtral": variant(mixtral, 31, "MixtralForCausalLM", "mixtral", hidden_size=64, num_hidden_layers=3,
                       **dense_attention(4, 2, 16), intermediate_size=48, num_local_experts=4, num_experts_per_tok=2,
                       rms_norm_eps=1e-5, rope_theta=1e6, sliding_window=None),
    "mixtral_bf16": variant(mixtral, 32, "MixtralForCausalLM", "mixtral", "bfloat16", hidden_size=96,
                            num_hidden_layers=2, **dense_attention(6, 1, 32), intermediate_size=80,
                            num_local_experts=8, num_experts_per_tok=3, rms_norm_eps=1e-5, rope_theta=1e4,
                            sliding_window=None),
    "qwen2_moe": variant(qwen_moe, 33, "Qwen2MoeForCausalLM", "qwen2_moe", hidden_size=64, num_hidden_layers=3,
                         **dense_attention(4, 2, 16), intermediate_size=96, moe_intermediate_size=32,
                         shared_expert_intermediate_size=80, num_experts=6, num_experts_per_tok=2,
                         norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[], rms_norm_eps=1e-6,
                         rope_theta=1e6, use_sliding_window=False),
    "qwen2_moe_mixed": variant(qwen_moe, 34, "Qwen2MoeForCausalLM", "qwen2_moe", hidden_size=64,
                               num_hidden_layers=3, **dense_attention(2, 1, 32), intermediate_size=96,
                               moe_intermediate_size=48, shared_expert_intermediate_size=48, num_experts=4,
                               num_experts_per_tok=3, norm_topk_prob=True, decoder_sparse_step=1,
                               mlp_only_layers=[1], rms_norm_eps=1e-6, rope_theta=1e4, use_sliding_window=False),
    "qwen3_moe": variant(qwen_moe, 35, "Qwen3MoeForCausalLM", "qwen3_moe", hidden_size=64, num_hidden_layers=3,
                         **dense_attention(4, 2, 32), intermediate_size=96, moe_intermediate_size=32, num_experts=8,
                         num_experts_per_tok=3, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[],
                         rms_norm_eps=1e-6, rope_theta=1e6, use_sliding_window=False, attention_bias=False),
    "qwen3_moe_mixed": variant(qwen_moe, 36, "Qwen3MoeForCausalLM", "qwen3_moe", "bfloat16", hidden_size=64,
                               num_hidden_layers=4, **dense_attention(4, 1, 16), intermediate_size=96,
                               moe_intermediate_size=48, num_experts=5, num_experts_per_tok=2, norm_topk_prob=False,
                               decoder_sparse_step=2, mlp_only_layers=[], rms_norm_eps=1e-6, rope_theta=1e4,
                               use_sliding_window=False, attention_bias=False),
    "deepseek_v2_lite": variant(deepseek, 37, "DeepseekV2ForCausalLM", "deepseek_v2", hidden_size=64,
                                num_hidden_layers=3, **latents(4, 32, 16, 8, 16), intermediate_size=96,
                                moe_intermediate_size=32, n_routed_experts=6, n_shared_experts=2,
                                num_experts_per_tok=2, first_k_dense_replace=1, topk_method="greedy", n_group=1,
                                topk_group=1, routed_scaling_factor=1.0, norm_topk_prob=False,
                                scoring_func="softmax", rms_norm_eps=1e-6, rope_theta=1e4),
    "deepseek_v2": variant(deepseek, 38, "DeepseekV2ForCausalLM", "deepseek_v2", hidden_size=96, num_hidden_layers=3,
                           **latents(6, 48, 32, 16, 32, q_rank=40), intermediate_size=96, moe_intermediate_size=16,
                           n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=3, first_k_dense_replace=1,
                           topk_method="group_limited_greedy", n_group=4, topk_group=2, routed_scaling_factor=4.0,
                           norm_topk_prob=False, scoring_func="softmax", rms_norm_eps=1e-6, rope_theta=1e4,
                           rope_scaling=dict(YARN, mscale=0.707, mscale_all_dim=0.707)),
    "deepseek_v3": variant(deepseek, 39, "DeepseekV3ForCausalLM", "deepseek_v3", hidden_size=64, num_hidden_layers=3,
                           **latents(4, 32, 16, 16, 32, q_rank=48), intermediate_size=96, moe_intermediate_size=32,
                           n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4, first_k_dense_replace=1,
                           topk_method="noaux_tc", n_group=4, topk_group=2, routed_scaling_factor=2.5,
                           norm_topk_prob=True, scoring_func="sigmoid", rms_norm_eps=1e-6, rope_theta=1e4,
                           num_nextn_predict_layers=0,
                           rope_scaling=dict(YARN, mscale=1.0, mscale_all_dim=1.0)),
    "deepseek_v3_half": variant(deepseek, 40, "DeepseekV3ForCausalLM", "deepseek_v3", "bfloat16", hidden_size=64,
                                num_hidden_layers=2, **latents(2, 64, 32, 16, 16, bias=True), intermediate_size=96,
                                moe_intermediate_size=48, n_routed_experts=4, n_shared_experts=2,
                                num_experts_per_tok=2, first_k_dense_replace=0, topk_method="noaux_tc", n_group=1,
                                topk_group=1, routed_scaling_factor=1.0, norm_topk_prob=False,
                                scoring_func="sigmoid", rms_norm_eps=1e-5, rope_theta=5e4, rope_interleave=False,
                                num_nextn_predict_layers=0),
    "gpt_oss": variant(gpt_oss, 41, "GptOssForCausalLM", "gpt_oss", hidden_size=64, num_hidden_layers=4,
                       **dense_attention(4, 2, 16), intermediate_size=48, num_local_experts=6, num_experts_per_tok=2,
                       rms_norm_eps=1e-5, rope_theta=150000.0, sliding_window=24, attention_bias=True,
                       swiglu_limit=7.0, rope_scaling=dict(YARN, rope_type="yarn", truncate=False)),
    "gpt_oss_bf16": variant(gpt_oss, 42, "GptOssForCausalLM", "gpt_oss", "bfloat16", hidden_size=96,
                            num_hidden_layers=3, **dense_attention(4, 1, 32), intermediate_size=64,
                            num_local_experts=4, num_experts_per_tok=3, rms_norm_eps=1e-5, rope_theta=10000.0,
                            sliding_window=16, attention_bias=True, swiglu_limit=7.0,
                            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
                            rope_scaling={"rope_type": "yarn", "factor": 4.0, "truncate": False,
                                          "original_max_position_embeddings": 128, "beta_fast": 32.0,
                                          "beta_slow": 1.0}),
}


def write_checkpoint(name, folder):
    v = VARIANTS[name]
    w = Weights(v["seed"])
    v["family"](w, v["config"])
    tensors = w.tensors
    if v["dtype"] == "bfloat16":
        tensors = {tensor: tiny_llama.to_bfloat16(array) for tensor, array in tensors.items()}
    tiny_llama.write_files(folder, v["config"], tensors)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in VARIANTS:
        sys.exit(f"{__doc__}\nvariants: {', '.join(VARIANTS)}")
    write_checkpoint(sys.argv[1], sys.argv[2])
