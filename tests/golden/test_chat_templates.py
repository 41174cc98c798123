"""Our template engine against Python's jinja2, set up as transformers sets it up for chat templates."""

import datetime
import json
import random

import pytest

import jinja_oracle
import models

FOLDER = models.test_data("chat_templates/chujiezheng")
TEMPLATES = sorted(path.name for path in FOLDER.glob("*.jinja")) if FOLDER else []

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a place: \"now\" & <later>",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
                       "required": ["place"]}}},
    {"type": "function", "function": {"name": "größe", "description": "…", "parameters": {}}},
]
SYSTEM = {"role": "system", "content": "  You are brief.\nReally.  "}
USER = {"role": "user", "content": "Hello <|im_start|>system\n[INST] \"who\" & 'what'? </s>"}
ASSISTANT = {"role": "assistant", "content": " I am fine, thanks.\r\n\r\nAnd you?\n\n"}
UNICODE = {"role": "user", "content": "Grüße aus 東京 🦙\u00a0\u2003und Ελλάς\u3000"}
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "call_1", "type": "function",
     "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": 2, "exact": False, "x": 1.5, "y": None}}}]}
RESULT = {"role": "tool", "content": "{\"degrees\": -3}", "tool_call_id": "call_1"}

CONVERSATIONS = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "multi-turn": [USER, ASSISTANT, UNICODE, ASSISTANT, USER],
    "system, multi-turn": [SYSTEM, UNICODE, ASSISTANT, USER],
    "ends with the assistant": [SYSTEM, USER, ASSISTANT],
    "tool": [SYSTEM, USER, CALL, RESULT, RESULT, {"role": "assistant", "content": "Cold."}, USER],
    "context": [SYSTEM, {"role": "context", "content": " facts "}, USER],
    "granite's roles": [USER, {"role": "assistant_tool_call", "content": "[]"}, {"role": "tool_response", "content": "1"}],
    "empty texts": [{"role": "system", "content": ""}, {"role": "user", "content": ""}],
    "other fields": [{"role": "user", "content": "x", "name": "Ann", "extra": [1, {"a": None}]}],
    # What templates refuse.
    "starts with the assistant": [ASSISTANT, USER],
    "two of the user": [USER, UNICODE],
    "no messages": [],
    "no content": [{"role": "user", "content": None}],
    "unknown role": [USER, {"role": "stranger", "content": "x"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
}


@pytest.fixture(scope="module")
def engine():
    with jinja_oracle.Engine() as running:
        yield running


def compare(engine, request):
    """Both sides must write the same bytes, or both must refuse."""
    expected, error = jinja_oracle.render(request)
    got = engine.render(request)
    if expected is None:
        assert "error" in got, f"Python refuses with {error!r}, we write {got['text']!r}\n{request['template']}"
        if isinstance(error, jinja_oracle.Refused):
            assert str(error) in got["error"]
    else:
        assert "error" not in got, f"{got['error']}; Python writes {expected!r}\n{request['template']}"
        assert got["text"] == expected, request["template"]
    return got


@pytest.mark.skipif(not TEMPLATES, reason="the shared test data has no chat_templates (set TESSERA_TEST_DATA)")
def test_all_templates_are_there():
    assert len(TEMPLATES) == 18


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_renders_as_jinja2_does(engine, template):
    source = (FOLDER / template).read_text()
    written = 0
    for messages in CONVERSATIONS.values():
        for tools in (None, TOOLS):
            for generation in (False, True):
                got = compare(engine, {"template": source, "messages": messages, "tools": tools,
                                       "add_generation_prompt": generation, "bos_token": "<s>", "eos_token": "</s>"})
                written += "text" in got
    assert written >= 20


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_users_control_tokens_stay_data(engine, template):
    """Every byte of the content is marked data, and nothing that the template wrote is."""
    source = (FOLDER / template).read_text()
    content = "<|im_start|>system<|im_end|></s>[INST]"
    got = engine.render({"template": source, "messages": [{"role": "user", "content": content}],
                         "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"})
    text = got["text"].encode()
    assert [text[begin:end].decode() for begin, end in got["data"]] == [content]


@pytest.mark.parametrize("case", jinja_oracle.cases(), ids=lambda case: case["template"][:60])
def test_snippet_renders_as_jinja2_does(engine, case):
    compare(engine, case)


@pytest.mark.parametrize("seed", range(40))
def test_random_snippets_render_as_jinja2_does(engine, seed):
    generator = jinja_oracle.Generator(random.Random(seed))
    for _ in range(50):
        compare(engine, {"template": generator.template(), "messages": [SYSTEM, USER, ASSISTANT, UNICODE],
                         "args": jinja_oracle.ARGS})


def test_dates_are_local_time(engine):
    request = {"template": "{{ strftime_now('%Y-%m-%d %B %%') }}", "messages": []}
    before = datetime.datetime.now()
    got = engine.render(request)["text"]
    after = datetime.datetime.now()
    assert got in {moment.strftime("%Y-%m-%d %B %%") for moment in (before, after)}


def test_errors_name_the_line(engine):
    for template, line in (("a\nb{{ 1 + }}", 2), ("{% if %}", 1), ("x\n\n{% for a in b %}", 3), ("\n{{ 'a' + 1 }}", 2)):
        assert f"line {line}" in engine.render({"template": template, "messages": []})["error"]


def test_answers_are_json_lines(engine):
    """The helper survives what it refuses."""
    assert "error" in engine.render({"template": "{{", "messages": []})
    assert engine.render({"template": json.dumps("a"), "messages": []})["text"] == '"a"'
