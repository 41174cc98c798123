"""A client over stubs that protoc makes from proto/ at test time, so that the tests see the contract as users do."""

import atexit
import json
import pathlib
import shutil
import sys
import tempfile
import threading
import time

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def _make_stubs():
    out = tempfile.mkdtemp(prefix="tessera-stubs-")
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    files = [str(p.relative_to(PROTO)) for p in sorted((PROTO / "tessera").rglob("*.proto"))]
    well_known = str(pathlib.Path(protoc.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc refuses the files under proto/")
    sys.path.insert(0, out)


_make_stubs()
from tessera.admin.v1 import admin_service_pb2 as admin  # noqa: E402
from tessera.admin.v1 import admin_service_pb2_grpc as admin_grpc  # noqa: E402
from tessera.v1 import inference_service_pb2 as pb  # noqa: E402
from tessera.v1 import inference_service_pb2_grpc as pb_grpc  # noqa: E402


def json_text(value):
    return json.dumps(value, ensure_ascii=False)


def request(model, prompt, max_tokens, temperature=0.0, ignore_eos=True, **parts):
    """A GenerateRequest; the prompt is text or a list of ids."""
    made = pb.GenerateRequest(model=model, **parts)
    if isinstance(prompt, str):
        made.prompt.text = prompt
    else:
        made.prompt.token_ids.ids.extend(prompt)
    made.sampling.temperature = temperature
    made.stopping.max_tokens = max_tokens
    made.stopping.ignore_eos = ignore_eos
    made.output.token_ids = True
    return made


def details(error, kind):
    """The error details of one message type in a failed call."""
    status = rpc_status.from_call(error)
    found = []
    for any_message in status.details if status else []:
        made = kind()
        if any_message.Is(kind.DESCRIPTOR):
            any_message.Unpack(made)
            found.append(made)
    return found


def reason(error):
    found = details(error, error_details_pb2.ErrorInfo)
    return found[0].reason if found else None


class Result:
    """One finished stream, with the checks that every stream must pass."""

    def __init__(self, events):
        self.events = [e.base if hasattr(e, "base") else e for e in events]
        kinds = [e.WhichOneof("event") for e in self.events]
        assert kinds[0] == "started", kinds[:3]
        assert kinds[-1] == "finished", kinds[-3:]
        assert kinds.count("started") == 1
        numbers = [e.seq for e in self.events]
        assert numbers == sorted(set(numbers)), "seq must rise"
        self.started = self.events[0].started
        self.finished = [e.finished for e in self.events if e.WhichOneof("event") == "finished"]
        assert [f.last for f in self.finished] == [False] * (len(self.finished) - 1) + [True]
        self.deltas = [e.delta for e in self.events if e.WhichOneof("event") == "delta"]

    def text(self, choice=0):
        return "".join(d.text for d in self.deltas if d.choice == choice)

    def tokens(self, choice=0):
        return [t for d in self.deltas if d.choice == choice for t in d.tokens]

    def ids(self, choice=0):
        return [t.id for t in self.tokens(choice)]


class Client:
    """Stubs of one daemon's services."""

    def __init__(self, daemon, options=()):
        self.daemon = daemon
        self.channel = grpc.insecure_channel(daemon.grpc, options=[("grpc.enable_http_proxy", 0), *options])
        self.admin_channel = grpc.insecure_channel(daemon.admin)
        self.stub = pb_grpc.InferenceServiceStub(self.channel)
        self.admin = admin_grpc.AdminServiceStub(self.admin_channel)
        self.health_stub = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.channel.close()
        self.admin_channel.close()

    def generate(self, *arguments, timeout=120, **parts):
        return Result(self.stub.Generate(request(*arguments, **parts), timeout=timeout))

    def start(self, made, timeout=120, **options):
        """An open stream, after its first event."""
        stream = self.stub.Generate(made, timeout=timeout, **options)
        first = next(stream)
        assert first.WhichOneof("event") in ("started", "progress"), first
        return stream, first

    def healthy(self, service=""):
        answer = self.health_stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def stats(self):
        return self.admin.GetStats(admin.GetStatsRequest(), timeout=10)

    def wait_idle(self, seconds=5):
        """Waits until nothing runs and nothing is held; fails after the time."""
        end = time.monotonic() + seconds
        while True:
            now = self.stats()
            if now.running == 0 and now.waiting == 0 and now.parked == 0 and now.open_requests == 0:
                return now
            assert time.monotonic() < end, f"still held after {seconds} s: {now}"
            time.sleep(0.01)


def wait_for(check, seconds=5):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.02)


def together(calls):
    """Runs the calls at once; returns their results in order, errors included."""
    results = [None] * len(calls)

    def run(index):
        try:
            results[index] = calls[index]()
        except grpc.RpcError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
