"""Row i of the section `cpu`: perplexity beside the peer's, and log-probabilities beside the dequantized float32 model.

A file's rows come as they are measured: on two cores with AVX2 about five minutes a file, most of it the peer's. Beside
a distance stands how surely a sample of prompts tells it from the peer's; the verdict does not ask.
"""

import importlib.util
import json
import os
import pathlib
import random
import sys
import tempfile

import daemon
import dequantize_gguf
import models
from cpu import KINDS, lacks, model
from models_scoring import CONTEXT, THREADS, our_perplexity, peer_perplexity
from spine import Row, serving

PROMPTS, STEPS, TOP = 30, 64, 5
PROMPT_TOKENS = 48
RESAMPLES = 400
NEEDED = ("torch", "transformers")


def widest_build():
    return next(isa for isa in ("amx", "avx512", "avx2") if lacks(isa) is None)


def perplexity(arguments, kind, text):
    path, build = model(arguments, kind), widest_build()
    ours = our_perplexity(path, text)
    peer = peer_perplexity(arguments.peer_dir / build / "bin" / "llama-perplexity", path, text)
    ratio = ours["perplexity"] / peer
    return Row(f"i perplexity, {kind}, {ours['scored']} of {ours['tokens']} tokens in contexts of {CONTEXT}",
               f"{ours['perplexity']:.4f}", f"llama.cpp ({build}) {peer:.4f}", ratio, "within 0.5 %",
               abs(ratio - 1) <= 5e-3)


def paragraphs():
    """Prompts: starts of paragraphs of the test text, spread over it."""
    text = models.test_data("texts/wiki.test.raw").read_text(encoding="utf-8")
    long = [line.strip() for line in text.splitlines() if len(line) > 600]
    return [long[i * len(long) // PROMPTS] for i in range(PROMPTS)]


def our_answers(path):
    """For each prompt: its tokens with those of our greedy steps, and of each step the TOP leaders."""
    answers = []
    with serving({"model": path}) as served:
        for text in paragraphs():
            ids = daemon.command("tokenize", "--endpoint", served.grpc, "--model", "model", "--ids", "--prompt", text).stdout
            prompt = [int(token) for token in ids.split(",")][:PROMPT_TOKENS]
            answer = json.loads(daemon.command(
                "generate", "--endpoint", served.grpc, "--model", "model", "--token-ids", ",".join(map(str, prompt)),
                "--max-tokens", STEPS, "--temperature", 0, "--ignore-eos", "--logprobs", TOP, "--json").stdout)
            answers.append((prompt + answer["token_ids"], [top[:TOP] for top in answer["logprobs"]]))
    return answers


def float_logprobs(path, sequences):
    """Of each sequence's last STEPS places, what transformers makes of the dequantized file: [STEPS, vocabulary]."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        dequantize_gguf.convert(path, pathlib.Path(folder))
        reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            for tokens in sequences:
                logits = reference(torch.tensor([tokens])).logits[0, -STEPS - 1:-1].double()
                yield torch.log_softmax(logits, -1).numpy()


def peer_leaders(arguments, path, sequences):
    """The peer's TOP leaders at the same places, by its Python bindings over its own library; None without them."""
    sources = sorted(arguments.peer_dir.glob("llama_cpp_python-*/llama_cpp"))
    if not sources or importlib.util.find_spec("diskcache") is None:
        return None
    os.environ["LLAMA_CPP_LIB_PATH"] = str(arguments.peer_dir / widest_build() / "bin")
    sys.path.insert(0, str(sources[-1].parent))
    import llama_cpp
    import numpy

    peer = llama_cpp.Llama(str(path), n_ctx=CONTEXT, n_threads=THREADS, n_threads_batch=THREADS, logits_all=True,
                           verbose=False)
    found = []
    for tokens in sequences:
        peer.reset()
        peer.eval(tokens)
        logits = peer.scores[len(tokens) - STEPS - 1:len(tokens) - 1].astype(numpy.float64)
        logits -= logits.max(axis=1, keepdims=True)
        values = logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))
        leaders = numpy.argsort(-values, axis=1)[:, :TOP]
        found.append([[(int(token), float(row[token])) for token in top] for top, row in zip(leaders, values)])
    return found


def distances(path, sequences, *sides):
    """For each side, by sequence: |log-probability - that of float32| of its leaders."""
    apart = [[] for _ in sides]
    for i, expected in enumerate(float_logprobs(path, sequences)):
        for found, side in zip(apart, sides):
            found.append([abs(value - float(expected[step][token]))
                          for step, top in enumerate(side[i]) for token, value in top])
    return apart


def interval(ours, its, figure):
    """Where figure(ours) / figure(its) lies with 95 % confidence, over other prompts: a paired bootstrap."""
    draw = random.Random(1)
    ratios = []
    for _ in range(RESAMPLES):
        chosen = draw.choices(range(len(ours)), k=len(ours))
        ratios.append(figure([value for i in chosen for value in ours[i]]) /
                      figure([value for i in chosen for value in its[i]]))
    ratios.sort()
    return ratios[RESAMPLES // 40], ratios[-RESAMPLES // 40]


def float_distances(arguments, kind):
    path = model(arguments, kind)
    answers = our_answers(path)
    sequences = [tokens for tokens, _ in answers]
    peer = peer_leaders(arguments, path, sequences)
    if peer is None:
        yield Row(f"i distance from float32, {kind}",
                  "not measured: no Python bindings of the peer in --peer-dir, or no diskcache", "-", None,
                  "no further than llama.cpp", None)
        return
    ours, its = distances(path, sequences, [tops for _, tops in answers], peer)
    for name, share in (("median", 0.5), ("95th percentile", 0.95)):
        def figure(values, share=share):
            return sorted(values)[int(len(values) * share)]
        mine, peers = (figure(sum(side, [])) for side in (ours, its))
        low, high = interval(ours, its, figure)
        yield Row(f"i distance from float32, {name} of {sum(map(len, ours))} log-probabilities, {kind}", f"{mine:.4f}",
                  f"llama.cpp {peers:.4f}; the ratio's 95 % interval {low:.2f} to {high:.2f}", mine / peers,
                  "no further than llama.cpp", mine <= peers)


def accuracy(arguments):
    text = models.test_data("texts/wiki.test.raw")
    if text is None:
        yield Row("i accuracy", "not measured: no texts/wiki.test.raw (TESSERA_TEST_DATA)", "-", None, "as stated", None)
        return
    if arguments.peer_dir is None:
        raise SystemExit("row i needs --peer-dir (tests/bench/build_peer.sh DIR, then make_models.sh DIR DIR)")
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    for kind in KINDS:
        if lacking:
            yield Row(f"i distance from float32, {kind}", f"not measured: no {' and '.join(lacking)}", "-", None,
                      "no further than llama.cpp", None)
        else:
            yield from float_distances(arguments, kind)
        yield perplexity(arguments, kind, text)
