"""A Llama checkpoint that says what it is told: every token has one successor, whatever came before.

Embeddings are unit vectors, attention and feed-forward add nothing, and the head's row of a token's successor is the
token's vector. So behind the last token of a prompt comes the script, piece by piece.
"""

import pathlib

import numpy

import safetensors_file
import tiny_llama

BOS, EOS = "<s>", "</s>"
HEAD_DIM = 64  # devices have kernels for it


def write_checkpoint(folder, after, pieces, control, chat_template):
    """The model answers a prompt whose last token is `after` (a byte's character or a control token) with `pieces`,
    which are tokens and must differ, then with its end. `control` are names of control tokens."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = tiny_llama.byte_alphabet()
    vocabulary = {text: byte for byte, text in alphabet.items()}
    special = [BOS, EOS, *control]
    for name in special:
        vocabulary[name] = len(vocabulary)
    ids = []
    for piece in pieces:
        spelled = piece if piece in special else "".join(alphabet[byte] for byte in piece.encode())
        ids.append(vocabulary.setdefault(spelled, len(vocabulary)))
    chain = [vocabulary[after if after in special else alphabet[ord(after)]], *ids, vocabulary[EOS]]
    assert len(set(chain)) == len(chain), "a token has one successor"

    size = len(vocabulary)
    heads = -(-size // HEAD_DIM)
    hidden = heads * HEAD_DIM
    following = numpy.full(size, vocabulary[EOS])
    following[chain[:-1]] = chain[1:]
    head = numpy.zeros((size, hidden), numpy.float32)
    head[following, numpy.arange(size)] = 1
    zero, one = numpy.zeros((hidden, hidden), numpy.float32), numpy.ones(hidden, numpy.float32)
    layer = {"input_layernorm": one, "post_attention_layernorm": one, **{f"self_attn.{name}_proj": zero for name in "qkvo"},
             **{f"mlp.{name}_proj": zero for name in ("gate", "up", "down")}}
    tensors = {"model.embed_tokens.weight": numpy.eye(size, hidden, dtype=numpy.float32), "model.norm.weight": one,
               "lm_head.weight": head, **{f"model.layers.0.{name}.weight": array for name, array in layer.items()}}
    safetensors_file.write(folder / "model.safetensors", tensors, {"format": "pt"})

    added = [(vocabulary[name], name) for name in special]
    tiny_llama.write_json(folder / "tokenizer.json",
                          tiny_llama.tokenizer_json(vocabulary, [], added, tiny_llama.BYTE_LEVEL))
    tiny_llama.write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS, "add_bos_token": False,
        "chat_template": chat_template})
    tiny_llama.write_json(folder / "generation_config.json", {"eos_token_id": [vocabulary[EOS]]})
    tiny_llama.write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
        "intermediate_size": hidden, "num_hidden_layers": 1, "num_attention_heads": heads, "num_key_value_heads": heads,
        "head_dim": HEAD_DIM, "vocab_size": size, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "rope_scaling": None, "torch_dtype": "float32", "tie_word_embeddings": False,
        "attention_bias": False, "mlp_bias": False, "bos_token_id": vocabulary[BOS], "eos_token_id": vocabulary[EOS]})
