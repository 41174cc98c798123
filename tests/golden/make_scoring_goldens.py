#!/usr/bin/env python3
"""Makes data/scoring.json from transformers in float32 on the CPU, or compares it with a new making.

    tests/golden/make_scoring_goldens.py [--compare]

Needs the packages of requirements.txt beside it; the test that reads the file does not. For each model: embeddings,
the last layer's normed hidden states pooled in three ways, and scores, the log-likelihood of each ending of
scoring_items.py with whether it is what greedy decoding would write.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import dequantize_gguf  # noqa: E402
import models  # noqa: E402
import scoring_items  # noqa: E402
import tiny_llama  # noqa: E402

FILE = pathlib.Path(__file__).resolve().parent / "data" / "scoring.json"
TINY_ITEMS = 12


def encode_pair(encode, context, continuation):
    """The border between the two as lm-evaluation-harness draws it."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    before, whole = encode(context), encode(context + continuation)
    return before, whole[len(before):]


@torch.no_grad()
def score(model, before, after):
    ids = before + after
    logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)[len(before) - 1:-1]
    wanted = torch.tensor(after)
    return [round(float(logprobs.gather(1, wanted[:, None]).sum()), 5), len(after),
            bool((logprobs.argmax(-1) == wanted).all())]


@torch.no_grad()
def pooled(model, ids):
    """Of the hidden states after the last norm: those that the head makes the logits of."""
    out = model(torch.tensor([ids]), output_hidden_states=True)
    states = out.hidden_states[-1][0]
    assert torch.equal(model.lm_head(states), out.logits[0]), "the last hidden states are not the head's input"
    states = states.double()
    return {"tokens": len(ids), **{name: [round(float(v), 6) for v in vector] for name, vector in
                                   (("mean", states.mean(0)), ("last", states[-1]), ("cls", states[0]))}}


def make(folder, encode, count):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    scores = [[score(model, *encode_pair(encode, context, ending)) for ending in endings]
              for context, endings, _ in scoring_items.items()[:count]]
    return {"embeddings": [pooled(model, encode(text)) for text in scoring_items.SENTENCES], "scores": scores}


def make_all():
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in ("plain", "rope3"):
            path = pathlib.Path(folder, variant)
            tiny_llama.write_checkpoint(variant, path)
            golden[f"tiny-{variant}"] = make(path, lambda text: list(text.encode()), TINY_ITEMS)
        source = models.smollm2_gguf()
        if source is None:
            sys.exit("SmolLM2's GGUF file is neither in the cache nor on the package index")
        path = pathlib.Path(folder, "smollm2")
        dequantize_gguf.convert(source, path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        golden["smollm2-float32"] = make(
            path, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], None)
    return golden


def flat(value):
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in flat(value[key])]
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, list) else [value]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--compare", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    golden = make_all()
    if arguments.compare:
        old, new = flat(json.loads(FILE.read_text(encoding="utf-8"))), flat(golden)
        apart = max((abs(a - b) for a, b in zip(old, new)), default=0) if len(old) == len(new) else float("inf")
        print(f"{FILE.name}: apart by {apart:g}")
        return 0 if apart <= 1e-3 else 1
    lines = [f'"{name}":{{"embeddings":[\n' + ",\n".join(json.dumps(e, separators=(",", ":")) for e in one["embeddings"])
             + '\n],"scores":[\n' + ",\n".join(json.dumps(s, separators=(",", ":")) for s in one["scores"]) + "\n]}"
             for name, one in golden.items()]
    FILE.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    print(f"{FILE.name}: {FILE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
