"""Rows of the section `models` about scores: perplexity beside the peer's, and log-likelihoods beside transformers'."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
from types import SimpleNamespace

import daemon
import dequantize_gguf
import models
import scoring_items
from spine import THREADS, Row, peer_build, serving, smollm2

TOKENS, CONTEXT = 20000, 512
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "data" / "scoring.json"


def missing(arguments, program, path, text):
    """What keeps row h from being measured, with what makes it; None when all is there."""
    if arguments.peer_dir is None:
        return "no --peer-dir (tests/bench/build_peer.sh DIR, then make_models.sh DIR DIR)"
    if not program.exists():
        return f"no {program} (tests/bench/build_peer.sh {arguments.peer_dir})"
    if not path.exists():
        return f"no {path} (tests/bench/make_models.sh {arguments.peer_dir} {path.parent})"
    return None if text is not None else "no texts/wiki.test.raw of the shared test data (set TESSERA_TEST_DATA)"


def peer_perplexity(program, path, text):
    line = [program, "-m", path, "-f", text, "-c", CONTEXT, "--chunks", TOKENS // CONTEXT, "-t", THREADS]
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True, check=True,
                          env={**os.environ, "LD_LIBRARY_PATH": str(program.parent)})
    return float(re.search(r"PPL = ([0-9.]+)", done.stdout + done.stderr).group(1))


def our_perplexity(path, text):
    with tempfile.TemporaryDirectory() as folder:
        zoo = pathlib.Path(folder, "zoo")
        daemon.import_model(zoo, path, "model")
        return json.loads(daemon.command(
            "perplexity", "--zoo", zoo, "--model", "model", "--file", text, "--tokens", TOKENS, "--context", CONTEXT,
            "--set", f"engine.threads={THREADS}", "--json", timeout=3600).stdout)


def perplexity(arguments):
    """The peer is PEER_DIR/native/bin/llama-perplexity, or the AVX-512 one; both read one Q8_0 file of --models."""
    program = pathlib.Path(arguments.peer_dir or "", peer_build(), "bin", "llama-perplexity")
    path = pathlib.Path(arguments.models or "", "SmolLM2-135M-Instruct.Q8_0.gguf")
    text = models.test_data("texts/wiki.test.raw")
    lack = missing(arguments, program, path, text)
    if lack:
        yield Row("h SmolLM2 Q8_0, wiki.test.raw", "not measured", lack, None, "within 0.1 %", False)
        return
    ours, peer = our_perplexity(path, text), peer_perplexity(program, path, text)
    ratio = ours["perplexity"] / peer
    yield Row(f"h SmolLM2 Q8_0, wiki.test.raw, {ours['scored']} of {ours['tokens']} tokens",
              f"perplexity {ours['perplexity']:.4f}", f"{program} {peer:.4f}", ratio, "within 0.1 %",
              abs(ratio - 1) <= 1e-3)


def float_folder():
    """SmolLM2 in float32, where the golden tests keep it."""
    folder = daemon.ROOT / "build" / "golden" / "smollm2-float32"
    if not (folder / "config.json").exists():
        dequantize_gguf.convert(smollm2(), folder)
    return folder


def lm_eval_style(arguments):
    import lm_eval_adapter

    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))["smollm2-float32"]["scores"]
    asked = [SimpleNamespace(args=(context, ending)) for context, endings, _ in scoring_items.items()
             for ending in endings]
    with serving({"model": float_folder()}) as running:
        scorer = lm_eval_adapter.ScoreModel(running.grpc, "model")
        scorer.loglikelihood(asked[:1])
        begin = time.monotonic()
        answers = scorer.loglikelihood(asked)
        took = time.monotonic() - begin
    wanted = [pair for item in expected for pair in item]
    apart = max(abs(total - reference[0]) for (total, _), reference in zip(answers, wanted, strict=True))
    greedy = sum(found == reference[2] for (_, found), reference in zip(answers, wanted))
    yield Row(f"j {len(expected)} items, {len(wanted)} endings, {took:.0f} s", f"apart by {apart:.1e}",
              f"transformers; is_greedy equal for {greedy}", None, "<= 1e-3, all",
              apart <= 1e-3 and greedy == len(wanted))
