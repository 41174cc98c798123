"""The official openai client, unmodified, against the HTTP interface; and what raw bytes get."""

import json
import os
import socket

import openai
import pytest

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def api(shared_daemon):
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    return openai.OpenAI(base_url=f"http://{shared_daemon.http}/v1", api_key="none", max_retries=0)


def test_models(api):
    assert "tiny" in [m.id for m in api.models.list()]
    assert api.models.retrieve("tiny").id == "tiny"


def test_completion(api, shared, stories):
    answer = api.completions.create(model=stories, prompt=PROMPT, max_tokens=24, temperature=0)
    assert answer.choices[0].text == shared.generate(stories, PROMPT, 24, ignore_eos=False).text()
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24


def test_completion_of_ids_stops_and_echoes(api, stories):
    answer = api.completions.create(model=stories, prompt=[1], max_tokens=200, temperature=0, stop=["big, red"])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text.endswith("she saw a ")
    two = api.completions.create(model=stories, prompt=[PROMPT, "Lily"], max_tokens=4, temperature=0)
    assert [c.index for c in two.choices] == [0, 1]


def test_completion_streams(api, stories):
    whole = api.completions.create(model=stories, prompt=PROMPT, max_tokens=24, temperature=0).choices[0].text
    parts = list(api.completions.create(model=stories, prompt=PROMPT, max_tokens=24, temperature=0, stream=True,
                                        stream_options={"include_usage": True}))
    assert "".join(p.choices[0].text for p in parts if p.choices) == whole
    assert len(parts) > 3
    assert parts[-1].choices == [] and parts[-1].usage.completion_tokens == 24
    assert [p.choices[0].finish_reason for p in parts if p.choices][-1] == "length"
    assert len({p.id for p in parts}) == 1


def test_completion_log_probabilities(api, stories):
    found = api.completions.create(model=stories, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=3)
    logprobs = found.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 5
    assert "".join(logprobs.tokens) == found.choices[0].text


def test_chat(api):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    answer = api.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=12, temperature=0,
                                         extra_body={"ignore_eos": True}, logprobs=True, top_logprobs=2)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert len(choice.logprobs.content) == 12 and len(choice.logprobs.content[0].top_logprobs) == 2
    stream = list(api.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=12, temperature=0,
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
    if b"application/json" in answer and status != b"200":
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["message"]


def test_a_client_that_leaves_frees_its_request(shared, shared_daemon, stories):
    body = json.dumps({"model": stories, "prompt": [1], "max_tokens": 1500, "stream": True, "n": 8,
                       "temperature": 1, "ignore_eos": True}).encode()
    host, port = shared_daemon.http.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        assert b"200" in connection.recv(4096)
    shared.wait_idle()
