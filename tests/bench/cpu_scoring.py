"""Row i of the section `cpu`: perplexity beside the peer's, and log-probabilities beside the dequantized float32 model."""

import importlib.util
import json
import statistics

import daemon
import models
from cpu import KINDS, lacks, model
from models_scoring import CONTEXT, float_folder, our_perplexity, peer_perplexity
from spine import Row, serving

PROMPTS, STEPS, TOP = 30, 64, 5
PROMPT_TOKENS = 48
# llama.cpp's distances from the same float32 model on SmolLM2 Q4_1, as issue 5 states them.
PEER_MEDIAN, PEER_P95 = 0.067, 0.27


def widest_build():
    return next(isa for isa in ("amx", "avx512", "avx2") if lacks(isa) is None)


def perplexity(arguments):
    text = models.test_data("texts/wiki.test.raw")
    if arguments.peer_dir is None:
        raise SystemExit("row i needs --peer-dir (tests/bench/build_peer.sh DIR, then make_models.sh DIR DIR)")
    build = widest_build()
    for kind in KINDS:
        path = model(arguments, kind)
        ours = our_perplexity(path, text)
        peer = peer_perplexity(arguments.peer_dir / build / "bin" / "llama-perplexity", path, text)
        ratio = ours["perplexity"] / peer
        yield Row(f"i perplexity, {kind}, {ours['scored']} of {ours['tokens']} tokens in contexts of {CONTEXT}",
                  f"{ours['perplexity']:.4f}", f"llama.cpp ({build}) {peer:.4f}", ratio, "within 0.5 %",
                  abs(ratio - 1) <= 5e-3)


def paragraphs():
    """Prompts: starts of paragraphs of the test text, spread over it."""
    text = models.test_data("texts/wiki.test.raw").read_text(encoding="utf-8")
    long = [line.strip() for line in text.splitlines() if len(line) > 600]
    return [long[i * len(long) // PROMPTS] for i in range(PROMPTS)]


def distances(served):
    """|log-probability - that of transformers| of our TOP leaders, at each of the greedy steps."""
    import torch
    import transformers

    reference = transformers.AutoModelForCausalLM.from_pretrained(float_folder(), dtype=torch.float32)
    apart = []
    for text in paragraphs():
        ids = daemon.command("tokenize", "--endpoint", served.grpc, "--model", "model", "--ids", "--prompt", text).stdout
        prompt = [int(token) for token in ids.split(",")][:PROMPT_TOKENS]
        answer = json.loads(daemon.command(
            "generate", "--endpoint", served.grpc, "--model", "model", "--token-ids", ",".join(map(str, prompt)),
            "--max-tokens", STEPS, "--temperature", 0, "--ignore-eos", "--logprobs", TOP, "--json").stdout)
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + answer["token_ids"]])).logits[0].double()
        expected = torch.log_softmax(logits, -1)
        for step, top in enumerate(answer["logprobs"]):
            apart += [abs(value - float(expected[len(prompt) - 1 + step][token])) for token, value in top[:TOP]]
    return apart


def float_distances(arguments):
    with serving({"model": model(arguments, "Q4_1")}) as served:
        apart = sorted(distances(served))
    median, p95 = statistics.median(apart), apart[len(apart) * 95 // 100]
    for name, found, peer in (("median", median, PEER_MEDIAN), ("95th percentile", p95, PEER_P95)):
        yield Row(f"i distance from float32, {name} of {len(apart)} log-probabilities, Q4_1", f"{found:.4f}",
                  f"llama.cpp {peer}", found / peer, "no further than llama.cpp", found <= peer)


def accuracy(arguments):
    if models.test_data("texts/wiki.test.raw") is None:
        yield Row("i accuracy", "not measured: no texts/wiki.test.raw (TESSERA_TEST_DATA)", "-", None, "as stated", None)
        return
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        yield from float_distances(arguments)
    else:
        yield Row("i distance from float32, Q4_1", "not measured: no torch and transformers (tests/requirements.txt)", "-",
                  None, "no further than llama.cpp", None)
    yield from perplexity(arguments)
