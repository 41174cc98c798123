"""`tokenizers` and `sentencepiece` as references of our tokenizers: what to try, and both sides of it."""

import dataclasses
import gzip
import json
import pathlib
import random
import struct
import subprocess
import tempfile
import threading

import daemon
import models

PROGRAM = daemon.ROOT / "build" / "release" / "tests" / "tokenize_lines"
REFUSED = 0xFFFFFFFF


class Ours:
    """Our tokenizer of one file in a program of its own. ValueError with its message when the file is refused."""

    def __init__(self, path):
        self._process = subprocess.Popen([PROGRAM, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._send(b"f", b"")
        self._process.stdin.flush()
        try:
            self.decode([[]])
        except (EOFError, BrokenPipeError):
            raise ValueError(self._process.stderr.read().decode()) from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.stderr.close()
        self._process.wait()

    def encode(self, texts, command="e"):
        """Ids of each text; None where it is refused."""
        return list(self._ask(command, [text.encode() for text in texts], self._ids))

    def decode(self, many):
        return list(self._ask("d", [struct.pack(f"<{len(ids)}I", *ids) for ids in many], lambda: self._read(self._count()).decode()))

    def seconds(self, command, body):
        return next(self._ask(command, [body], lambda: struct.unpack("<d", self._read(8))[0]))

    def _ask(self, command, bodies, answer):
        def write():
            try:
                for body in bodies:
                    self._send(command.encode(), body)
                self._send(b"f", b"")
                self._process.stdin.flush()
            except BrokenPipeError:
                pass
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in bodies:
                yield answer()
        finally:
            writer.join()

    def _send(self, command, body):
        self._process.stdin.write(command + struct.pack("<I", len(body)) + body)

    def _read(self, count):
        data = self._process.stdout.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _count(self):
        return struct.unpack("<I", self._read(4))[0]

    def _ids(self):
        count = self._count()
        return None if count == REFUSED else list(struct.unpack(f"<{count}I", self._read(4 * count)))


@dataclasses.dataclass
class Case:
    """One tokenizer: our file, and the reference's functions."""

    name: str
    path: pathlib.Path
    encode: object          # texts -> ids (None: the reference panics), control tokens are text
    decode: object          # id lists -> texts
    vocabulary: list        # texts to make strings from
    decodable: list         # ids to decode at random
    encode_special: object = None  # texts -> ids, control tokens are found
    encode_full: object = None     # texts -> ids with those around a text
    repairs: bool = False   # whether broken byte runs are repaired as the reference does


# --- strings ---------------------------------------------------------------------------------------------------------

SPACES = " \t\n\r\u000b\u000c\u0085\u00a0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff"
MARKS = "\u0300\u0301\u0308\u0323\u0327\u0345\u05b0\u064b\u093c\u0e31\u3099\u20dd\u200d\ufe0f\U0001f3fd"
CODE = ["def f(x):\n    return x**2 + 1\n", "for (int i = 0; i < n; ++i) { a[i] |= 0x1F; }\n", "SELECT * FROM t WHERE a >= 1.5e-3;",
        "<div class=\"x\">&nbsp;</div>", "{\"k\": [1, null, \"\\u00e9\"]}", "// \u00fcber-Kommentar\r\n#include <a.h>\r\n", "x = y if z else -w  # don't I'LL we've"]
BLOCKS = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80), (0x1100, 0x1200), (0x1E00, 0x2000),
          (0x2000, 0x2C00), (0x3000, 0x3100), (0x3400, 0x9FFF), (0xA000, 0xA800), (0xAC00, 0xD7A4), (0xE000, 0xE100), (0xF900, 0x10000),
          (0x10000, 0x11000), (0x11000, 0x12000), (0x1D000, 0x1E000), (0x1F000, 0x1FB00), (0x20000, 0x2FA20), (0xE0000, 0xE0200)]


def text_lines():
    path = models.test_data("texts/wiki.test.raw")
    spec = models.test_data("texts/spec-bench-part.jsonl")
    lines = [line for line in path.read_text().split("\n") if line] if path else []
    if spec:
        lines += [turn for line in spec.read_text().split("\n") if line for turn in json.loads(line)["turns"]]
    return lines


class Strings:
    """Strings of every kind."""

    def __init__(self, seed, vocabulary, lines):
        self._random = random.Random(seed)
        self._vocabulary = [text for text in vocabulary if text]
        self._lines = lines or ["The quick brown fox."]

    def _character(self):
        while True:
            kind = self._random.random()
            if kind < 0.1:
                code = self._random.randrange(0x110000)
            elif kind < 0.2:
                return self._random.choice(SPACES)
            elif kind < 0.3:
                return self._random.choice(MARKS)
            elif kind < 0.5:
                code = self._random.randrange(0x80)
            else:
                code = self._random.randrange(*self._random.choice(BLOCKS))
            if not 0xD800 <= code < 0xE000:
                return chr(code)

    def _unicode(self):
        return "".join(self._character() for _ in range(self._random.randrange(1, 24)))

    def _runs(self):
        return "".join(self._character() * self._random.randrange(1, 6) for _ in range(self._random.randrange(1, 8)))

    def _tokens(self):
        return "".join(self._random.choice(self._vocabulary) for _ in range(self._random.randrange(1, 10)))

    def _line(self):
        line = self._random.choice(self._lines)
        begin = self._random.randrange(len(line))
        return line[begin:begin + self._random.randrange(1, 160)]

    def _mixed(self):
        return "".join(self._random.choice((self._line, self._unicode, self._tokens))()[:12] for _ in range(4))

    def _code(self):
        return "".join(self._random.choice(CODE) for _ in range(self._random.randrange(1, 3)))[self._random.randrange(12):]

    def next(self):
        kinds = (self._unicode, self._runs, self._line, self._mixed, self._code) + ((self._tokens,) * 2 if self._vocabulary else ())
        return self._random.choice(kinds)()

    def ids(self, decodable):
        return [self._random.choice(decodable) for _ in range(self._random.randrange(1, 12))]


# --- comparing -------------------------------------------------------------------------------------------------------

@dataclasses.dataclass
class Difference:
    case: str
    kind: str
    what: object
    ours: object
    theirs: object


def compare(case, strings, seed, lines, stop=5):
    """Encodes `strings` strings both ways and decodes; gives (strings compared, differences)."""
    source = Strings(seed, case.vocabulary, lines)
    found, done = [], 0
    with Ours(case.path) as ours:
        while done < strings and len(found) < stop:
            texts = [source.next() for _ in range(min(2000, strings - done))]
            done += len(texts)
            kinds = [("encode", "e", case.encode)]
            if case.encode_special:
                kinds.append(("encode special", "s", case.encode_special))
            if case.encode_full:
                kinds.append(("encode full", "b", case.encode_full))
            ids = []
            for kind, command, function in kinds:
                # Each text is encoded one way; the decoded ids are those of all of them.
                part = texts[len(ids):len(ids) + len(texts) // len(kinds)] if kind != kinds[-1][0] else texts[len(ids):]
                theirs, mine = function(part), ours.encode(part, command)
                found += [Difference(case.name, kind, t, a, b) for t, a, b in zip(part, mine, theirs) if a != b is not None]
                ids += [i or [] for i in theirs]
            many = ids + [source.ids(case.decodable) for _ in texts]
            for i, mine, theirs in zip(many, ours.decode(many), case.decode(many)):
                if mine != theirs and (case.repairs or "\ufffd" not in theirs):
                    found.append(Difference(case.name, "decode", i, mine, theirs))
    return done, found[:stop]


# --- the tokenizers --------------------------------------------------------------------------------------------------

def _encode_batch(tokenizer, texts, around):
    """Ids of each text; None where the library panics: at a token with lstrip in white space that one with rstrip took."""
    try:
        return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=around)]
    except BaseException as error:  # its class cannot be imported
        if type(error).__name__ != "PanicException" or "bad split" not in str(error):
            raise
        if len(texts) == 1:
            return [None]
        half = len(texts) // 2
        return _encode_batch(tokenizer, texts[:half], around) + _encode_batch(tokenizer, texts[half:], around)


def from_library(name, tokenizer, folder, **options):
    """A tokenizer of the `tokenizers` library."""
    import tokenizers

    path = pathlib.Path(folder, f"{name}.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(path))
    plain, special = (tokenizers.Tokenizer.from_file(str(path)) for _ in range(2))
    plain.encode_special_tokens = True

    def encode(which, around):
        return lambda texts: _encode_batch(which, texts, around)

    added = special.get_added_tokens_decoder()
    vocabulary = special.get_vocab(with_added_tokens=True)
    return Case(name, path, encode(plain, False), lambda many: special.decode_batch(many), list(vocabulary) + 20 * [t.content for t in added.values()],
                list(vocabulary.values()), encode(special, False), encode(special, True), **options)


def qwen3(folder):
    import tokenizers

    path = models.test_data("tokenizers/qwen3/tokenizer.json.gz")
    return path and from_library("qwen3", tokenizers.Tokenizer.from_str(gzip.open(path).read().decode()), folder, repairs=True)


def sentencepiece_case(name, path):
    """A model file of the sentencepiece library."""
    import sentencepiece

    reference = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ids = [i for i in range(reference.vocab_size()) if not reference.is_unknown(i)]
    pieces = [reference.id_to_piece(i).replace("\u2581", " ") for i in ids]
    return Case(name, path, reference.encode, reference.decode, pieces, ids)


def llama2(_folder):
    path = models.test_data("tokenizers/llama2/tokenizer.model")
    return path and sentencepiece_case("llama2", path)


def gguf(name, path, folder, digits):
    """A byte-level vocabulary of GGUF, beside the library's tokenizer made of the same tokens and merges."""
    import gguf as format_reader
    import tokenizers

    if path is None:
        return None
    fields = format_reader.GGUFReader(path).fields
    texts = [bytes(fields["tokenizer.ggml.tokens"].parts[i]).decode() for i in fields["tokenizer.ggml.tokens"].data]
    types = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
    merges = [bytes(fields["tokenizer.ggml.merges"].parts[i]).decode().split(" ") for i in fields["tokenizer.ggml.merges"].data]
    made = tokenizers.Tokenizer(tokenizers.models.BPE({text: i for i, text in enumerate(texts)}, [tuple(m) for m in merges]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        ([tokenizers.pre_tokenizers.Digits(True)] if digits else []) + [tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t, k in zip(texts, types) if k in (2, 3)])
    case = from_library(name, made, folder, repairs=True)
    return dataclasses.replace(case, path=path, encode_full=None)


def smollm2(folder):
    return gguf("smollm2", models.smollm2_gguf(), folder, True)


def gpt2(folder):
    return gguf("gpt-2", models.test_data("tokenizers/ggml-vocab-gpt-2.gguf"), folder, False)


def real(folder):
    return [case for case in (make(folder) for make in (qwen3, llama2, smollm2, gpt2)) if case]
