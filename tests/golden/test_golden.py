"""The engine's greedy tokens and log-probabilities against transformers' (make_goldens.py), through a real daemon."""

import json
import pathlib

import architectures
import daemon
import gguf_twin
import models
import pytest
import tiny_mixtures

DATA = pathlib.Path(__file__).resolve().parent / "data"
RELATIVE_TOLERANCE = 2e-4  # of the largest absolute logit of the step
CLEAR_GAP = 0.30  # a quantized chain must choose like the float32 reference where its top two are this far apart


def golden(name):
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["cases"]


FLOAT_CASES = [(chain, file, number)
               for chain, file in (("tiny-plain", "tiny_plain"), ("tiny-rope3", "tiny_rope3"),
                                   ("tiny-bf16", "tiny_bf16"), ("smollm2-float32", "smollm2"),
                                   *((f"tiny-{v}", f"tiny_{v}") for v in tiny_mixtures.VARIANTS),
                                   *((f"arch-{name}", f"arch_{name}") for name in architectures.CONFIGURATIONS),
                                   *((f"gguf-{name}", f"arch_{name}") for name in gguf_twin.CONFIGURATIONS))
               for number in range(len(golden(file)))]


def generate(served, chain, ids, steps, logprobs=0):
    arguments = ["generate", "--endpoint", served.grpc, "--model", chain, "--token-ids", ",".join(map(str, ids)),
                 "--max-tokens", steps, "--temperature", 0, "--ignore-eos", "--json"]
    if logprobs:
        arguments += ["--logprobs", logprobs]
    return json.loads(daemon.command(*arguments).stdout)


def check_logprobs(ours, top, tolerance, where):
    """Every id of the reference's top is in ours with its value, save those that our last one may have displaced."""
    values = {token: value for token, value in ours}
    floor = min(values.values())
    for token, expected in top:
        if token in values:
            assert abs(values[token] - expected) <= tolerance, f"{where}: id {token}: {values[token]} for {expected}"
        else:
            assert expected <= floor + tolerance, f"{where}: id {token} ({expected}) is missing; the last is {floor}"


@pytest.mark.parametrize("chain,file,number", FLOAT_CASES, ids=[f"{c}-{n}" for c, _, n in FLOAT_CASES])
def test_float_chain_equals_reference(served, chain, file, number):
    case = golden(file)[number]
    answer = generate(served, chain, case["prompt"], len(case["tokens"]), logprobs=10)
    assert len(answer["token_ids"]) == len(case["tokens"])
    assert len(answer["logprobs"]) == len(case["tokens"])
    for step, (token, expected) in enumerate(zip(answer["token_ids"], case["tokens"])):
        tolerance = RELATIVE_TOLERANCE * max(1.0, case["scale"][step])
        check_logprobs(answer["logprobs"][step], case["top"][step], tolerance, f"step {step}")
        if token != expected:
            assert case["gap"][step] <= 10 * tolerance, f"step {step}: {token} for {expected}, gap {case['gap'][step]}"
            break  # from here on the two continue different texts
    assert answer["finish_reason"]


def clear_choices(served, chain, case):
    """(agreed, clear): over all steps with a clear gap, following the reference's text after each difference."""
    agreed, clear, start = 0, 0, 0
    while start < len(case["tokens"]):
        rest = case["tokens"][start:]
        answer = generate(served, chain, case["prompt"] + case["tokens"][:start], len(rest))["token_ids"]
        for offset, (token, expected) in enumerate(zip(answer, rest)):
            if case["gap"][start + offset] > CLEAR_GAP:
                clear += 1
                agreed += token == expected
            if token != expected:
                break
        start += offset + 1
    return agreed, clear


def test_quantized_chain_agrees_where_the_choice_is_clear(served):
    agreed, clear = map(sum, zip(*(clear_choices(served, "smollm2", case) for case in golden("smollm2"))))
    assert clear >= 200, "the goldens hold too few clear choices"
    assert agreed >= 0.95 * clear, f"{agreed} of {clear}"


def test_gemma3_agrees_where_the_choice_is_clear(served):
    if models.gemma3_gguf() is None:
        pytest.skip("Gemma 3's GGUF file is neither in the cache nor on the package index")
    agreed, clear = map(sum, zip(*(clear_choices(served, "gemma3", case) for case in golden("gemma3"))))
    assert clear >= 150, "the goldens hold too few clear choices"
    assert agreed >= 0.95 * clear, f"{agreed} of {clear}"


def test_a_prompt_of_text_gives_the_reference_tokens(served):
    """The tokenizer agrees with the reference's on every prompt: the first step's log-probabilities are equal."""
    for case in golden("smollm2"):
        if case["chat"]:
            continue
        by_text = json.loads(daemon.command(
            "generate", "--endpoint", served.grpc, "--model", "smollm2", "--prompt", case["text"], "--max-tokens", 4,
            "--temperature", 0, "--ignore-eos", "--logprobs", 5, "--json").stdout)
        by_ids = generate(served, "smollm2", case["prompt"], 4, logprobs=5)
        assert by_text["token_ids"] == by_ids["token_ids"]
        assert by_text["logprobs"] == by_ids["logprobs"]
