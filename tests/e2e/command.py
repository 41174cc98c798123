"""The program as one command: its exit codes, its errors, its JSON."""

import json
import re

import daemon

OK, FAILED, USAGE, UNAVAILABLE, NOT_FOUND, DATA_LOSS = range(6)


def fails(code, *arguments, **options):
    """Runs a command that must end with `code`; returns its stderr, which must be an error in our form."""
    done = daemon.command(*arguments, check=False, timeout=60, **options)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.stderr.startswith("error: "), done.stderr
    for line in done.stderr.splitlines()[1:]:
        assert re.match(r"  (where|why  |fix  )  |         ", line), done.stderr
    return done.stderr


def as_json(*arguments, **options):
    return json.loads(daemon.command(*arguments, **options).stdout)
