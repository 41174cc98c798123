"""Our tokenizers against `tokenizers` and `sentencepiece`: the same ids for any string, and the same texts for any ids."""

import os
import tempfile

import pytest

import tokenizer_oracle
import tokenizer_zoo

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
STRINGS = 300


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield made


def check(case, strings):
    done, differences = tokenizer_oracle.compare(case, strings, 5, tokenizer_oracle.text_lines())
    assert not differences, "\n".join(str(difference) for difference in differences)
    assert done == strings


@pytest.mark.parametrize("make", [
    tokenizer_oracle.qwen3, tokenizer_oracle.llama2, tokenizer_oracle.smollm2, tokenizer_oracle.gpt2,
], ids=lambda make: make.__name__)
def test_published_tokenizer(folder, make):
    case = make(folder)
    if case is None:
        pytest.skip("neither the shared test data (set TESSERA_TEST_DATA) nor the package index has it")
    check(case, 1000)


def test_tokenizers_of_every_kind(folder):
    for case in tokenizer_zoo.cases(folder):
        check(case, STRINGS)


def test_what_is_refused_is_named(folder):
    import json

    base = {"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    for part, content, name in [("decoder", {"type": "CTC"}, "CTC"), ("decoder", {"type": "BPEDecoder", "suffix": "</w>"}, "BPEDecoder"),
                                ("pre_tokenizer", {"type": "UnicodeScripts"}, "UnicodeScripts"),
                                ("model", {**base["model"], "dropout": 0.1}, "model.dropout"),
                                ("decoder", {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}, "behind Fuse")]:
        path = os.path.join(folder, "refused.json")
        with open(path, "w") as file:
            json.dump({**base, part: content}, file)
        with pytest.raises(ValueError, match=name):
            tokenizer_oracle.Ours(path)
