"""Prints tests/unit/blockzoo/rotary_reference.inc: rotary frequencies as transformers computes them.

    python tests/golden/rotary_reference.py > tests/unit/blockzoo/rotary_reference.inc
"""

from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

DIM = 16
BASE = 10000.0
SHORT = [1.0 + 0.05 * i for i in range(DIM // 2)]
LONG = [1.0 + 1.5 * i for i in range(DIM // 2)]

# (our name, transformers' name, its parameters, context of the model, length of the sequence)
CASES = [
    ("linear", "linear", {"factor": 4.0}, 4096, None),
    ("dynamic short", "dynamic", {"factor": 2.0}, 2048, 1000),
    ("dynamic long", "dynamic", {"factor": 2.0}, 2048, 8192),
    ("yarn", "yarn", {"factor": 8.0, "original_max_position_embeddings": 4096}, 32768, None),
    (
        "yarn whole",
        "yarn",
        {
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
        131072,
        None,
    ),
    (
        "yarn mscale",
        "yarn",
        {
            "factor": 40.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "mscale": 0.8,
            "mscale_all_dim": 0.5,
        },
        163840,
        None,
    ),
    (
        "longrope short",
        "longrope",
        {
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "short_factor": SHORT,
            "long_factor": LONG,
        },
        131072,
        4096,
    ),
    (
        "longrope long",
        "longrope",
        {
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "short_factor": SHORT,
            "long_factor": LONG,
        },
        131072,
        4097,
    ),
    (
        "llama3",
        "llama3",
        {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        131072,
        None,
    ),
]


def main():
    print("// Made by tests/golden/rotary_reference.py: {case, scale, {frequencies}}.")
    for name, kind, parameters, context, length in CASES:
        config = LlamaConfig(
            hidden_size=DIM,
            num_attention_heads=1,
            head_dim=DIM,
            max_position_embeddings=context,
            rope_parameters={"rope_type": kind, "rope_theta": BASE, **parameters},
        )
        frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
        values = ", ".join(f"{value:.9g}" for value in frequencies.double().tolist())
        print(f'{{"{name}", {scale:.9g}, {{{values}}}}},')


if __name__ == "__main__":
    main()
