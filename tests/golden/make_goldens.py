#!/usr/bin/env python3
"""Makes the golden files from transformers in float32 on the CPU, or compares them with a new making.

    tests/golden/make_goldens.py [--compare] [--only NAME]...

Needs the packages of requirements.txt beside it; the tests that read the files do not. A case is a prompt (ids), the
greedy continuation, and for each step: the gap between the two largest logits, the largest absolute logit (the
scale of a relative tolerance), and the ids and log-probabilities of the top few.
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
import architectures  # noqa: E402
import dequantize_gguf  # noqa: E402
import models  # noqa: E402
import tiny_llama  # noqa: E402
import tiny_mixtures  # noqa: E402

FOLDER = pathlib.Path(__file__).resolve().parent / "data"
TINY_STEPS, TINY_TOP, SMOLLM2_STEPS, SMOLLM2_TOP = 24, 8, 32, 5
# One token, a part of a page, one token less and more than a 64-token page, and several pages.
TINY_LENGTHS = [1, 7, 63, 64, 65, 150]
# Of each configuration of an architecture: within a window, over a page, over several windows.
ARCHITECTURE_STEPS, ARCHITECTURE_TOP, ARCHITECTURE_LENGTHS = 12, 6, [9, 65, 150]
# Text, and whether it is a user's turn of a chat.
SMOLLM2_PROMPTS = [
    ("The capital of France is", False),
    ("Once upon a time, there was a", False),
    ("def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n", False),
    ("Water boils at 100 degrees", False),
    ("The three primary colours are red,", False),
    ("1, 2, 3, 4, 5, 6,", False),
    ("Explain in one sentence why the sky is blue.", True),
    ("What is 12 plus 30?", True),
    ("Name three kinds of trees.", True),
    ("Translate 'good morning' to Spanish.", True),
    ("List the days of the week.", True),
    ("Photosynthesis is the process by which plants use sunlight, water and carbon dioxide to make their own food. "
     "It takes place in the leaves, where chlorophyll absorbs light. The oxygen that is set free in this process is "
     "what most living things on Earth breathe, and the sugar feeds the plant and whatever eats it. In short,", False),
]


def tiny_prompt(length, seed):
    """Ids from a linear congruential generator: no library decides them."""
    state, ids = seed * 7919 + length, [tiny_llama.BOS]
    while len(ids) < length:
        state = (state * 1103515245 + 12345) % (1 << 31)
        ids.append(state // 65536 % 256)
    return ids[:length]


@torch.no_grad()
def greedy(model, ids, steps, top):
    """The greedy continuation of ids; end tokens do not stop it."""
    tokens, out, cache = torch.tensor([ids]), [], None
    result = {"prompt": ids, "tokens": [], "gap": [], "scale": [], "top": []}
    for _ in range(steps):
        out = model(tokens, past_key_values=cache, use_cache=True)
        cache, logits = out.past_key_values, out.logits[0, -1].double()
        best = torch.topk(logits, 2)
        # topk breaks ties at will; the lowest id wins here, as in Tessera.
        token = int((logits == logits.max()).nonzero()[0])
        logprobs = torch.log_softmax(logits, -1)
        leaders = torch.topk(logprobs, top)
        result["tokens"].append(token)
        result["gap"].append(round(float(best.values[0] - best.values[1]), 5))
        result["scale"].append(round(float(logits.abs().max()), 3))
        result["top"].append([[int(i), round(float(v), 5)] for v, i in zip(leaders.values, leaders.indices)])
        tokens = torch.tensor([[token]])
    return result


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()


def make_tiny(family, variant):
    with tempfile.TemporaryDirectory() as folder:
        family.write_checkpoint(variant, folder)
        model = load(folder)
        seed = family.VARIANTS[variant]["seed"]
        return {"model": f"tiny {variant}",
                "cases": [greedy(model, tiny_prompt(n, seed), TINY_STEPS, TINY_TOP) for n in TINY_LENGTHS]}


def make_architecture(name):
    with tempfile.TemporaryDirectory() as folder:
        architectures.write_checkpoint(name, folder)
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        # A tensor that the reference fills by itself would be compared with nothing.
        unused = {key: sorted(loading[key]) for key in ("missing_keys", "unexpected_keys") if loading[key]}
        if unused:
            sys.exit(f"{name}: {unused}")
        seed = architectures.seed_of(name)
        return {"model": f"architecture {name}",
                "cases": [greedy(model.eval(), tiny_prompt(n, seed), ARCHITECTURE_STEPS, ARCHITECTURE_TOP)
                          for n in ARCHITECTURE_LENGTHS]}


def make_smollm2():
    path = models.smollm2_gguf()
    if path is None:
        sys.exit("SmolLM2's GGUF file is neither in the cache nor on the package index")
    with tempfile.TemporaryDirectory() as folder:
        dequantize_gguf.convert(path, folder)
        model, tokenizer = load(folder), transformers.AutoTokenizer.from_pretrained(folder)
        cases = []
        for text, chat in SMOLLM2_PROMPTS:
            whole = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False,
                                                  add_generation_prompt=True) if chat else text
            ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
            case = {"text": text, "chat": chat, **greedy(model, ids, SMOLLM2_STEPS, SMOLLM2_TOP)}
            case["continuation"] = tokenizer.decode(case["tokens"])
            cases.append(case)
        return {"model": "SmolLM2-135M-Instruct Q4_1, dequantized to float32", "cases": cases}


GEMMA3_PROMPTS = [
    "The capital of France is", "Once upon a time, there was a", "Water boils at 100 degrees", "1, 2, 3, 4, 5, 6,",
    "The three primary colours are red,", "def add(a, b):\n    return", "In the year 1969, the first man walked on",
    "A cat is an animal that", "To make bread, you need flour,", "The opposite of hot is",
    "Photosynthesis is the process by which plants use sunlight, water and carbon dioxide to make their own food. "
    "It takes place in the leaves, where chlorophyll absorbs light. In short,",
]


def make_gemma3():
    """The published weights, dequantized by transformers; the ids are stored, so that no tokenizer matters."""
    path = models.gemma3_gguf()
    if path is None:
        sys.exit("Gemma 3's GGUF file is neither in the cache nor on the package index")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    cases = []
    for text in GEMMA3_PROMPTS:
        ids = [model.config.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        cases.append({"text": text, **greedy(model, ids, SMOLLM2_STEPS, SMOLLM2_TOP)})
    return {"model": "Gemma 3 270M Q4_K_M, dequantized to float32", "cases": cases}


def makers():
    table = {f"tiny_{variant}": (lambda f=family, v=variant: make_tiny(f, v))
             for family in (tiny_llama, tiny_mixtures) for variant in family.VARIANTS}
    table.update({f"arch_{name}": (lambda n=name: make_architecture(n)) for name in architectures.CONFIGURATIONS})
    table["smollm2"] = make_smollm2
    table["gemma3"] = make_gemma3
    return table


def dump(golden):
    """One case a line, so that a change shows where it is."""
    cases = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in golden["cases"])
    return f'{{"model":{json.dumps(golden["model"])},"cases":[\n{cases}\n]}}\n'


def differences(old, new):
    """What differs between two makings by more than float32 noise; a choice may differ only where it was close."""
    if len(old["cases"]) != len(new["cases"]):
        yield "another number of cases"
    for number, (a, b) in enumerate(zip(old["cases"], new["cases"])):
        if a["prompt"] != b["prompt"]:
            yield f"case {number}: another prompt"
            continue
        for step, (x, y) in enumerate(zip(a["tokens"], b["tokens"])):
            tolerance = 2e-4 * max(1.0, a["scale"][step])
            if abs(a["top"][step][0][1] - b["top"][step][0][1]) > tolerance:
                yield f"case {number} step {step}: {a['top'][step][0]} became {b['top'][step][0]}"
            if x != y:
                if a["gap"][step] > tolerance:
                    yield f"case {number} step {step}: token {x} became {y}, gap {a['gap'][step]}"
                break


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--only", action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    failed = False
    FOLDER.mkdir(exist_ok=True)
    for name, make in makers().items():
        if arguments.only and name not in arguments.only:
            continue
        path, golden = FOLDER / f"{name}.json", make()
        if not arguments.compare:
            path.write_text(dump(golden), encoding="utf-8")
            print(f"{path.name}: {len(golden['cases'])} cases, {path.stat().st_size} bytes")
            continue
        found = list(differences(json.loads(path.read_text(encoding="utf-8")), golden))
        failed = failed or bool(found)
        print(f"{path.name}: {'same' if not found else 'differs'}", *found[:10], sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
