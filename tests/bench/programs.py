"""Runs the bench programs of a build or a bundle, and reads what they print."""

import os
import pathlib
import re
import subprocess

import daemon

HERE = pathlib.Path(__file__).resolve().parent


def bundle():
    """The folder that a bundle was unpacked to."""
    return pathlib.Path(os.environ.get("TESSERA_BUNDLE", HERE.parent))


if (bundle() / "tessera").is_file():
    os.environ.setdefault("TESSERA_BINARY", str(bundle() / "tessera"))  # for the support modules


def run(*line, timeout=600):
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise SystemExit(f"{line[0]} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def pairs(line):
    """{name: value} of a line; a name that comes twice would hide a figure."""
    words, found = line.split(), {}
    for name, value in zip(words, words[1:]):
        if re.fullmatch(r"[-+0-9.e]+", value):
            if name in found:
                raise SystemExit(f"the name {name!r} comes twice: {line}")
            found[name] = float(value)
    return found


def engine_lines(zoo, chains, cases, *flags, before=()):
    """What engine_bench printed, by case; `before` is put in front of the command line. Of a case that was asked for
    several times, the last."""
    program = pathlib.Path(daemon.binary()).parent / "bench" / "engine_bench"
    text = run(*before, program, "--zoo", zoo, "--chain", chains, *flags, *cases)
    found = {}
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "decode":
            found[f"decode:{words[2]}:{words[4]}"] = pairs(line)
        elif ":" in words[0]:
            found[words[0]] = pairs(line)
        elif words[0] in ("load", "link", "read", "peak"):
            found[words[0]] = pairs(line)
    return found
