"""Requests that end early and daemons that stop, reload or die: nothing is lost, leaked or left behind."""

import random
import shutil
import signal
import subprocess
import threading
import time

import client as e2e
import daemon
import device
import grpc
import models
import pytest
from client import Result, admin, details, pb, reason, request, together, wait_for
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

LONG = 1800  # tokens: of several choices, long enough to still run when something else happens


def long_request(chain, choices=8, **parts):
    made = request(chain, [1], LONG, temperature=1.0, **parts)
    made.sampling.n, made.sampling.seed = choices, 5
    return made


def test_cancel_frees_everything(start, stories):
    client = start()
    for _ in range(3):
        stream, _ = client.start(long_request(stories))
        next(stream)
        wait_for(lambda: client.daemon.metric("kv_usage_ratio") > 0)
        stream.cancel()
        client.wait_idle()
        wait_for(lambda: client.daemon.metric("kv_usage_ratio") == 0)
    assert client.generate(stories, [1], 8).ids()


def test_cancel_by_id(start, stories):
    client = start()
    stream, _ = client.start(long_request(stories, request_id="gone-1"))
    answer = client.stub.CancelGeneration(pb.CancelGenerationRequest(request_ids=["gone-1", "never"]), timeout=10)
    assert list(answer.cancelled_ids) == ["gone-1"]
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() == grpc.StatusCode.CANCELLED
    client.wait_idle()


def test_a_cancel_storm_leaks_nothing(start, stories):
    client = start()
    rng = random.Random(4)

    def one(delay):
        stream = client.stub.Generate(long_request(stories, choices=2), timeout=60)
        time.sleep(delay)
        stream.cancel()

    for _ in range(5):
        together([lambda d=rng.random() * 0.05: one(d) for _ in range(40)])
    client.wait_idle(10)
    wait_for(lambda: client.daemon.metric("kv_usage_ratio") == 0)
    assert client.daemon.health() == 200


def test_a_deadline_ends_a_request(start, stories, refused):
    client = start()
    client.generate(stories, [1], 8)
    begin = time.monotonic()
    refused(grpc.StatusCode.DEADLINE_EXCEEDED,
            lambda: list(client.stub.Generate(long_request(stories), timeout=0.1)))
    assert time.monotonic() - begin < 1.0
    client.wait_idle()


def test_a_time_limit_ends_softly(start, stories):
    client = start()
    client.generate(stories, [1], 8)
    made = long_request(stories)
    made.stopping.time_limit.CopyFrom(duration_pb2.Duration(nanos=100_000_000))
    result = Result(client.stub.Generate(made, timeout=60))
    assert {f.reason for f in result.finished} == {pb.FINISH_REASON_TIME_LIMIT}
    assert result.text()


def test_a_time_limit_in_the_queue_still_tells_of_the_start(start, stories):
    client = start()
    made = long_request(stories)
    made.stopping.time_limit.CopyFrom(duration_pb2.Duration(nanos=1))
    result = Result(client.stub.Generate(made, timeout=60))
    assert {f.reason for f in result.finished} == {pb.FINISH_REASON_TIME_LIMIT}


def test_a_request_id_in_use_is_refused(start, stories, refused):
    client = start()
    stream, _ = client.start(long_request(stories, request_id="same"))
    refused(grpc.StatusCode.ALREADY_EXISTS,
            lambda: list(client.stub.Generate(long_request(stories, request_id="same"), timeout=10)))
    stream.cancel()


def test_a_slow_reader_is_parked_then_ended_and_slows_nobody(start, stories):
    narrow = [("grpc.http2.lookahead_bytes", 16384), ("grpc.http2.bdp_probe", 0)]
    client = start({"limits": {"stream_buffer": {"tokens": 64, "bytes": "8KiB", "stall": "1s"}}}, options=narrow)
    made = long_request(stories)
    made.output.logprobs = 20
    stream, _ = client.start(made)
    with e2e.Client(client.daemon) as other:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            begin = time.monotonic()
            assert len(other.generate(stories, [1], 20).ids()) == 20
            assert time.monotonic() - begin < 1.0
    with pytest.raises(grpc.RpcError) as caught:
        for _ in stream:
            pass
    assert caught.value.code() == grpc.StatusCode.ABORTED
    assert reason(caught.value) == "SLOW_CONSUMER"
    client.wait_idle()
    assert client.daemon.metric("slow_consumer_aborts_total") == 1


def test_a_full_queue_refuses_at_once(start, stories):
    client = start({"admission": {"max_waiting_requests": 2}, "engine": {"max_running": 1}})
    client.generate(stories, [1], 8)
    took = []

    def one():
        begin = time.monotonic()
        try:
            return Result(client.stub.Generate(long_request(stories, choices=1), timeout=120))
        finally:
            took.append(time.monotonic() - begin)

    results = together([one for _ in range(12)])
    refusals = [r for r in results if isinstance(r, grpc.RpcError)]
    assert len(refusals) >= 6 and len(results) > len(refusals)
    for error in refusals:
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert details(error, error_details_pb2.RetryInfo)
    assert sorted(took)[len(refusals) - 1] < 0.5
    client.wait_idle()
    assert client.daemon.metric("admission_rejections_total") == len(refusals)


def test_preempted_sequences_give_the_same_text(start, stories):
    """A cache too small for all at once: everyone finishes, with the text of a run alone."""
    prompts = [[1, 10 + i] for i in range(12)]
    exact = {"engine": {**device.EXACT["engine"], "kv": {"dtype": "bf16"}}}
    roomy = start(exact)
    alone = [roomy.generate(stories, p, 400).ids() for p in prompts]
    pages = "16MiB" if device.WIDE_HEADS else "2MiB"  # 51 of 84 that all want
    tight = start(daemon.merged(exact, {"engine": {"memory": pages}}))
    crowd = together([lambda p=p: tight.generate(stories, p, 400).ids() for p in prompts])
    assert crowd == alone
    assert tight.stats().preemptions > 0


def test_sigterm_lets_running_streams_end(start, stories):
    client = start()
    stream, first = client.start(long_request(stories, choices=2))
    client.daemon.signal(signal.SIGTERM)
    time.sleep(0.05)
    if client.daemon.process.poll() is None:
        with pytest.raises(grpc.RpcError) as caught:
            list(client.stub.Generate(request(stories, [1], 4), timeout=10))
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    result = Result([first, *stream])
    assert [len(result.ids(c)) for c in range(len(result.finished))] == [LONG] * 2
    assert client.daemon.process.wait(30) == 0


def test_a_second_sigterm_ends_at_once(start, stories):
    client = start()
    stream, _ = client.start(long_request(stories))
    client.daemon.signal(signal.SIGTERM)
    time.sleep(0.05)
    begin = time.monotonic()
    client.daemon.signal(signal.SIGTERM)
    client.daemon.process.wait(10)
    assert time.monotonic() - begin < 3
    with pytest.raises(grpc.RpcError):
        list(stream)


def test_drain_by_the_administrator_can_be_undone(start, stories, refused):
    client = start()
    assert list(client.admin.Drain(admin.DrainRequest(), timeout=30))[-1].drained
    error = refused(grpc.StatusCode.UNAVAILABLE,
                    lambda: list(client.stub.Generate(request(stories, [1], 4), timeout=10)))
    assert details(error, error_details_pb2.RetryInfo)
    assert not client.healthy("readiness")
    client.admin.Resume(admin.ResumeRequest(), timeout=10)
    assert client.healthy("readiness")
    assert client.generate(stories, [1], 4).ids()


def test_reload_under_the_same_name(start, store, stories, stories_file, tmp_path):
    """A running stream ends on the old chain; a new request meets the new one."""
    client = start(device.EXACT, store=store)
    old = client.generate(stories, [1], 200).ids()
    other = client.generate("stories-b", [1], 200).ids()
    assert old != other
    made = request(stories, [1], 200)
    made.sampling.n = 8
    stream, first = client.start(made)
    changed = tmp_path / "changed.gguf"
    shutil.copyfile(stories_file, changed)
    models.perturb_last_layer(changed)
    daemon.command("zoo", "--zoo", store, "rm", stories, check=False)
    daemon.import_model(store, changed, stories)
    loaded = list(client.admin.LoadModel(admin.LoadModelRequest(name=stories), timeout=60))
    assert loaded[-1].model.state == admin.MODEL_STATE_READY
    assert client.generate(stories, [1], 200).ids() == other
    assert Result([first, *stream]).ids() == old


def test_unload_and_load(start, stories):
    client = start()
    client.generate(stories, [1], 4)
    client.admin.UnloadModel(admin.UnloadModelRequest(name=stories), timeout=30)
    states = {m.name: m.state for m in client.admin.ListModels(admin.ListModelsRequest(), timeout=10).models}
    assert states[stories] == admin.MODEL_STATE_UNLOADED
    list(client.admin.LoadModel(admin.LoadModelRequest(name=stories), timeout=60))
    assert client.generate(stories, [1], 4).ids()


def test_many_streams_at_once(shared, stories):
    results = together([lambda i=i: shared.generate(stories, [1, 3 + i], 16).ids() for i in range(128)])
    assert all(len(r) == 16 for r in results)
    shared.wait_idle()


def test_kill_during_import_leaves_a_sound_zoo(tmp_path, stories_file):
    source = models.smollm2_gguf() or stories_file
    if source is None:
        pytest.skip("neither SmolLM2 nor stories260K is available")
    store, rng = tmp_path / "store", random.Random(9)
    line = [daemon.binary(), "zoo", "--zoo", str(store), "import", str(source), "--name", "model"]
    for _ in range(6):
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(rng.random() * 0.6)
            process.kill()
        if store.exists():
            daemon.command("zoo", "--zoo", store, "verify")
            listed = daemon.command("zoo", "--zoo", store, "ls").stdout
            if "model" in listed:  # it was whole before the kill
                daemon.command("zoo", "--zoo", store, "show", "model")
    daemon.command(*line[1:], check=False)
    daemon.command("zoo", "--zoo", store, "verify")
    daemon.command("zoo", "--zoo", store, "show", "model")


def test_kill_while_serving_then_start_again(start, zoo, stories):
    client = start(device.EXACT)
    before = client.generate(stories, [1], 16).ids()
    stream, _ = client.start(long_request(stories))
    ended = threading.Thread(target=lambda: pytest.raises(grpc.RpcError, list, stream))
    ended.start()
    client.daemon.kill()
    ended.join(10)
    assert not ended.is_alive()
    daemon.command("zoo", "--zoo", zoo, "verify")
    assert start(device.EXACT).generate(stories, [1], 16).ids() == before
