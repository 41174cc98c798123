"""Tool calls and reasoning as clients see them: models that say a script in their family's form, through both doors."""

import json
import os
import pathlib

import client as clients
import daemon
import openai
import pytest
import scripted_model
from client import pb

TEMPLATES = pathlib.Path(__file__).resolve().parents[1] / "golden" / "data" / "chat_templates"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}}}}]
QUESTION = {"role": "user", "content": "How is it in Zürich?"}
WANTED = {"place": "Zürich", "days": 2}

# (what ends the prompt, the answer in pieces, control tokens)
SCRIPTS = {
    "hermes": ("\n", ["<think>", "\nI should", " look.\n</th", "ink>\n\n", "Let me see.", "\n<tool", "_call>\n{\"na", "me\": \"wea",
                      "ther\", \"arguments\": {\"pl", "ace\": \"Zü", "rich\", ", "\"days\": 2}}\n</tool_call>"],
               ["<|im_start|>", "<|im_end|>"]),
    "mistral_args": ("[/INST]", ["[THINK]", "I should look.", "[/THINK]", "Let me see.", "[TOOL_CALLS]", "weath", "er", "[ARGS]",
                                 "{\"place\": \"Zür", "ich\", \"days\"", ": 2}"],
                     ["[INST]", "[/INST]", "[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "[AVAILABLE_TOOLS]",
                      "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]),
    # What a token follows is its only successor: one message is all that it can say.
    "harmony": ("t", [" to=functions.wea", "ther", "<|channel|>", "commentary ", "<|constrain|>", "json", "<|message|>",
                      "{\"place\": \"Zür", "ich\", \"days\"", ": 2}"],
                ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>", "<|call|>", "<|return|>"]),
}
SILENT = {"harmony"}  # says and thinks nothing besides


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calling")
    for name, (after, pieces, control) in SCRIPTS.items():
        template = (TEMPLATES / f"{name}.jinja").read_text()
        scripted_model.write_checkpoint(folder / name, after, pieces, control, template)
        daemon.import_model(folder / "zoo", folder / name, name)
    with daemon.Daemon(folder / "zoo", folder / "served", {"models": [
            {"name": "text", "chain": "hermes", "chat_output": "none"}]}) as running:
        yield running


@pytest.fixture(scope="module")
def api(served):
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    return openai.OpenAI(base_url=f"http://{served.http}/v1", api_key="none", max_retries=0)


def check_calls(name, content, reasoning, calls):
    assert [(one_name, json.loads(arguments)) for one_name, arguments in calls] == [("weather", WANTED)]
    assert content == ("" if name in SILENT else "Let me see.")
    assert reasoning == ("" if name in SILENT else "I should look.")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_whole_answer_has_its_calls(api, name):
    answer = api.chat.completions.create(model=name, messages=[QUESTION], tools=TOOLS, temperature=0)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    message = choice.message
    check_calls(name, message.content or "", getattr(message, "reasoning_content", None) or "",
                [(call.function.name, call.function.arguments) for call in message.tool_calls])
    assert message.tool_calls[0].type == "function"
    # The answer and the call's result are taken back.
    again = api.chat.completions.create(model=name, tools=TOOLS, max_tokens=1, messages=[
        QUESTION, message.model_dump(exclude_none=True), {"role": "tool", "content": "-3", "tool_call_id": message.tool_calls[0].id}])
    assert again.choices[0].finish_reason in ("stop", "length")


@pytest.mark.parametrize("name", SCRIPTS)
def test_calls_stream_by_fragments(api, name):
    content = reasoning = ""
    calls, reasons = [], []
    for chunk in api.chat.completions.create(model=name, messages=[QUESTION], tools=TOOLS, temperature=0, stream=True):
        delta = chunk.choices[0].delta
        content += delta.content or ""
        reasoning += getattr(delta, "reasoning_content", None) or ""
        reasons.append(chunk.choices[0].finish_reason)
        for call in delta.tool_calls or []:
            assert call.index == 0
            if call.id:
                calls.append([call.function.name, ""])
            calls[call.index][1] += call.function.arguments
    check_calls(name, content, reasoning, calls)
    assert reasons[-1] == "tool_calls" and set(reasons[:-1]) == {None}


@pytest.mark.parametrize("name", SCRIPTS)
def test_calls_stream_over_grpc(served, name):
    request = pb.ChatRequest(messages=[pb.Message(**QUESTION)])
    request.tools.add().update(TOOLS[0])
    request.generation.model = name
    request.generation.sampling.temperature = 0
    with clients.Client(served) as client:
        events = list(client.stub.Chat(request))
    calls = []
    for event in events:
        for call in event.tool_call_deltas:
            if call.id:
                calls.append([call.name, ""])
            calls[-1][1] += call.arguments_json
    check_calls(name, clients.Result(events).text(), "".join(event.reasoning_delta for event in events), calls)
    assert events[-1].base.finished.reason == pb.FINISH_REASON_EOS


def test_without_tools_a_call_is_text(api):
    for options in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        choice = api.chat.completions.create(model="hermes", messages=[QUESTION], temperature=0, **options).choices[0]
        assert choice.finish_reason == "stop" and choice.message.tool_calls is None
        assert choice.message.content.startswith("Let me see.\n<tool_call>")
        assert choice.message.reasoning_content == "I should look."


def test_an_operator_can_leave_answers_whole(api):
    choice = api.chat.completions.create(model="text", messages=[QUESTION], tools=TOOLS, temperature=0).choices[0]
    assert choice.message.content == "".join(SCRIPTS["hermes"][1])
    assert choice.finish_reason == "stop"


def test_a_cut_call_is_no_whole_answer(api):
    choice = api.chat.completions.create(model="hermes", messages=[QUESTION], tools=TOOLS, temperature=0, max_tokens=10).choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls[0].function.arguments == "{\"place\": \"Zü"


def test_the_command_line_shows_calls_apart(served):
    said = daemon.command("chat", "--endpoint", served.grpc, "--model", "hermes", "--message", "Hi").stdout
    assert said.startswith("I should look.\nLet me see.")


def test_a_broken_template_is_reported_at_import(tmp_path):
    after, pieces, control = SCRIPTS["hermes"]
    scripted_model.write_checkpoint(tmp_path / "broken", after, pieces, control, "a\nb {{ 1 + }}")
    done = daemon.import_model(tmp_path / "zoo", tmp_path / "broken", "broken")
    assert "chat template" in done.stderr and "line 2, column 10" in done.stderr
    with daemon.Daemon(tmp_path / "zoo", tmp_path / "served") as running:
        with clients.Client(running) as client, pytest.raises(Exception) as caught:
            request = pb.ChatRequest(messages=[pb.Message(**QUESTION)])
            request.generation.model = "broken"
            list(client.stub.Chat(request))
    assert "line 2, column 10" in caught.value.details()
