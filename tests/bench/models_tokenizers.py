"""Rows of the section `models` about tokenizers: published vectors, other libraries' ids and texts, and speed beside them."""

import os
import statistics
import struct
import tempfile
import time

import models
import tokenizer_oracle
from spine import Row

RUNS = 3
STRINGS = 2_000_000
SEPARATOR = "\n__ggml_vocab_test__\n"
VECTORS = {"ggml-vocab-bert-bge.gguf": "ggml-vocab-bert-bge.gguf", "ggml-vocab-deepseek-llm.gguf": "ggml-vocab-deepseek-llm.gguf",
           "ggml-vocab-falcon.gguf": "ggml-vocab-falcon.gguf", "ggml-vocab-gpt-2.gguf": "ggml-vocab-gpt-2.gguf",
           "ggml-vocab-llama-spm.gguf": "ggml-vocab-llama-spm.gguf", "llama2/tokenizer.model": "ggml-vocab-llama-spm.gguf"}


def _vectors_of(path, vectors):
    texts = (vectors.parent / f"{vectors.name}.inp").read_text().split(SEPARATOR)
    ids = [[int(i) for i in line.split()] for line in (vectors.parent / f"{vectors.name}.out").read_text().split("\n")]
    cases = list(zip(texts, ids))[:-1]  # both files end with a separator
    with tokenizer_oracle.Ours(path) as ours:
        mine = ours.encode([text for text, _ in cases])
    return len(cases), sum(a == b for a, (_, b) in zip(mine, cases))


def vectors(arguments):
    """Published texts with their ids, one row a vocabulary."""
    folder = models.test_data("tokenizers")
    if folder is None:
        raise SystemExit("row c needs the shared test data (set TESSERA_TEST_DATA)")
    with tempfile.TemporaryDirectory() as scratch:
        pairs = [(name, folder / name, folder / base) for name, base in VECTORS.items()]
        pairs.append(("qwen3", tokenizer_oracle.qwen3(scratch).path, folder / "qwen3" / "qwen2"))
        for name, path, base in pairs:
            count, equal = _vectors_of(path, base)
            yield Row(f"c vectors {name}", f"{equal} equal", f"llama.cpp {count}", equal / count, "100 %", equal == count)


def differential(arguments):
    """Strings of every kind through tokenizers of every kind; the same number each."""
    import tokenizer_zoo

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with tempfile.TemporaryDirectory() as scratch:
        cases = tokenizer_oracle.real(scratch) + list(tokenizer_zoo.cases(scratch))
        lines = tokenizer_oracle.text_lines()
        total, differences = 0, []
        for number, case in enumerate(cases):
            done, found = tokenizer_oracle.compare(case, -(-STRINGS // len(cases)), 1000 + number, lines)
            total += done
            differences += found
    for difference in differences[:20]:
        print(difference)
    yield Row(f"c strings through {len(cases)} tokenizers, both directions", f"{len(differences)} differences",
              f"{total} strings", None, "0 of >= 2000000", not differences and total >= STRINGS)


def speed(arguments):
    """One thread each, in turns; encoding 10 MB of text, and decoding what came of it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers

    text = models.test_data("texts/wiki.test.raw").read_text()
    text *= -(-10_000_000 // len(text.encode()))
    # Whole lines up to the longest text that one call takes, since both sides encode one text at a time.
    limit = 4_000_000
    parts = [text[i:i + limit] for i in range(0, len(text), limit)]
    megabytes = sum(len(part.encode()) for part in parts) / 1e6
    with tempfile.TemporaryDirectory() as scratch:
        for case in (tokenizer_oracle.qwen3(scratch), tokenizer_oracle.smollm2(scratch)):
            reference = tokenizers.Tokenizer.from_file(f"{scratch}/{case.name}.json")
            yield from _speed_of(case, reference, parts, megabytes)


def _speed_of(case, reference, parts, megabytes):
    times = {"encode": ([], []), "decode": ([], [])}
    with tokenizer_oracle.Ours(case.path) as ours:
        ids = [reference.encode(part, add_special_tokens=False).ids for part in parts]
        packed = [struct.pack(f"<{len(part)}I", *part) for part in ids]
        for _ in range(RUNS):
            times["encode"][0].append(sum(ours.seconds("T", part.encode()) for part in parts))
            times["decode"][0].append(sum(ours.seconds("D", part) for part in packed))
            times["encode"][1].append(_seconds(lambda: [reference.encode(part, add_special_tokens=False) for part in parts]))
            times["decode"][1].append(_seconds(lambda: [reference.decode(part) for part in ids]))
    for direction, (ours, theirs) in times.items():
        mine, other = megabytes / statistics.median(ours), megabytes / statistics.median(theirs)
        yield Row(f"d {case.name} {direction}, one thread", f"{mine:.1f} MB/s", f"tokenizers {other:.2f} MB/s", mine / other, ">= 3x", mine >= 3 * other)
        if direction == "encode":
            yield Row(f"d {case.name} encode, one core", f"{mine:.1f} MB/s", "8 MB/s", mine / 8, ">= 8 MB/s", mine >= 8)


def _seconds(work):
    begin = time.monotonic()
    work()
    return time.monotonic() - begin
