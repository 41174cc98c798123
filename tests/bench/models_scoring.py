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


def peer_perplexity(arguments, path, text):
    bin_folder = arguments.peer_dir / peer_build() / "bin"
    line = [bin_folder / "llama-perplexity", "-m", path, "-f", text, "-c", CONTEXT, "--chunks", TOKENS // CONTEXT,
            "-t", THREADS]
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True, check=True,
                          env={**os.environ, "LD_LIBRARY_PATH": str(bin_folder)})
    return float(re.search(r"PPL = ([0-9.]+)", done.stdout + done.stderr).group(1))


def perplexity(arguments):
    if arguments.peer_dir is None:
        raise SystemExit("row h needs --peer-dir (tests/bench/build_peer.sh DIR, then make_models.sh DIR DIR)")
    text = models.test_data("texts/wiki.test.raw")
    if text is None:
        raise SystemExit("row h needs texts/wiki.test.raw of the shared test data (set TESSERA_TEST_DATA)")
    path = arguments.models / "SmolLM2-135M-Instruct.Q8_0.gguf"
    with tempfile.TemporaryDirectory() as folder:
        zoo = pathlib.Path(folder, "zoo")
        daemon.import_model(zoo, path, "model")
        ours = json.loads(daemon.command(
            "perplexity", "--zoo", zoo, "--model", "model", "--file", text, "--tokens", TOKENS, "--context", CONTEXT,
            "--set", f"engine.threads={THREADS}", "--json", timeout=3600).stdout)
    peer = peer_perplexity(arguments, path, text)
    apart = abs(ours["perplexity"] / peer - 1)
    yield Row(f"h SmolLM2 Q8_0, wiki.test.raw, {ours['scored']} of {ours['tokens']} tokens",
              f"perplexity {ours['perplexity']:.4f}", f"llama.cpp ({peer_build()}) {peer:.4f}",
              ours["perplexity"] / peer, "within 0.1 %", apart <= 1e-3)


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


ROWS = {"h": perplexity, "j": lm_eval_style}
