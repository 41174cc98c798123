"""Templates of model families, rendered as jinja2 renders them.

Those in data/chat_templates are ours, in the manner of each family. A folder of the hub's own, as llama.cpp has it in
models/templates, is read where TESSERA_TEST_TEMPLATES names one.
"""

import os
import pathlib

import pytest

import jinja_oracle
from test_chat_templates import ASSISTANT, CONVERSATIONS, SYSTEM, TOOLS, UNICODE, USER, compare

OURS = pathlib.Path(__file__).parent / "data" / "chat_templates"
HUB = os.environ.get("TESSERA_TEST_TEMPLATES")
TEMPLATES = sorted(OURS.glob("*.jinja")) + (sorted(pathlib.Path(HUB).glob("*.jinja")) if HUB else [])


def call(number, name="get_weather", **arguments):
    return {"id": f"abcdefgh{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


REASONED = {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm,\n\nyes."}
CALLING = {"role": "assistant", "content": "Let me see.",
           "tool_calls": [call(1, place="Zürich \"x\"", days=2), call(2, place="A\n\nB", days=3)]}
BARE_CALL = {"role": "assistant", "content": "", "tool_calls": [call(1, place="Ulm", days=2)]}
RESULTS = [{"role": "tool", "content": "{\"degrees\": -3}", "tool_call_id": "abcdefgh1"},
           {"role": "tool", "content": "12", "tool_call_id": "abcdefgh2"}]
DOCUMENTS = [{"title": "T", "text": "some & <text>", "doc_id": "1"}]
MORE = {
    "reasoning": [USER, REASONED, USER],
    "reasoning in the text": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}, USER],
    "two calls": [SYSTEM, USER, CALLING, *RESULTS, ASSISTANT, UNICODE],
    "one call": [USER, BARE_CALL, RESULTS[0]],
    "reasoned call": [USER, {**BARE_CALL, "reasoning_content": "I look."}, RESULTS[0], REASONED, USER],
    "arguments as text": [USER, {**BARE_CALL, "tool_calls": [
        {**call(1), "function": {"name": "get_weather", "arguments": "{\"place\": \"Ulm\"}"}}]}, RESULTS[0]],
    "developer": [{"role": "developer", "content": "Be brief."}, USER],
}


def requests(source):
    for messages in {**CONVERSATIONS, **MORE}.values():
        for tools in (None, TOOLS):
            for generation in (False, True):
                yield {"template": source, "messages": messages, "tools": tools, "documents": DOCUMENTS if generation else None,
                       "add_generation_prompt": generation, "bos_token": "<s>", "eos_token": "</s>",
                       "args": {"enable_thinking": generation, "thinking": generation}}


@pytest.fixture(scope="module")
def engine():
    with jinja_oracle.Engine() as running:
        yield running


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_renders_as_jinja2_does(engine, path):
    written = 0
    for request in requests(path.read_text()):
        written += "text" in compare(engine, request)
    assert written >= 8 or path.parent != OURS
