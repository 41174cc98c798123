"""What operators use: health, reflection, metrics, configuration, the command line, the zoo."""

import json
import signal
import time

import daemon
import grpc
import pytest
from client import admin, request, wait_for
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2


def test_health_by_service_and_by_model(shared, stories):
    for service in ("", "liveness", "readiness", "tessera.v1.InferenceService"):
        assert shared.healthy(service), service
    shared.generate(stories, [1], 2)
    assert shared.healthy(f"model/{stories}")
    with pytest.raises(grpc.RpcError) as caught:
        shared.healthy("model/nobody")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_is_watched(start):
    client = start()
    watch = client.health_stub.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=30)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    list(client.admin.Drain(admin.DrainRequest(), timeout=30))
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_services(shared, version):
    """The messages of both versions have one form on the wire."""
    call = shared.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                                        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                                        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
    asked = [reflection_pb2.ServerReflectionRequest(list_services=""),
             reflection_pb2.ServerReflectionRequest(file_containing_symbol="tessera.v1.InferenceService")]
    services, file = call(iter(asked), timeout=10)
    assert "tessera.v1.InferenceService" in [s.name for s in services.list_services_response.service]
    assert file.file_descriptor_response.file_descriptor_proto


def test_metrics_count_what_was_served(start, stories):
    client = start()
    client.generate(stories, [1, 5, 6], 10)
    values = client.daemon.metrics()
    assert sum(v for k, v in values.items() if k.startswith("tessera_tokens_total") and '"completion"' in k) == 10
    assert sum(v for k, v in values.items() if k.startswith("tessera_tokens_total") and '"prompt"' in k) == 3
    assert client.daemon.metric("requests_total") == 1
    assert client.daemon.metric("ttft_seconds_count") == 1
    assert client.daemon.metric("requests_running") == 0
    assert not any("Once" in line for line in values), "no text of a prompt in a label"


def logprobs_allowed(client, count):
    made = request("tiny", [256], 1)
    made.output.logprobs = count
    try:
        list(client.stub.Generate(made, timeout=10))
        return True
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        return False


def test_sighup_reloads_what_can_be_live_and_refuses_the_rest(start):
    client = start({"limits": {"logprobs": 10}})
    assert logprobs_allowed(client, 10)
    client.daemon.write_config({"limits": {"logprobs": 3}})
    client.daemon.signal(signal.SIGHUP)
    wait_for(lambda: not logprobs_allowed(client, 10))
    assert logprobs_allowed(client, 3)

    client.daemon.write_config({"limits": {"logprobs": 9, "logprob": 1}})  # an unknown key
    answer = client.admin.ReloadConfig(admin.ReloadConfigRequest(), timeout=10)
    assert not answer.applied
    assert any("logprob" in p.where + p.what + p.hint for p in answer.problems)
    client.daemon.write_config({"limits": {"logprobs": 9}, "engine": {"max_running": 7}})  # needs a restart
    answer = client.admin.ReloadConfig(admin.ReloadConfigRequest(), timeout=10)
    assert not answer.applied
    assert [c.path for c in answer.changes if c.needs_restart] == ["engine.max_running"]
    client.daemon.signal(signal.SIGHUP)
    time.sleep(0.3)
    assert not logprobs_allowed(client, 4), "a refused file must change nothing"
    client.daemon.write_config({"limits": {"logprobs": 9}})
    assert client.admin.ReloadConfig(admin.ReloadConfigRequest(), timeout=10).applied
    assert logprobs_allowed(client, 9)


def test_check_config_names_every_problem(tmp_path):
    path = tmp_path / "tessera.yaml"
    path.write_text("version: 1\nengine:\n  max_runing: 4\nlimits:\n  logprobs: many\n")
    done = daemon.command("check-config", path, check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "tessera.yaml:3" in text and "max_running" in text
    assert "tessera.yaml:5" in text
    path.write_text("version: 1\nengine:\n  max_running: 4\n")
    daemon.command("check-config", path)


def test_prompts_are_not_logged(start):
    client = start({"log": {"level": "debug"}})
    client.generate("tiny", "a very secret sentence", 2)
    assert "secret" not in client.daemon.log_text()


def test_the_command_line(shared_daemon, stories):
    endpoint = ("--endpoint", shared_daemon.grpc, "--model", stories)
    answer = json.loads(daemon.command("generate", *endpoint, "--token-ids", "1", "--max-tokens", 8, "--temperature", 0,
                                       "--ignore-eos", "--logprobs", 2, "--json").stdout)
    assert len(answer["token_ids"]) == 8 and len(answer["logprobs"]) == 8
    assert answer["text"].startswith("Once upon")
    assert answer["logprobs"][0][0][0] == answer["token_ids"][0]
    assert answer["finish_reason"]
    plain = daemon.command("generate", *endpoint, "--prompt", "Lily", "--max-tokens", 4, "--temperature", 0).stdout
    assert plain.strip()
    said = daemon.command("chat", "--endpoint", shared_daemon.grpc, "--model", "tiny", "--message", "hi",
                          "--max-tokens", 4)
    assert said.returncode == 0


def test_a_wrong_command_line_is_explained(shared_daemon):
    for arguments in (["generate", "--endpoint", shared_daemon.grpc, "--model", "nobody", "--prompt", "x"],
                      ["generate", "--endpoint", "127.0.0.1:1", "--model", "tiny", "--prompt", "x"],
                      ["zoo", "--zoo", "/nowhere/at/all", "import", "/nowhere.gguf", "--name", "x"],
                      ["--nonsense"], ["serve", "--listen", "nonsense"]):
        done = daemon.command(*arguments, check=False, timeout=30)
        assert done.returncode not in (0, -6, -11), arguments
        assert done.stderr.strip(), arguments


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["zoo", "--help"], ["generate", "--help"]])
def test_help(arguments):
    assert len(daemon.command(*arguments).stdout.splitlines()) > 5


def test_the_zoo_shares_what_is_equal(zoo, stories):
    listed = json.loads(daemon.command("zoo", "--zoo", zoo, "ls", "--json").stdout)
    chains = {c["name"]: c for c in listed["chains"]}
    assert set(chains) == {"tiny", stories, "stories-b"}
    daemon.command("zoo", "--zoo", zoo, "verify")
    assert "ffn" in daemon.command("zoo", "--zoo", zoo, "diff", stories, "stories-b").stdout
    stored = sum(p.stat().st_size for p in (zoo / "objects" / "tensors").rglob("*") if p.is_file())
    assert stored == listed["distinct_bytes"], "each tensor is stored once"
    other = chains["stories-b"]
    assert other["unique_bytes"] < 0.35 * other["weight_bytes"], "a chain that shares layers costs only its own"


def test_two_chains_share_their_lower_blocks(start, stories):
    client = start()
    client.generate(stories, [1], 2)
    alone = client.stats().weight_bytes
    client.generate("stories-b", [1], 2)
    assert client.stats().weight_bytes - alone < 0.35 * alone
