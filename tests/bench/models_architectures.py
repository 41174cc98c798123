#!/usr/bin/env python3
"""Row a of the section `models`: each architecture's tiny checkpoints against transformers in float32.

Run as a program with torch and transformers it makes a reference: models_architectures.py NAME FILE.npz
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "support"), str(HERE.parent / "golden")]

import architectures  # noqa: E402
import tiny_llama  # noqa: E402
import tiny_mixtures  # noqa: E402

LENGTHS, PROMPTS_OF_A_LENGTH, STEPS = (9, 33, 65, 150), 8, 64
BOUND = 2e-4  # of the largest logit of the step
ALTERNATIVES = 128  # as many as the sampler reports


def checkpoints():
    """What writes each checkpoint of float32, by its name."""
    found = {name: architectures.write_checkpoint for name in architectures.CONFIGURATIONS}
    for family, prefix in ((tiny_llama, "llama-"), (tiny_mixtures, "")):
        for variant, settings in family.VARIANTS.items():
            if settings.get("dtype", "float32") == "float32":
                found[prefix + variant] = lambda name, folder, write=family.write_checkpoint, own=variant: write(own, folder)
    return found


CHECKPOINTS = checkpoints()


def prompts(name):
    random = numpy.random.RandomState(architectures.seed_of(name) + 1)
    return [random.randint(0, 256, (PROMPTS_OF_A_LENGTH, length)) for length in LENGTHS]


def make_reference(name, path):
    """Tokens [prompts, steps], log-probabilities [prompts, steps, vocabulary], largest logits [prompts, steps]."""
    import torch
    import transformers

    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    tokens, logprobs, scales = [], [], []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        CHECKPOINTS[name](name, folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()
        for ids in prompts(name):
            feed, cache, steps = torch.tensor(ids), None, []
            for _ in range(STEPS):
                out = model(feed, past_key_values=cache, use_cache=True)
                cache, logits = out.past_key_values, out.logits[:, -1].double()
                # The lowest id of equals, as in Tessera.
                feed = torch.tensor([[int((row == row.max()).nonzero()[0])] for row in logits])
                steps.append((feed[:, 0], torch.log_softmax(logits, -1), logits.abs().amax(-1)))
            for k, kept in enumerate((tokens, logprobs, scales)):
                kept.append(torch.stack([step[k] for step in steps], 1).numpy())
    numpy.savez(path, tokens=numpy.concatenate(tokens), logprobs=numpy.concatenate(logprobs),
                scales=numpy.concatenate(scales))


def compare(answer, tokens, logprobs, scales):
    """(largest difference, steps equal, whether it left the reference at a choice that was not close)."""
    worst = 0.0
    for step, (token, expected) in enumerate(zip(answer["token_ids"], tokens)):
        ids, values = zip(*answer["logprobs"][step])
        assert len(set(ids)) == ALTERNATIVES, f"{len(set(ids))} log-probabilities"
        bound = max(1.0, scales[step])
        worst = max(worst, float(numpy.abs(numpy.array(values) - logprobs[step][list(ids)]).max() / bound))
        if token != expected:
            best = numpy.sort(logprobs[step])[-2:]
            return worst, step, bool(best[1] - best[0] > 10 * BOUND * bound)
    return worst, len(tokens), False


def answers(folder, lines):
    """The greedy continuations of chain_logits, an engine alone, over the checkpoint in `folder`."""
    import daemon

    program = daemon.ROOT / "build" / "release" / "tests" / "chain_logits"
    done = subprocess.run([str(program), str(folder)], input="\n".join(lines), capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def figures(arguments):
    import daemon
    import spine

    python = daemon.ROOT / ".cache" / "venv-golden" / "bin" / "python"
    if not python.exists():
        raise SystemExit("row a needs .cache/venv-golden (tests/run.sh --goldens makes it)")
    for name in CHECKPOINTS:
        with tempfile.TemporaryDirectory() as text:
            folder = pathlib.Path(text)
            CHECKPOINTS[name](name, folder / "model")
            lines = [" ".join(map(str, (STEPS, *ids))) for group in prompts(name) for ids in group]
            ours = answers(folder / "model", lines)
            subprocess.run([str(python), __file__, name, str(folder / "reference.npz")], check=True)
            with numpy.load(folder / "reference.npz") as reference:
                yield row(spine.Row, name, ours, {key: reference[key] for key in reference})


def row(make, name, ours, reference):
    worst, equal, wrong = 0.0, 0, 0
    for number, answer in enumerate(ours):
        difference, steps, left = compare(answer, *(reference[key][number] for key in
                                                    ("tokens", "logprobs", "scales")))
        worst, equal, wrong = max(worst, difference), equal + steps, wrong + left
    return make(f"a {name}", f"{worst:.1e} of the largest logit, {equal} of {len(ours) * STEPS} tokens before a tie",
                f"transformers float32, {wrong} clear choices differ", worst / BOUND,
                f"<= {BOUND} and no clear choice differs", worst <= BOUND and wrong == 0)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in CHECKPOINTS:
        sys.exit(__doc__)
    make_reference(sys.argv[1], sys.argv[2])
