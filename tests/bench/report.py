#!/usr/bin/env python3
"""Measures a section's rows and prints one line each: `row · ours · peer or limit · ratio · target · ok|short|unmeasured`.

    tests/bench/report.py SECTION [ROW...] [--peer-dir DIR] [--models DIR] [--cpus LIST] [--quick]

--peer-dir is what build_peer.sh made, --models what make_models.sh made (default: the peer's folder). Peer and ours
run in turns within the same call, and medians are compared. Exits with 1 if a row is short of its target, or could not
be measured on this machine. In the section `cpu`, --cpus keeps both sides on these processors, and --quick measures
once instead of five times, with fewer steps.
"""

import argparse
import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parent / "golden"), str(HERE.parent / "e2e")]

# Rows by section: the function that measures them. A section's modules are loaded when it is asked for: what they need
# (torch, tokenizers) need not be there for the others.
SECTIONS = {
    "cpu": {
        "a": "cpu.one_stream",
        "b": "cpu.eight_streams",
        "c": "cpu.many_streams",
        "d": "cpu.prompts",
        "e": "cpu.avx512",
        "e2": "cpu.avx2",
        "f": "cpu_engine.read_share",
        "g": "cpu_engine.outside_kernels",
        "h": "cpu_engine.shared_chains",
        "i": "cpu_scoring.accuracy",
    },
    "gpu": {name: f"{'gpu_kernels' if name in 'efg' else 'gpu'}.ROWS.{name}" for name in "abcdefghijkl"},
    "models": {
        "a": "models_architectures.figures",
        "b": "models_types.types",
        "c": "models_tokenizers.vectors",
        "c2": "models_tokenizers.differential",
        "d": "models_tokenizers.speed",
        "e": "models_templates.templates",
        "f": "models_formats.export",
        "g": "models_formats.import_speed",
        "h": "models_scoring.perplexity",
        "i": "models_formats.damage",
        "j": "models_scoring.lm_eval_style",
    },
    "spine": {
        "a": "spine.one_stream",
        "b": "spine_share.shared_layers",
        "c": "spine.many_streams",
        "d": "spine.prefix",
        "e": "spine_build.build",
        "e2": "spine_build.test_runs",
        "f": "spine_build.quickstart",
        "g": "spine.start_and_idle",
        "h": "spine_build.fuzz",
    },
}


def measure(place):
    """The function that a place such as "module.function" names."""
    module, *names = place.split(".")
    found = importlib.import_module(module)
    for name in names:
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


def line(row):
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    verdict = "unmeasured" if row.ok is None else "ok" if row.ok else "short"
    return " · ".join([row.name, row.ours, row.beside, ratio, row.target, verdict])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("section", choices=sorted(SECTIONS))
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--peer-dir", type=pathlib.Path)
    parser.add_argument("--models", type=pathlib.Path)
    parser.add_argument("--vllm", type=pathlib.Path, help="what the peer's bench printed in the same call")
    parser.add_argument("--cpus", help="of the section cpu: the processors for both sides, as taskset takes them")
    parser.add_argument("--quick", action="store_true", help="of the section cpu: one short measurement each")
    arguments = parser.parse_args()
    arguments.models = arguments.models or arguments.peer_dir
    table = SECTIONS[arguments.section]
    unknown = [name for name in arguments.rows if name not in table]
    if unknown:
        parser.error(f"no row {unknown}; there are {list(table)}")
    short = False
    for name in arguments.rows or table:
        for row in measure(table[name])(arguments):
            print(line(row), flush=True)
            short = short or not row.ok
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
