"""Scores, embeddings and perplexity as clients see them: gRPC, the official openai client, the command line."""

import base64
import math
import os
import struct

import device
import grpc
import openai
import pytest
from client import details, pb, reason, together
from command import NOT_FOUND, UNAVAILABLE, USAGE, as_json, fails
from google.rpc import error_details_pb2

import daemon

CONTEXT = "Once upon a time, there was a little girl named Lily. She"
ENDINGS = [" loved to play outside.", " xylophone quantum.", " was happy."]


def text(value, **more):
    return pb.Prompt(text=value, **more)


def ids(values):
    return pb.Prompt(token_ids=pb.TokenIds(ids=values))


def fields(error):
    (bad,) = details(error, error_details_pb2.BadRequest)
    return [violation.field for violation in bad.field_violations]


@pytest.fixture(scope="module")
def api(shared_daemon):
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    return openai.OpenAI(base_url=f"http://{shared_daemon.http}/v1", api_key="none", max_retries=0)


def tokens_of(client, model, value):
    asked = pb.TokenizeRequest(model=model, prompt=text(value))
    return [t.id for t in client.stub.Tokenize(asked, timeout=10).tokens]


def test_a_score_sums_its_tokens_and_knows_greedy(shared, stories):
    asked = pb.ScoreRequest(model=stories, context=text(CONTEXT), continuations=[text(e) for e in ENDINGS])
    answer = shared.stub.Score(asked, timeout=60)
    for one in answer.continuations:
        assert one.logprob_sum == pytest.approx(sum(t.logprob for t in one.tokens), abs=1e-4)
        assert one.is_greedy == all(t.rank == 1 for t in one.tokens)
    assert answer.continuations[1].logprob_sum < answer.continuations[0].logprob_sum < 0
    # What greedy decoding writes is greedy, and has the log-probabilities of its drawing.
    prompt = tokens_of(shared, stories, CONTEXT)
    written = shared.generate(stories, prompt, 12).ids()
    (found,) = shared.stub.Score(pb.ScoreRequest(model=stories, context=ids(prompt), continuations=[ids(written)]),
                                 timeout=60).continuations
    assert found.is_greedy and [t.id for t in found.tokens] == written


def test_text_and_ids_draw_the_same_border(exact, stories):
    """The tokens of the whole text beyond as many as the context has; space before the border is the ending's."""
    for context, ending in ((CONTEXT, ENDINGS[0]), (CONTEXT + " ", ENDINGS[0][1:])):
        before, whole = tokens_of(exact, stories, context.rstrip()), tokens_of(exact, stories, context + ending)
        by_text = pb.ScoreRequest(model=stories, context=text(context), continuations=[text(ending)])
        by_ids = pb.ScoreRequest(model=stories, context=ids(before), continuations=[ids(whole[len(before):])])
        one, two = (exact.stub.Score(asked, timeout=60).continuations[0] for asked in (by_text, by_ids))
        assert [t.id for t in one.tokens] == [t.id for t in two.tokens] == whole[len(before):]
        assert one.logprob_sum == two.logprob_sum


def test_an_empty_context_is_the_begin_token(exact, stories):
    asked = pb.ScoreRequest(model=stories, context=text("", add_special_tokens=False), continuations=[text("Once")])
    plain = exact.stub.Score(asked, timeout=60).continuations[0]
    begun = pb.ScoreRequest(model=stories, context=ids([1]), continuations=[ids([t.id for t in plain.tokens])])
    assert exact.stub.Score(begun, timeout=60).continuations[0].logprob_sum == plain.logprob_sum


def test_scores_do_not_depend_on_company(exact, stories):
    def one(ending):
        asked = pb.ScoreRequest(model=stories, context=text(CONTEXT), continuations=[text(ending)])
        return exact.stub.Score(asked, timeout=120).continuations[0].logprob_sum

    alone = [one(ending) for ending in ENDINGS]
    calls = [lambda e=e: one(e) for e in ENDINGS * 4]
    calls += [lambda i=i: exact.generate(stories, [1, 5 + i], 30) for i in range(4)]
    assert together(calls)[:12] == alone * 4
    asked = pb.ScoreRequest(model=stories, context=text(CONTEXT), continuations=[text(e) for e in ENDINGS])
    assert [c.logprob_sum for c in exact.stub.Score(asked, timeout=60).continuations] == alone


def test_a_long_context_is_computed_once(start, stories):
    client = start()
    context = [1] + [3 + 7 * k % 500 for k in range(255)]
    asked = pb.ScoreRequest(model=stories, context=ids(context), continuations=[ids([5 + k, 9]) for k in range(8)])
    usage = client.stub.Score(asked, timeout=60).usage
    assert usage.prompt_tokens == 8 * 258
    assert usage.cached_tokens == 7 * 192  # whole pages before the last token of the context
    assert client.stats().computed_prompt_tokens == 258 + 7 * (258 - 192)


@pytest.mark.parametrize("change,field", [
    (lambda r: r.ClearField("continuations"), "continuations"),
    (lambda r: r.ClearField("context"), "context"),
    (lambda r: setattr(r.continuations[1], "text", ""), "continuations[1]"),
    (lambda r: r.continuations[1].token_ids.ids.append(99999), "continuations[1].token_ids[0]"),
    (lambda r: setattr(r.continuations[0], "truncate_to", 3), "continuations[0].truncate_to"),
], ids=["none", "context", "empty", "id", "truncated"])
def test_a_wrong_score_names_its_field(shared, refused, change, field):
    asked = pb.ScoreRequest(model="tiny", context=text("a"), continuations=[text("b"), text("c")])
    change(asked)
    error = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: shared.stub.Score(asked, timeout=10))
    assert field in fields(error)
    shared.wait_idle()


def embed(client, model, *inputs, **more):
    asked = pb.EmbedRequest(model=model, inputs=[text(i) if isinstance(i, str) else ids(i) for i in inputs], **more)
    return client.stub.Embed(asked, timeout=60)


def test_vectors_over_grpc(shared, stories):
    answer = embed(shared, stories, "Lily saw a cat.", "Lily saw a dog.", "Tim", normalize=False)
    assert [len(e.values) for e in answer.embeddings] == [64, 64, 64]
    assert answer.usage.prompt_tokens == sum(len(tokens_of(shared, stories, t)) for t in
                                             ("Lily saw a cat.", "Lily saw a dog.", "Tim"))
    unit = embed(shared, stories, "Tim").embeddings[0].values
    assert math.fsum(v * v for v in unit) == pytest.approx(1, abs=1e-6)
    raw = answer.embeddings[2].values
    length = math.sqrt(math.fsum(v * v for v in raw))
    assert list(unit) == pytest.approx([v / length for v in raw], abs=1e-6)
    short = embed(shared, stories, "Tim", dimensions=16, normalize=False).embeddings[0].values
    assert list(short) == list(raw[:16])
    kinds = [tuple(embed(shared, stories, "Lily saw a cat.", pooling=p).embeddings[0].values)
             for p in (pb.POOLING_UNSPECIFIED, pb.POOLING_LAST, pb.POOLING_MEAN, pb.POOLING_CLS)]
    assert kinds[0] == kinds[1] and len(set(kinds)) == 3


def test_vectors_do_not_depend_on_company(shared, stories):
    prompts = [[1] + [3 + 11 * k % 500 for k in range(20 + 30 * i)] for i in range(6)]
    alone = [list(embed(shared, stories, p, pooling=pb.POOLING_MEAN).embeddings[0].values) for p in prompts]
    calls = [lambda p=p: list(embed(shared, stories, p, pooling=pb.POOLING_MEAN).embeddings[0].values)
             for p in prompts] + [lambda: shared.generate(stories, [1], 60)] * 3
    assert together(calls)[:6] == alone
    batch = embed(shared, stories, *prompts, pooling=pb.POOLING_MEAN)
    assert [list(e.values) for e in batch.embeddings] == alone


@pytest.mark.parametrize("change,field", [
    (lambda r: r.ClearField("inputs"), "inputs"),
    (lambda r: setattr(r, "dimensions", 0), "dimensions"),
    (lambda r: setattr(r, "dimensions", 65), "dimensions"),
    (lambda r: setattr(r, "pooling", 9), "pooling"),
    (lambda r: setattr(r.inputs[1], "text", ""), "inputs[1]"),
    (lambda r: setattr(r.inputs[1], "text", "x" * 600), "inputs[1]"),
], ids=["none", "no dimension", "dimensions", "pooling", "empty", "long"])
def test_a_wrong_embedding_names_its_field(shared, refused, change, field):
    asked = pb.EmbedRequest(model="tiny", inputs=[text("a"), text("b")])
    change(asked)
    error = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: shared.stub.Embed(asked, timeout=10))
    assert field in fields(error) and reason(error)
    shared.wait_idle()


def test_a_late_call_ends_and_leaves_nothing(shared, refused):
    asked = pb.EmbedRequest(model="tiny", inputs=[text("x" * 500)] * 200, pooling=pb.POOLING_MEAN)
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: shared.stub.Embed(asked, timeout=0.02))
    shared.wait_idle()


def test_models_say_what_they_can(shared, refused):
    found = {m.name: m for m in shared.stub.ListModels(pb.ListModelsRequest(), timeout=10).models}
    capabilities = set(found["tiny"].capabilities)
    assert {"generate", "score", "chat"} <= capabilities
    assert ("embed" in capabilities) != device.ON_DEVICE
    if device.ON_DEVICE:
        error = refused(grpc.StatusCode.UNIMPLEMENTED, lambda: embed(shared, "tiny", "a"))
        assert reason(error) == "NOT_OFFERED" and "engine.device: cpu" in error.details()


def test_vectors_by_the_openai_client(api, shared, stories):
    texts = ["Lily saw a cat.", "Tim"]
    answer = api.embeddings.create(model=stories, input=texts)
    expected = [list(e.values) for e in embed(shared, stories, *texts).embeddings]
    assert [d.index for d in answer.data] == [0, 1]
    for made, wanted in zip(answer.data, expected):
        assert made.embedding == pytest.approx(wanted, abs=1e-7)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 2
    assert answer.model == stories
    floats = api.embeddings.create(model=stories, input=texts, encoding_format="float")
    packed = api.embeddings.create(model=stories, input=texts, encoding_format="base64")
    for one, two, wanted in zip(floats.data, packed.data, expected):
        assert struct.pack("<64f", *one.embedding) == base64.b64decode(two.embedding) == struct.pack("<64f", *wanted)
    single = api.embeddings.create(model=stories, input=tokens_of(shared, stories, "Tim"), dimensions=8)
    assert len(single.data) == 1 and len(single.data[0].embedding) == 8
    mean = api.embeddings.create(model=stories, input="Tim", extra_body={"pooling": "mean", "normalize": False})
    raw = embed(shared, stories, "Tim", pooling=pb.POOLING_MEAN, normalize=False).embeddings[0].values
    assert mean.data[0].embedding == pytest.approx(list(raw), abs=1e-6)


@pytest.mark.parametrize("asked,param", [
    ({"input": []}, "input"), ({"input": "x", "dimensions": 65}, "dimensions"),
    ({"input": "x", "encoding_format": "int8"}, "encoding_format"), ({"input": ["x", ""]}, "input[1]"),
    ({"input": [[99999]]}, "input[0]"),
], ids=["none", "dimensions", "format", "empty", "id"])
def test_a_wrong_body_names_its_field(api, asked, param):
    with pytest.raises(openai.BadRequestError) as caught:
        api.embeddings.create(model="tiny", **asked)
    assert caught.value.body["param"] == param, caught.value.body
    with pytest.raises(openai.NotFoundError):
        api.embeddings.create(model="nobody", input="x")


@pytest.fixture(scope="module")
def story_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "story.txt"
    file.write_text("".join(f"{CONTEXT}{ENDINGS[k % 3]} The {k}th day was sunny.\n" for k in range(40)))
    return file


def test_perplexity_is_that_of_the_scores(zoo, shared, shared_daemon, stories, story_file):
    asked = ("--model", stories, "--file", story_file, "--context", 64, "--tokens", 200, "--json")
    local = as_json("perplexity", "--zoo", zoo, *asked)
    assert local["tokens"] == 192 and local["scored"] == 3 * 31 and local["context"] == 64
    whole, total = tokens_of(shared, stories, story_file.read_text()), 0.0
    for piece in range(3):
        part = [1] + whole[64 * piece + 1:64 * piece + 64]
        made = pb.ScoreRequest(model=stories, context=ids(part[:33]), continuations=[ids(part[33:])])
        total += shared.stub.Score(made, timeout=60).continuations[0].logprob_sum
    assert local["perplexity"] == pytest.approx(math.exp(-total / 93), rel=device.tolerance(1e-5))
    remote = as_json("perplexity", "-e", shared_daemon.grpc, *asked)
    assert remote == pytest.approx(local, rel=device.tolerance(1e-6))
    said = daemon.command("perplexity", "--zoo", zoo, *asked[:-1]).stdout
    assert said.startswith(f"perplexity {local['perplexity']:.4f} +/- ")


def test_perplexity_says_what_is_wrong(zoo, stories, story_file, tmp_path):
    base = ("perplexity", "--zoo", zoo, "--model", stories, "--file")
    assert "no-such-file" in fails(NOT_FOUND, *base, tmp_path / "no-such-file")
    assert "too few" in fails(USAGE, *base, story_file, "--context", 512, "--tokens", 600)
    assert "takes 512 tokens" in fails(USAGE, "perplexity", "--zoo", zoo, "--model", "tiny", "--file", story_file,
                                       "--context", 600, "--tokens", 1300)
    fails(NOT_FOUND, "perplexity", "--zoo", zoo, "--model", "nobody", "--file", story_file)
    assert "--model" in fails(USAGE, "perplexity", "--zoo", zoo, "--file", story_file)
    fails(UNAVAILABLE, "perplexity", "-e", "127.0.0.1:1", "--model", stories, "--file", story_file)


def test_quantize_states_what_it_costs(store, stories, story_file):
    asked = ("zoo", "--zoo", store, "quantize", stories, "--to", "i8-channel")
    report = as_json(*asked, "--perplexity", story_file, "--perplexity-tokens", 1100, "--json")
    cost = report["perplexity"]
    assert cost["scored"] == 2 * 255 and cost["context"] == 512
    assert cost["chain"] != cost["source"] and cost["chain"] == pytest.approx(cost["source"], rel=0.02)
    said = daemon.command(*asked, "--perplexity", story_file, "--perplexity-tokens", 1100).stdout
    assert f"perplexity {cost['chain']:.4f}, of the source {cost['source']:.4f}" in said
    assert "perplexity" not in as_json(*asked, "--json")
