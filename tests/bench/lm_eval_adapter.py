"""lm-evaluation-harness over the Score call: a model class with what its tasks ask of one.

    from lm_eval_adapter import ScoreModel
    lm_eval.simple_evaluate(model=ScoreModel("127.0.0.1:50051", "mine"), tasks=["hellaswag"])

The border between a context and its continuation is drawn by the server, as the harness itself draws it. Continuations
that follow each other with one context travel in one call, so the context is computed once. Without lm_eval installed
the class still answers anything with `args`, which is how the tests use it.
"""

import concurrent.futures
import itertools
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / "e2e")]

import grpc  # noqa: E402
from client import pb, pb_grpc  # noqa: E402

try:
    from lm_eval.api.model import LM as Base
except ImportError:
    Base = object

MOST_CONTINUATIONS = 256


def _runs(pairs):
    """[(context, [continuation, …])] of pairs that follow each other, at most what one call takes."""
    for context, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        endings = [pair[1] for pair in group]
        for begin in range(0, len(endings), MOST_CONTINUATIONS):
            yield context, endings[begin:begin + MOST_CONTINUATIONS]


class ScoreModel(Base):
    def __init__(self, endpoint, model, calls=8, timeout=600):
        super().__init__()
        self.channel = grpc.insecure_channel(endpoint, options=[("grpc.enable_http_proxy", 0)])
        self.stub, self.model, self.timeout = pb_grpc.InferenceServiceStub(self.channel), model, timeout
        self.pool = concurrent.futures.ThreadPoolExecutor(calls)

    def _score(self, run):
        context, endings = run
        asked = pb.ScoreRequest(model=self.model, context=pb.Prompt(text=context),
                                continuations=[pb.Prompt(text=ending) for ending in endings])
        answer = self.stub.Score(asked, timeout=self.timeout)
        return [(one.logprob_sum, one.is_greedy) for one in answer.continuations]

    def loglikelihood(self, requests):
        """[(log-likelihood, is greedy)] for requests whose args are (context, continuation)."""
        runs = list(_runs([request.args for request in requests]))
        return [pair for pairs in self.pool.map(self._score, runs) for pair in pairs]

    def loglikelihood_rolling(self, requests):
        """Of whole texts; one longer than the model's context is refused by the server."""
        return [pair[0] for pairs in self.pool.map(self._score, [("", [r.args[0]]) for r in requests]) for pair in pairs]

    def _generate(self, request):
        context, options = request.args
        asked = pb.GenerateRequest(model=self.model, prompt=pb.Prompt(text=context))
        asked.stopping.max_tokens = options.get("max_gen_toks", 256)
        until = options.get("until", [])
        asked.stopping.stop.extend([until] if isinstance(until, str) else until)
        asked.sampling.temperature = options.get("temperature", 0) if options.get("do_sample") else 0
        events = self.stub.Generate(asked, timeout=self.timeout)
        return "".join(event.delta.text for event in events if event.WhichOneof("event") == "delta")

    def generate_until(self, requests):
        return list(self.pool.map(self._generate, requests))
