"""Templates of model families: rendered as jinja2 renders them, and what they write for an assistant read back.

Those in data/chat_templates are ours, in the manner of each family. A folder of the hub's own, as llama.cpp has it in
models/templates, is read where TESSERA_TEST_TEMPLATES names one.
"""

import json
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


# Those whose calls are told from their text, and what in them is a control token of their vocabulary.
CONTROLS = {
    "cohere": ["<|START_ACTION|>", "<|END_ACTION|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>",
               "<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>", "<|START_TEXT|>", "<|END_TEXT|>"],
    "deepseek": ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
                 "<｜tool▁sep｜>", "<｜end▁of▁sentence｜>"],
    "deepseek_v32": ["<｜end▁of▁sentence｜>"],
    "glm": ["<|observation|>", "<|user|>"],
    "granite": ["<|tool_call|>", "<|end_of_text|>"],
    "harmony": ["<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"],
    "hermes": ["<|im_end|>", "<|im_start|>", "<|end_of_text|>"],
    "kimi": ["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>",
             "<|tool_call_argument_begin|>", "<|im_end|>"],
    "llama3": ["<|python_tag|>", "<|eot_id|>", "<|eom_id|>"],
    "minimax": ["[e~["],
    "mistral": ["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "</s>"],
    "phi4": ["<|tool_call|>", "<|/tool_call|>", "<|end|>"],
    "qwen3_coder": ["<|im_end|>", "<|im_start|>", "<seed:eos>"],
    "tool_list": ["<|end|>", "<SPECIAL_12>", "<end_of_sentence>"],
}
# Where such an answer ends, unless a call follows.
ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "</s>", "<seed:eos>", "<|END_OF_TURN_TOKEN|>", "<|observation|>",
        "<｜end▁of▁sentence｜>", "<|end_of_text|>", "[e~[", "<SPECIAL_12>", "<end_of_sentence>", "<|role_end|>",
        "</assistant>", "<|begin_tool_result|>", "<sep>", "<｜Assistant｜>", "<|end|>\n", "<|end|><|tool|>")


def answer_of(source, message):
    """What the template writes for an assistant's turn behind its generation prompt: (prompt, answer), or None."""
    base = {"template": source, "tools": TOOLS, "bos_token": "<s>", "eos_token": "</s>"}
    before, _ = jinja_oracle.render({**base, "messages": [USER], "add_generation_prompt": True})
    after, _ = jinja_oracle.render({**base, "messages": [USER, message, *RESULTS[:len(message["tool_calls"])]]})
    if before is None or after is None:
        return None
    cut = len(os.path.commonprefix([before, after]))
    if after.rfind("<", 0, cut) > after.rfind(">", 0, cut):
        cut = after.rfind("<", 0, cut)  # not within a mark
    answer = after[cut:]
    # A prompt may begin reasoning of which the history has the end alone, or nothing.
    prompt = before if answer.startswith("</") else before[:cut]
    mark = answer[:answer.find(">") + 1]
    if prompt == before and before.rstrip().endswith(mark):
        answer = answer[len(mark):]  # both have the end: it is the prompt's
    answer = answer.split("<|start|>functions")[0]
    for end in ENDS:
        at = answer.find(end)
        while at >= 0 and "get_weather" in answer[at:].split("degrees")[0]:
            at = answer.find(end, at + 1)
        answer = answer[:at] if at >= 0 else answer
    return prompt, answer


def read_back(engine, source, message):
    written = answer_of(source, message)
    if written is None:
        return None
    request = {"template": source, "tools": TOOLS, "prompt": written[0], "controls": []}
    found = engine.render({**request, "answer": ""})["format"]
    if found in (None, "reasoning"):
        return None
    return engine.render({**request, "controls": CONTROLS[found], "answer": written[1]})


def check_read_back(engine, path):
    """How many of the messages the template wrote with their calls."""
    source, read = path.read_text(), 0
    for message in (CALLING, BARE_CALL, {**CALLING, "reasoning_content": "I look."}):
        got = read_back(engine, source, message)
        if got is None or not got["calls"]:
            continue
        read += 1
        wanted = [(one["function"]["name"], one["function"]["arguments"]) for one in message["tool_calls"]]
        # Some templates write the first call alone.
        wanted = wanted[:answer_of(source, message)[1].count("get_weather")]
        assert [(name, json.loads(arguments)) for name, arguments in got["calls"]] == wanted, got
        assert got["text"].strip() in ("", message["content"]), got
        assert got["reasoning"].strip() in ("", message.get("reasoning_content", ""), message["content"]), got
    return read


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_calls_that_a_template_writes_are_read_back(engine, path):
    assert (check_read_back(engine, path) == 0) == (path.parent == OURS and path.stem in WITHOUT_CALLS)


# Of ours: families that have no form for calls. Whatever else is tried here has one that we know.
WITHOUT_CALLS = {"gemma", "olmo2", "stablelm", "phi3"}
