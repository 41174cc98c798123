"""Scores and embeddings against transformers' (make_scoring_goldens.py), over gRPC and HTTP."""

import base64
import json
import pathlib
import struct
import sys
import urllib.request
from types import SimpleNamespace

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("bench", "e2e")]

import lm_eval_adapter  # noqa: E402
import scoring_items  # noqa: E402
from client import pb, pb_grpc  # noqa: E402

DATA = json.loads((pathlib.Path(__file__).resolve().parent / "data" / "scoring.json").read_text(encoding="utf-8"))
SUM_TOLERANCE = 1e-3
VECTOR_TOLERANCE = 1e-4  # of the largest element
POOLINGS = {"mean": pb.POOLING_MEAN, "last": pb.POOLING_LAST, "cls": pb.POOLING_CLS}


@pytest.fixture(scope="module")
def scorer(served):
    return lambda model: lm_eval_adapter.ScoreModel(served.grpc, model)


def post(served, path, body):
    asked = urllib.request.Request(f"http://{served.http}{path}", json.dumps(body).encode(),
                                   {"content-type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=120) as answer:
        return json.loads(answer.read())


def pairs(count):
    for number, (context, endings, _) in enumerate(scoring_items.items()[:count]):
        for place, ending in enumerate(endings):
            yield number, place, context, ending


@pytest.mark.parametrize("chain", DATA)
def test_log_likelihoods_equal_the_reference(scorer, chain):
    scores = DATA[chain]["scores"]
    asked = list(pairs(len(scores)))
    answers = scorer(chain).loglikelihood([SimpleNamespace(args=(c, e)) for _, _, c, e in asked])
    assert len(answers) == len(asked) == 4 * len(scores)
    for (number, place, _, _), (total, greedy) in zip(asked, answers):
        expected, _, expected_greedy = scores[number][place]
        assert abs(total - expected) <= SUM_TOLERANCE, (number, place)
        assert greedy == expected_greedy, (number, place)


def test_what_greedy_decoding_writes_is_greedy(served):
    """Of the greedy goldens: the sum is that of its steps' largest log-probabilities, and another last token is not."""
    cases = json.loads((pathlib.Path(__file__).resolve().parent / "data" / "smollm2.json").read_text(encoding="utf-8"))
    with lm_eval_adapter.grpc.insecure_channel(served.grpc) as channel:
        stub = pb_grpc.InferenceServiceStub(channel)
        for case in cases["cases"][:6]:
            ids = case["tokens"][:6]
            other = ids[:-1] + [case["top"][5][1][0]]
            asked = pb.ScoreRequest(model="smollm2-float32", context=pb.Prompt(token_ids=pb.TokenIds(ids=case["prompt"])),
                                    continuations=[pb.Prompt(token_ids=pb.TokenIds(ids=i)) for i in (ids, other)])
            written, changed = stub.Score(asked, timeout=60).continuations
            assert abs(written.logprob_sum - sum(step[0][1] for step in case["top"][:6])) <= SUM_TOLERANCE
            if min(case["gap"][:6]) > 0.01:
                assert written.is_greedy and not changed.is_greedy
                assert changed.tokens[-1].rank == 2


def test_the_likeliest_ending_is_often_the_right_one():
    """The items are about something: else equal numbers would show little."""
    right = sum(max(range(4), key=lambda i: item[i][0] / item[i][1]) == scoring_items.items()[number][2]
                for number, item in enumerate(DATA["smollm2-float32"]["scores"]))
    assert right >= 45, right


@pytest.mark.parametrize("chain", ["tiny-plain", "smollm2-float32"])
def test_an_echo_has_the_same_numbers(served, chain):
    """As the harness's local-completions asks and reads it: ids, one token, echo; the sum from the border on."""
    with lm_eval_adapter.grpc.insecure_channel(served.grpc) as channel:
        stub = pb_grpc.InferenceServiceStub(channel)

        def encode(text):
            prompt = pb.Prompt(text=text, add_special_tokens=False)
            return [t.id for t in stub.Tokenize(pb.TokenizeRequest(model=chain, prompt=prompt), timeout=60).tokens]

        for number, place, context, ending in list(pairs(6)):
            text = context.rstrip()
            before, whole = encode(text), encode(context + ending)
            answer = post(served, "/v1/completions", {
                "model": chain, "prompt": [whole], "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True,
                "seed": 1234})
            logprobs = answer["choices"][0]["logprobs"]
            total = sum(logprobs["token_logprobs"][len(before):-1])
            greedy = all(own == max(top.values()) for own, top in
                         zip(logprobs["token_logprobs"][len(before):-1], logprobs["top_logprobs"][len(before):-1]))
            expected, count, expected_greedy = DATA[chain]["scores"][number][place]
            assert len(whole) - len(before) == count
            assert abs(total - expected) <= SUM_TOLERANCE
            assert greedy == expected_greedy


@pytest.mark.parametrize("chain", DATA)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_equal_the_reference(served, chain, pooling):
    with lm_eval_adapter.grpc.insecure_channel(served.grpc) as channel:
        inputs = [pb.Prompt(text=text, add_special_tokens=False) for text in scoring_items.SENTENCES]
        asked = pb.EmbedRequest(model=chain, inputs=inputs, pooling=POOLINGS[pooling], normalize=False)
        answer = pb_grpc.InferenceServiceStub(channel).Embed(asked, timeout=120)
    assert answer.usage.prompt_tokens == sum(e["tokens"] for e in DATA[chain]["embeddings"])
    for made, expected in zip(answer.embeddings, DATA[chain]["embeddings"]):
        scale = max(map(abs, expected[pooling]))
        assert len(made.values) == len(expected[pooling])
        for ours, theirs in zip(made.values, expected[pooling]):
            assert abs(ours - theirs) <= VECTOR_TOLERANCE * max(1.0, scale)


def test_http_vectors_are_those_of_the_reference(served):
    chain = "smollm2-float32"
    body = {"model": chain, "input": scoring_items.SENTENCES, "pooling": "mean", "add_special_tokens": False}
    floats = post(served, "/v1/embeddings", body)["data"]
    packed = post(served, "/v1/embeddings", {**body, "encoding_format": "base64", "dimensions": 64})["data"]
    for number, expected in enumerate(DATA[chain]["embeddings"]):
        def unit(values):
            length = sum(v * v for v in values) ** 0.5
            return [v / length for v in values]

        assert floats[number]["embedding"] == pytest.approx(unit(expected["mean"]), abs=1e-4)
        raw = base64.b64decode(packed[number]["embedding"])
        assert list(struct.unpack("<64f", raw)) == pytest.approx(unit(expected["mean"][:64]), abs=1e-4)
