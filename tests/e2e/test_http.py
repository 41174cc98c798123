"""The official openai client, unmodified, against the HTTP interface; and what raw bytes get."""

import concurrent.futures
import json
import os
import socket
import time
import urllib.error
import urllib.request

import openai
import pytest
from client import pb

PROMPT = "Once upon a time"


def openai_client(running):
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    return openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def api(shared_daemon):
    return openai_client(shared_daemon)


@pytest.fixture(scope="module")
def exact_api(exact_daemon):
    return openai_client(exact_daemon)


def test_models(api):
    assert "tiny" in [m.id for m in api.models.list()]
    assert api.models.retrieve("tiny").id == "tiny"


def test_completion(exact_api, exact, stories):
    answer = exact_api.completions.create(model=stories, prompt=PROMPT, max_tokens=24, temperature=0)
    assert answer.choices[0].text == exact.generate(stories, PROMPT, 24, ignore_eos=False).text()
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24


def test_completion_of_ids_stops_and_echoes(api, stories):
    answer = api.completions.create(model=stories, prompt=[1], max_tokens=200, temperature=0, stop=["big, red"])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text.endswith("she saw a ")
    two = api.completions.create(model=stories, prompt=[PROMPT, "Lily"], max_tokens=4, temperature=0)
    assert [c.index for c in two.choices] == [0, 1]


def test_completion_streams(exact_api, stories):
    whole = exact_api.completions.create(model=stories, prompt=PROMPT, max_tokens=200, temperature=0).choices[0].text
    parts = list(exact_api.completions.create(model=stories, prompt=PROMPT, max_tokens=200, temperature=0, stream=True,
                                        stream_options={"include_usage": True}))
    assert "".join(p.choices[0].text for p in parts if p.choices) == whole
    assert len(parts) > 3
    assert parts[-1].choices == [] and parts[-1].usage.completion_tokens == 200
    assert [p.choices[0].finish_reason for p in parts if p.choices][-1] == "length"
    assert len({p.id for p in parts}) == 1


def test_completion_log_probabilities(api, stories):
    found = api.completions.create(model=stories, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=3)
    logprobs = found.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 5
    assert "".join(logprobs.tokens) == found.choices[0].text


def test_chat(exact_api):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    answer = exact_api.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=12, temperature=0,
                                         extra_body={"ignore_eos": True}, logprobs=True, top_logprobs=2)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert len(choice.logprobs.content) == 12 and len(choice.logprobs.content[0].top_logprobs) == 2
    stream = list(exact_api.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=12, temperature=0,
                                              extra_body={"ignore_eos": True}, stream=True))
    assert stream[0].choices[0].delta.role == "assistant"
    assert "".join(p.choices[0].delta.content or "" for p in stream if p.choices) == choice.message.content
    assert stream[-1].choices[0].finish_reason == "length"


def test_nulls_mean_defaults(api):
    answer = api.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=3,
                                         temperature=None, stop=None, n=None, seed=1, extra_body={"min_p": None})
    assert answer.usage.completion_tokens <= 3


@pytest.mark.parametrize("change,status,code", [
    ({"model": "nobody"}, 404, "model_not_found"),
    ({"temperature": 9}, 400, None),
    ({"prompt": [5] * 600}, 400, "context_length_exceeded"),
    ({"logprobs": 5000}, 400, None),
    ({"prompt": []}, 400, None),
])
def test_errors_have_the_client_s_shape(api, change, status, code):
    arguments = {"model": "tiny", "prompt": "x", "max_tokens": 4, **change}
    with pytest.raises(openai.APIStatusError) as caught:
        api.completions.create(**arguments)
    assert caught.value.status_code == status
    body = caught.value.body
    assert body["message"] and body["type"]
    if code:
        assert body["code"] == code


def test_all_bad_fields_are_told_at_once(api):
    with pytest.raises(openai.BadRequestError) as caught:
        api.completions.create(model="tiny", prompt="x", temperature=9, n=0, suffix="y", extra_body={"top_k": "a"})
    body = caught.value.body
    assert body["param"] == "top_k" and body["type"] == "invalid_request_error"
    assert all(field in body["message"] for field in ("temperature", "n:", "suffix", "top_k"))


def test_errors_become_the_client_s_exceptions(api):
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("nobody")
    with pytest.raises(openai.NotFoundError):
        api.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}], stream=True)
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(model="tiny", messages=[])
    assert caught.value.body["param"] == "messages"
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}],
                                    response_format={"type": "json_object"})
    assert caught.value.body["code"] == "unsupported_parameter"


def test_several_choices_and_a_seed(exact_api, stories):
    def ask(**more):
        return exact_api.completions.create(model=stories, prompt=PROMPT, max_tokens=8, temperature=1, n=3,
                                      extra_body={"ignore_eos": True}, **more)

    first, again = ask(seed=7), ask(seed=7)
    texts = [c.text for c in first.choices]
    assert texts == [c.text for c in again.choices] and len(set(texts)) > 1
    assert first.usage.completion_tokens == 24
    assert first.system_fingerprint == again.system_fingerprint
    parts = list(exact_api.completions.create(model=stories, prompt=[PROMPT, PROMPT], max_tokens=8, temperature=1, n=3,
                                        seed=7, stream=True, extra_body={"ignore_eos": True}))
    streamed = [""] * 6
    for part in parts:
        streamed[part.choices[0].index] += part.choices[0].text
    assert streamed == texts * 2


def test_an_echo_has_the_prompt_s_log_probabilities(exact_api, exact, stories):
    """What evaluators ask: token ids in, the log-probability of each out."""
    ids = [t.id for t in exact.stub.Tokenize(pb.TokenizeRequest(model=stories, prompt=pb.Prompt(text=PROMPT))).tokens]
    scores = exact.stub.Score(pb.ScoreRequest(
        model=stories, context=pb.Prompt(token_ids=pb.TokenIds(ids=ids[:1])),
        continuations=[pb.Prompt(token_ids=pb.TokenIds(ids=ids[1:]))])).continuations[0]
    for max_tokens in (0, 1):
        answer = exact_api.completions.create(model=stories, prompt=[ids, ids], echo=True, logprobs=1, temperature=0,
                                        max_tokens=max_tokens)
        assert len(answer.choices) == 2
        for choice in answer.choices:
            logprobs = choice.logprobs
            assert len(logprobs.tokens) == len(ids) + max_tokens == len(logprobs.text_offset)
            assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
            assert logprobs.token_logprobs[1:len(ids)] == pytest.approx([t.logprob for t in scores.tokens], abs=1e-4)
            assert choice.text.startswith(PROMPT)
        assert answer.usage.completion_tokens == 2 * max_tokens
    asked = {"model": stories, "prompt": PROMPT, "echo": True, "max_tokens": 4, "temperature": 0}
    choice = exact_api.completions.create(**asked, logprobs=0).choices[0]
    for token, offset in zip(choice.logprobs.tokens[-4:], choice.logprobs.text_offset[-4:]):
        assert choice.text[offset:].startswith(token)
    parts = list(exact_api.completions.create(**asked, stream=True))
    assert "".join(p.choices[0].text for p in parts) == choice.text


def test_cached_tokens_are_told(api, stories):
    prompt = [1] + [400 + i % 50 for i in range(200)]
    for _ in range(2):
        usage = api.completions.create(model=stories, prompt=prompt, max_tokens=1, temperature=0).usage
    assert usage.prompt_tokens == 201 and usage.prompt_tokens_details.cached_tokens >= 64


def post(running, path, body, headers=()):
    """(status, headers, body) of a POST with a JSON body."""
    asked = urllib.request.Request(f"http://{running.http}{path}", json.dumps(body).encode(),
                                   {"content-type": "application/json", **dict(headers)})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=60) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_tokenize_and_back(shared_daemon, shared, stories):
    status, _, body = post(shared_daemon, "/tokenize", {"model": stories, "prompt": PROMPT, "return_token_strs": True})
    found = json.loads(body)
    expected = shared.stub.Tokenize(pb.TokenizeRequest(model=stories, prompt=pb.Prompt(text=PROMPT))).tokens
    assert status == 200 and found["tokens"] == [t.id for t in expected]
    assert found["count"] == len(expected) == len(found["token_strs"]) and found["max_model_len"] > 0
    status, _, body = post(shared_daemon, "/detokenize", {"model": stories, "tokens": found["tokens"][1:]})
    assert status == 200 and json.loads(body)["prompt"] == PROMPT
    status, _, body = post(shared_daemon, "/tokenize", {"model": "tiny", "messages": [{"role": "user", "content": "x"}]})
    assert status == 200 and json.loads(body)["count"] > 1
    status, _, body = post(shared_daemon, "/detokenize", {"model": stories, "tokens": [10**6]})
    assert status == 400 and json.loads(body)["error"]["param"] == "tokens[0]"
    assert post(shared_daemon, "/tokenize", {"model": "nobody", "prompt": "x"})[0] == 404


def test_the_stream_on_the_wire(shared_daemon):
    status, headers, body = post(
        shared_daemon, "/v1/chat/completions",
        {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "ignore_eos": True,
         "stream": True, "stream_options": {"include_usage": True}}, {"x-request-id": "mine-1"})
    assert status == 200
    assert headers["content-type"] == "text/event-stream" and headers["cache-control"] == "no-cache"
    assert headers["x-request-id"] == "mine-1" and headers["x-accel-buffering"] == "no"
    assert "\r" not in body and body.endswith("data: [DONE]\n\n")
    events = [json.loads(e.removeprefix("data: ")) for e in body.split("\n\n")[:-2]]
    assert {e["id"] for e in events} == {"chatcmpl-mine-1"}
    assert len({(e["created"], e["model"], e["object"]) for e in events}) == 1
    assert "role" in events[0]["choices"][0]["delta"]
    assert [e["choices"][0]["delta"] for e in events if e["choices"]][-1] == {}
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("method,path,headers,status", [
    ("GET", "/v1/completions", {}, 405),
    ("DELETE", "/v1/models/tiny", {}, 405),
    ("POST", "/v1/completions", {"content-type": "text/plain"}, 415),
    ("POST", "/v1/completions", {"origin": "http://elsewhere"}, 415),
    ("GET", "/v1/engines", {}, 404),
])
def test_what_is_no_call_is_refused_in_json(shared_daemon, method, path, headers, status):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = exchange(shared_daemon, f"{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: 2\r\n"
                                     "Connection: close\r\n\r\n{}".encode())
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.split(b" ", 2)[1] == b"%d" % status
    assert json.loads(body)["error"]["message"]
    assert (b"allow: " in head) == (status == 405)


def test_a_request_that_is_ended_tells_the_stream(api, shared, stories):
    stream = api.completions.create(model=stories, prompt=[1], max_tokens=1500, temperature=1, stream=True,
                                    extra_body={"ignore_eos": True}, extra_headers={"x-request-id": "to-be-ended"})
    with pytest.raises(openai.APIError) as caught:
        for index, _ in enumerate(stream):
            if index == 2:
                done = shared.stub.CancelGeneration(pb.CancelGenerationRequest(request_ids=["to-be-ended"]))
                assert list(done.cancelled_ids) == ["to-be-ended"]
    assert caught.value.body["code"] == "cancelled"
    shared.wait_idle()


def test_a_full_queue_says_when_to_come_back(start, stories):
    client = start({"admission": {"max_waiting_requests": 2}, "engine": {"max_running": 1}})
    body = {"model": stories, "prompt": [1], "max_tokens": 1500, "ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(client.daemon, "/v1/completions", body), range(12)))
    refusals = [answer for answer in answers if answer[0] == 503]
    assert len(refusals) >= 6 and {answer[0] for answer in answers} == {200, 503}
    for _, headers, text in refusals:
        assert int(headers["retry-after-ms"]) > 0 and int(headers["retry-after"]) >= 1
        assert json.loads(text)["error"]["code"] == "overloaded"
    client.wait_idle()


def test_a_slow_reader_misses_nothing(exact, exact_daemon, stories):
    """Chunks grow while the client does not read; others are served meanwhile."""
    body = {"model": stories, "prompt": [1], "max_tokens": 1500, "temperature": 0, "ignore_eos": True, "logprobs": 20}
    whole = json.loads(post(exact_daemon, "/v1/completions", body)[2])["choices"][0]
    text = json.dumps({**body, "stream": True}).encode()
    host, port = exact_daemon.http.split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(b"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
        time.sleep(1)
        assert len(exact.generate(stories, [1], 20).ids()) == 20
        answer = b""
        while part := connection.recv(65536):
            answer += part
    events = answer.split(b"\r\n\r\n", 1)[1].split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    choices = [json.loads(e.removeprefix(b"data: "))["choices"][0] for e in events[:-2]]
    assert "".join(c["text"] for c in choices) == whole["text"]
    assert [t for c in choices if c["logprobs"] for t in c["logprobs"]["tokens"]] == whole["logprobs"]["tokens"]
    assert [o for c in choices if c["logprobs"] for o in c["logprobs"]["text_offset"]] == whole["logprobs"]["text_offset"]


def exchange(running, data):
    """What the HTTP port answers to raw bytes until it closes or a second passes."""
    host, port = running.http.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(data)
        connection.settimeout(1)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except TimeoutError:
            pass
    return answer


@pytest.mark.parametrize("data,status", [
    (b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
    (b"nonsense\r\n\r\n", b"400"),
    (b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"404"),
    (b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{", b"400"),
    (b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
    (b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]", b"400"),
    (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2000 + b"\r\n", b"431"),
], ids=["health", "nonsense", "unknown", "half-json", "large", "list", "headers"])
def test_raw_requests(shared_daemon, data, status):
    answer = exchange(shared_daemon, data)
    assert answer.split(b" ", 2)[1] == status, answer[:300]
    if status != b"200":
        head, body = answer.split(b"\r\n\r\n", 1)
        assert b"content-type: application/json" in head
        error = json.loads(body)["error"]
        assert error["message"] and error["type"] == "invalid_request_error"


def test_a_client_that_leaves_frees_its_request(shared, shared_daemon, stories):
    body = json.dumps({"model": stories, "prompt": [1], "max_tokens": 1500, "stream": True, "n": 8,
                       "temperature": 1, "ignore_eos": True}).encode()
    host, port = shared_daemon.http.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        assert b"200" in connection.recv(4096)
    shared.wait_idle()
