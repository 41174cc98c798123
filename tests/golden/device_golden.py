#!/usr/bin/env python3
"""Greedy answers of a daemon on a device against transformers: needs torch and transformers, and a device for both.

    tests/golden/device_golden.py [--device cuda|cpu]

For each checkpoint and prompt the daemon answers with its ten best log-probabilities a step; transformers then scores
the same tokens, in float32 and in bfloat16. The daemon's distance from float32 (root mean square over those ids) must
be no more than SLACK times transformers' own bfloat16 distance, and where float32 has a clear choice the daemon must
make it. Prints a line a checkpoint and ends with `N passed, N failed`.
"""

import argparse
import json
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import daemon  # noqa: E402
import numpy  # noqa: E402
import tiny_llama  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

SLACK, CLEAR_GAP, STEPS, TOP = 1.3, 0.5, 40, 10
PROMPTS = (1, 5, 63, 64, 65, 130, 300, 430)


def scores(model, tokens, device):
    with torch.no_grad():
        logits = model(torch.tensor([tokens], device=device)).logits[0].double()
    return torch.log_softmax(logits, -1).cpu().numpy()


def compare(variant, device):
    random = numpy.random.RandomState(5)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        tiny_llama.write_checkpoint(variant, folder / "checkpoint")
        daemon.import_model(folder / "zoo", folder / "checkpoint", "model")
        load = transformers.AutoModelForCausalLM.from_pretrained
        wide = load(folder / "checkpoint", dtype=torch.float32)
        narrow = load(folder / "checkpoint", dtype=torch.bfloat16).to(device)
        ours, theirs, clear, agreed = [], [], 0, 0
        with daemon.Daemon(folder / "zoo", folder / "run", {"engine": {"device": device}}) as running:
            for length in PROMPTS:
                prompt = [int(token) for token in random.randint(0, 256, length)]
                answer = json.loads(daemon.command(
                    "generate", "--endpoint", running.grpc, "--model", "model", "--token-ids",
                    ",".join(map(str, prompt)), "--max-tokens", STEPS, "--temperature", 0, "--ignore-eos", "--json",
                    "--logprobs", TOP).stdout)
                tokens = prompt + answer["token_ids"]
                reference, half = scores(wide, tokens, "cpu"), scores(narrow, tokens, device)
                for step, top in enumerate(answer["logprobs"]):
                    row = length - 1 + step
                    for token, value in top:
                        ours.append(value - reference[row][token])
                        theirs.append(half[row][token] - reference[row][token])
                    best = numpy.sort(reference[row])[::-1]
                    if best[0] - best[1] > CLEAR_GAP:
                        clear += 1
                        agreed += int(answer["token_ids"][step] == int(numpy.argmax(reference[row])))
    rms, rms_half = (float(numpy.sqrt(numpy.mean(numpy.square(v)))) for v in (ours, theirs))
    passed = rms <= SLACK * rms_half and agreed == clear and clear > 50
    print(f"{'ok  ' if passed else 'FAIL'} {variant}: {rms:.5f} from float32, transformers in bfloat16 {rms_half:.5f}; "
          f"{agreed} of {clear} clear choices", flush=True)
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    results = [compare(variant, arguments.device) for variant in ("heads64", "heads128")]
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
