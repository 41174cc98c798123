"""What a client gets: texts, order of events, sampling, errors with details, several chains at once."""

import math

import device
import grpc
import models
import pytest
from client import Result, details, pb, reason, request, together
from google.rpc import error_details_pb2

BOS = 256
STORY = "Once upon a time"


def expected_story():
    return models.test_data("models/stories260K/expected_stdout.txt").read_text(encoding="utf-8")


def test_greedy_text_is_the_published_one(shared, stories):
    """On a device up to the first choice that is too near to be sure of there."""
    made = request(stories, [1], 200, ignore_eos=False)
    made.output.logprobs = 2
    result = Result(shared.stub.Generate(made, timeout=60))
    assert result.finished[0].reason == pb.FINISH_REASON_MAX_TOKENS
    published = expected_story()
    text = ""
    for token in result.tokens():
        text = (text + token.raw.decode()).removeprefix(" ") if not text else text + token.raw.decode()
        if not published.startswith(text):
            assert token.top[0].logprob - token.top[1].logprob < device.NEAR_TIE, (text, published)
            assert len(text) > 150
            return
    assert result.text() == text == published


def test_events_come_in_order_with_usage(shared, stories):
    made = request(stories, STORY, 120, request_id="order-1")  # longer than one write takes
    result = Result(shared.stub.Generate(made, timeout=60))
    assert result.started.request_id == "order-1"
    assert result.started.prompt_tokens == result.finished[0].usage.prompt_tokens > 0
    assert result.finished[0].usage.completion_tokens == len(result.ids()) == 120
    assert result.finished[0].reason == pb.FINISH_REASON_MAX_TOKENS
    assert len(result.deltas) > 1, "the text must come in pieces"
    raw = b"".join(t.raw for t in result.tokens())
    assert raw.decode().strip() == result.text().strip()


def test_text_is_always_whole_characters(shared):
    """Random weights over bytes write broken UTF-8; what is shown equals a decoder's replacement of it."""
    result = shared.generate("tiny", [BOS, 10, 20], 200, temperature=1.0)
    raw = b"".join(t.raw for t in result.tokens() if t.id < BOS)  # control tokens have no part in the text
    assert len(raw) >= 100
    for delta in result.deltas:
        delta.text.encode("utf-8")
    kept = [c for c in raw.decode("utf-8", "replace") if c != "\ufffd"]
    assert [c for c in result.text() if c != "\ufffd"] == kept


def test_a_stop_text_ends_and_is_withheld(shared, stories):
    made = request(stories, [1], 200, ignore_eos=False)
    made.stopping.stop.append("big, red")
    result = Result(shared.stub.Generate(made, timeout=60))
    assert result.text() == expected_story().split("big, red")[0]
    assert result.finished[0].reason == pb.FINISH_REASON_STOP
    assert result.finished[0].stop_text == "big, red"
    made.stopping.include_stop = True
    assert Result(shared.stub.Generate(made, timeout=60)).text().endswith("big, red")


def test_log_probabilities(shared, stories):
    made = request(stories, STORY, 8)
    made.output.logprobs = 5
    for token in Result(shared.stub.Generate(made, timeout=60)).tokens():
        values = [t.logprob for t in token.top]
        assert len(values) == 5 and values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1.0001
        assert token.id == token.top[0].id and token.rank == 1
        assert math.isclose(token.logprob, values[0], abs_tol=1e-6)


def test_a_seed_repeats_whoever_else_runs(exact, stories):
    def sampled(seed, tokens=40):
        made = request(stories, STORY, tokens, temperature=1.0)
        made.sampling.seed = seed
        return Result(exact.stub.Generate(made, timeout=120)).ids()

    alone = [sampled(seed) for seed in (7, 8)]
    assert alone[0] != alone[1]
    crowd = together([lambda s=s: sampled(s) for s in (7, 8, 100, 101, 102, 103, 104, 105)])
    assert crowd[:2] == alone


def test_batch_mates_change_nothing(exact, stories):
    """Many prompts of several lengths on two chains at once give what each gives alone."""
    prompts = [[1] + [(7 * i + 3 * k) % 500 + 3 for k in range(1 + 23 * i)] for i in range(8)]
    calls = [(chain, prompt) for prompt in prompts for chain in (stories, "stories-b", "tiny")
             if chain != "tiny" or max(prompt) < 256]
    alone = [exact.generate(chain, prompt, 24).ids() for chain, prompt in calls]
    crowd = together([lambda c=c, p=p: exact.generate(c, p, 24).ids() for c, p in calls])
    assert crowd == alone
    assert alone[calls.index((stories, prompts[3]))] != alone[calls.index(("stories-b", prompts[3]))]


def test_choices_share_a_prompt(exact, stories):
    made = request(stories, STORY, 16, temperature=1.0)
    made.sampling.n, made.sampling.seed = 4, 3
    result = Result(exact.stub.Generate(made, timeout=60))
    assert len(result.finished) == 4
    assert sorted(f.choice for f in result.finished) == [0, 1, 2, 3]
    assert all(len(result.ids(c)) == 16 for c in range(4))
    assert len({tuple(result.ids(c)) for c in range(4)}) > 1
    greedy = request(stories, STORY, 16)
    greedy.sampling.n = 2
    both = Result(exact.stub.Generate(greedy, timeout=60))
    assert both.ids(0) == both.ids(1) == exact.generate(stories, STORY, 16).ids()


def test_a_shared_start_is_computed_once(start, stories):
    client = start()
    prefix = [1] + [(11 * k) % 500 + 3 for k in range(1023)]
    first = client.generate(stories, prefix + list(range(10, 42)), 4)
    assert first.started.cached_tokens == 0
    second = client.generate(stories, prefix + list(range(50, 82)), 4)
    assert second.started.cached_tokens == 1024
    before = client.stats().computed_prompt_tokens
    client.generate(stories, prefix + list(range(90, 122)), 4)
    assert client.stats().computed_prompt_tokens - before == 32


def test_tokenize_and_detokenize(shared, stories):
    asked = pb.TokenizeRequest(model=stories, prompt=pb.Prompt(text="Lily saw a cat."))
    tokens = shared.stub.Tokenize(asked, timeout=10).tokens
    back = shared.stub.Detokenize(pb.DetokenizeRequest(model=stories, ids=[t.id for t in tokens]), timeout=10)
    assert back.text.strip() == "Lily saw a cat."


def test_a_batch_keeps_its_order_and_its_errors_apart(exact, stories):
    asked = pb.GenerateBatchRequest(requests=[request(stories, [1], 8), request("nobody", [1], 8),
                                              request(stories, [1, 5, 9], 8)])
    items = exact.stub.GenerateBatch(asked, timeout=60).items
    assert [i.code for i in items] == [0, grpc.StatusCode.NOT_FOUND.value[0], 0]
    ids = [t.id for d in items[2].choices for t in d.tokens]
    assert ids == exact.generate(stories, [1, 5, 9], 8).ids()


def test_chat_renders_the_template(shared):
    asked = pb.ChatRequest(messages=[pb.Message(role="user", content="hi")], generation=pb.GenerateRequest(model="tiny"))
    assert shared.stub.RenderChat(pb.RenderChatRequest(chat=asked), timeout=10).text == "<|user|>\nhi\n<|assistant|>\n"
    asked.generation.stopping.max_tokens = 12
    asked.generation.stopping.ignore_eos = True
    asked.generation.sampling.temperature = 0
    result = Result(shared.stub.Chat(asked, timeout=60))
    assert result.finished[0].usage.completion_tokens == 12
    assert result.finished[0].usage.prompt_tokens == len("<|user|>\nhi\n<|assistant|>\n")


def test_list_models(shared):
    found = {m.name: m for m in shared.stub.ListModels(pb.ListModelsRequest(), timeout=10).models}
    assert "tiny" in found and found["tiny"].max_context == 512


def test_every_bad_field_is_named(shared, refused):
    made = request("tiny", [BOS], 4, temperature=-1)
    made.sampling.top_p = 3
    error = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: list(shared.stub.Generate(made, timeout=10)))
    (bad,) = details(error, error_details_pb2.BadRequest)
    fields = " ".join(v.field for v in bad.field_violations)
    assert "temperature" in fields and "top_p" in fields


@pytest.mark.parametrize("change,code", [
    (lambda r: setattr(r, "model", "nobody"), grpc.StatusCode.NOT_FOUND),
    (lambda r: r.prompt.token_ids.ids.append(99999), grpc.StatusCode.INVALID_ARGUMENT),
    (lambda r: r.prompt.token_ids.ids.extend([5] * 600), grpc.StatusCode.INVALID_ARGUMENT),
    (lambda r: r.ClearField("prompt"), grpc.StatusCode.INVALID_ARGUMENT),
    (lambda r: setattr(r.output, "logprobs", 5000), grpc.StatusCode.INVALID_ARGUMENT),
    (lambda r: setattr(r.sampling, "n", 5000), grpc.StatusCode.INVALID_ARGUMENT),
    (lambda r: setattr(r.sampling, "beam_width", 4), grpc.StatusCode.UNIMPLEMENTED),
    (lambda r: setattr(r.constraint, "regex", "a+"), grpc.StatusCode.UNIMPLEMENTED),
], ids=["model", "id", "context", "prompt", "logprobs", "n", "beam", "constraint"])
def test_a_refusal_has_its_status_and_a_reason(shared, refused, change, code):
    made = request("tiny", [BOS], 4)
    change(made)
    error = refused(code, lambda: list(shared.stub.Generate(made, timeout=10)))
    assert reason(error), error
    assert error.details()


def test_quotas_are_refused_with_a_reason(shared, refused):
    assert refused(grpc.StatusCode.UNIMPLEMENTED,
                   lambda: shared.stub.GetQuota(pb.GetQuotaRequest(), timeout=10)).details().startswith("a quota ")
