"""Tokenizers of every kind that tokenizer.json can hold, trained here by the `tokenizers` library on a little text."""

import random

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_oracle

LETTERS = [chr(c) for c in range(0x20, 0x7F)]
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{b:02X}>" for b in range(256)]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = CASED % (2 * ("(?i:'s|'t|'re|'ve|'m|'ll|'d)?",) + ("{1,3}",))
TEKKEN = CASED % ("", "", "")
DEEPSEEK3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(*before):
    return pre_tokenizers.Sequence([*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _trained(model, trainer, lines, normalizer=None, pre_tokenizer=None):
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer.model


def _models(lines):
    """Trained models by name; few, since the parts around them vary."""
    metaspace, level = pre_tokenizers.Metaspace(), pre_tokenizers.ByteLevel(add_prefix_space=False)
    common = {"show_progress": False, "vocab_size": 1200}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe, words = models.BPE, pre_tokenizers.Whitespace()
    return {
        "level": _trained(bpe(), trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=SPECIAL, **common), lines, None, level),
        "ignore": _trained(bpe(ignore_merges=True), trainers.BpeTrainer(initial_alphabet=alphabet, **common), lines, None, level),
        "clip": _trained(bpe(unk_token="<unk>", end_of_word_suffix="</w>"),
                         trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=SPECIAL, end_of_word_suffix="</w>", **common), lines, None, level),
        "fallback": _trained(bpe(unk_token="<unk>", fuse_unk=True, byte_fallback=True),
                             trainers.BpeTrainer(special_tokens=SPECIAL + BYTES, **common), lines, None, metaspace),
        "some bytes": _trained(bpe(unk_token="<unk>", fuse_unk=True, byte_fallback=True),
                               trainers.BpeTrainer(special_tokens=SPECIAL + BYTES[60:200], **common), lines, None, metaspace),
        "fused": _trained(bpe(unk_token="<unk>", fuse_unk=True), trainers.BpeTrainer(special_tokens=SPECIAL, **common), lines, None, words),
        "unfused": _trained(bpe(unk_token="<unk>"), trainers.BpeTrainer(special_tokens=SPECIAL, **common), lines, None, words),
        "no unknown": _trained(bpe(), trainers.BpeTrainer(special_tokens=SPECIAL, **common), lines, None, words),
        "affixed": _trained(bpe(unk_token="<unk>", continuing_subword_prefix="##"),
                            trainers.BpeTrainer(special_tokens=SPECIAL, continuing_subword_prefix="##", **common), lines, None, words),
        "unigram": _trained(models.Unigram(), trainers.UnigramTrainer(special_tokens=SPECIAL, unk_token="<unk>", **common), lines, None, metaspace),
        "unigram words": _trained(models.Unigram(), trainers.UnigramTrainer(special_tokens=SPECIAL, unk_token="<unk>", **common), lines, None, words),
        "wordpiece": _trained(models.WordPiece(unk_token="<unk>", max_input_chars_per_word=20),
                              trainers.WordPieceTrainer(special_tokens=SPECIAL, **common), lines, None, words),
        "wordlevel": _trained(models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(special_tokens=SPECIAL, **common), lines, None, words),
    }


def _unigram_with_bytes(model):
    """The same Unigram model with byte tokens."""
    import json

    tokenizer = tokenizers.Tokenizer(model)
    content = json.loads(tokenizer.to_str())
    content["model"]["vocab"] += [[name, -20.0] for name in BYTES]
    content["model"]["byte_fallback"] = True
    return tokenizers.Tokenizer.from_str(json.dumps(content)).model


def _varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def _message_field(data, wanted):
    """The bytes of a length-delimited field of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 2:
            size, at = _varint(data, at)
            if tag >> 3 == wanted:
                return data[at:at + size]
            at += size
        elif tag & 7 == 0:
            at = _varint(data, at)[1]
        else:
            at += 4 if tag & 7 == 5 else 8
    raise KeyError(wanted)


def character_map():
    """The map of nmt_nfkc, as SentencePiece's trainer writes it into a model."""
    import io

    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(tokenizer_oracle.CODE * 20), model_writer=written, vocab_size=80, hard_vocab_limit=False,
                               normalization_rule_name="nmt_nfkc", minloglevel=2)
    return _message_field(_message_field(written.getvalue(), 3), 2)  # normalizer_spec.precompiled_charsmap


# Symbols that hold spaces and marks, that the rules for text would change, and that hold one another.
SYMBOLS = {"user_defined_symbols": ["<tool>", "\u2581\u2581", "  ", "Hello", "Hell", "\n\n", "\u00bd", "the end", "\u2581of", "x\u2581"],
           "control_symbols": ["<|x|>"]}
SENTENCEPIECE = [("nmt_nfkc", {}), ("identity", {"byte_fallback": True}), ("nmt_nfkc symbols", SYMBOLS),
                 ("identity symbols", {"byte_fallback": True, "remove_extra_whitespaces": False, **SYMBOLS}),
                 ("nfkc bare", {"add_dummy_prefix": False}), ("identity bare", {"add_dummy_prefix": False, "remove_extra_whitespaces": False}),
                 ("nmt_nfkc unused", {})]


def _with_unused(model):
    """The same model with every seventh piece unused."""
    from sentencepiece import sentencepiece_model_pb2

    content = sentencepiece_model_pb2.ModelProto.FromString(model)
    for piece in content.pieces[10::7]:
        if piece.type == piece.NORMAL and len(piece.piece) > 1:
            piece.type = piece.UNUSED
    return content.SerializeToString()


def sentencepiece_cases(folder, lines):
    """Models of the sentencepiece library: both kinds, with and without a character map, byte tokens and symbols."""
    import io
    import pathlib

    import sentencepiece

    for kind in ("unigram", "bpe"):
        for name, options in SENTENCEPIECE:
            written = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), model_writer=written, vocab_size=1200, hard_vocab_limit=False,
                model_type=kind, normalization_rule_name=name.split()[0], character_coverage=0.99, minloglevel=2, **options)
            model = _with_unused(written.getvalue()) if name.endswith("unused") else written.getvalue()
            path = pathlib.Path(folder, f"sentencepiece {kind} {name}.model")
            path.write_bytes(model)
            yield tokenizer_oracle.sentencepiece_case(path.stem, path)


def normalizer_list():
    n = normalizers
    return [None, n.Precompiled(character_map()), n.ByteLevel(), n.NFC(), n.NFD(), n.NFKC(), n.NFKD(), n.Lowercase(), n.Sequence([n.NFD(), n.StripAccents()]), n.Strip(),
            n.Sequence([n.Strip(left=True, right=False), n.Lowercase()]), n.Prepend("\u2581"),
            n.Sequence([n.Prepend("\u2581"), n.Replace(" ", "\u2581")]), n.Replace(Regex(r"\s{2,}|\d"), "#"), n.Nmt(),
            n.BertNormalizer(), n.BertNormalizer(clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=True),
            n.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=True, lowercase=False),
            n.Sequence([n.Nmt(), n.NFKC(), n.Replace(Regex(" {2,}"), " ")])]


def plain_pre_tokenizers():
    p = pre_tokenizers
    behaviors = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
    return ([p.Whitespace(), p.WhitespaceSplit(), p.BertPreTokenizer(), p.Metaspace(), p.Metaspace(prepend_scheme="never"),
             p.Metaspace(prepend_scheme="first"), p.Metaspace(prepend_scheme="first", split=False), p.CharDelimiterSplit("e"), p.FixedLength(5),
             p.Sequence([p.Digits(True), p.Metaspace()]), p.Sequence([p.WhitespaceSplit(), p.Digits(), p.Punctuation()]),
             p.Sequence([p.CharDelimiterSplit("e"), p.Metaspace(prepend_scheme="first")])]
            + [p.Punctuation(b) for b in behaviors] + [p.Split("e", b) for b in behaviors] + [p.Split("e", b, True) for b in behaviors]
            + [split(r"[a-m]+", b, i) for b in behaviors for i in (False, True)]
            + [split(p) for p in (r"\w+|[^\w\s]+", r"\d+|\W", r"\h+|[\p{Lu}\p{Lo}&&[^\p{Han}]]+|\p{Han}+|[^\p{L}[\s\d]]", r"[\P{L}a]+|\p{^N}")])


def level_pre_tokenizers():
    p = pre_tokenizers
    return [p.ByteLevel(add_prefix_space=False), p.ByteLevel(add_prefix_space=True), byte_level(split(LLAMA3)), byte_level(split(QWEN2)),
            byte_level(split(GPT4O)), byte_level(split(TEKKEN)), byte_level(split(QWEN2, "removed", True)),
            byte_level(split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK3)),
            p.Sequence([p.Digits(True), p.ByteLevel(add_prefix_space=False)]), p.Sequence([p.ByteLevel(add_prefix_space=True), p.Digits(False)])]


def decoder_list():
    d = decoders
    return [None, d.WordPiece("##"), d.WordPiece("##", cleanup=False), d.Metaspace(), d.Metaspace(prepend_scheme="never"), d.Fuse(), d.ByteFallback(),
            d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)]), d.Sequence([d.Replace("e", "3"), d.Strip("a", 1, 0)]),
            d.Sequence([d.Replace(Regex("[aeiou]"), "_"), d.Fuse()]), d.ByteLevel()]


def _add_tokens(tokenizer, generator):
    """Added tokens with every combination of flags, some within one another."""
    texts = ["<tool>", "<|x|>", "<|x", "Hello", "The end", "\u00c9t\u00e9", "  ", "##", "a b", "\u2581the", "\u4f60\u597d", "ing"]
    for text in generator.sample(texts, 5):
        flags = {flag: generator.random() < 0.4 for flag in ("single_word", "lstrip", "rstrip", "normalized")}
        special = generator.random() < 0.5
        # The library shows a special token whose normalized text differs; we never show one.
        flags["normalized"] = flags["normalized"] and not special
        # One whose normalized text is empty it finds between any two bytes, and panics within a character; we never do.
        if tokenizer.normalizer is not None and not tokenizer.normalizer.normalize_str(text):
            flags["normalized"] = False
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([AddedToken(text, special=special, **flags)])


def _post(generator):
    pair = [("</s>", 2), ("<s>", 1)]
    return generator.choice([None, processors.BertProcessing(*pair), processors.RobertaProcessing(*pair), processors.ByteLevel(),
                             processors.TemplateProcessing(single="<s> $A </s>", pair="$A $B", special_tokens=[("<s>", 1), ("</s>", 2)])])


def cases(folder, seed=0):
    """One case for each normalizer, pre-tokenizer and decoder at least, each with all models over the whole."""
    generator = random.Random(seed)
    lines = tokenizer_oracle.text_lines()[:1500] + tokenizer_oracle.CODE
    yield from sentencepiece_cases(folder, [line[:400] for line in lines])
    trained = _models(lines)
    trained["unigram bytes"] = _unigram_with_bytes(trained["unigram"])
    level = [name for name in ("level", "ignore", "clip")]
    others = [name for name in trained if name not in level]
    plan = [(level, p) for p in level_pre_tokenizers()] * 2 + [(others, p) for p in plain_pre_tokenizers()] + [(others, None)] * 4
    normalizer_turns, decoder_turns, model_turns = normalizer_list(), decoder_list(), {}
    for number, (names, pre_tokenizer) in enumerate(plan):
        turn = model_turns[id(names)] = model_turns.get(id(names), -1) + 1
        name = names[turn % len(names)]
        tokenizer = tokenizers.Tokenizer(trained[name])
        tokenizer.normalizer = normalizer_turns[number % len(normalizer_turns)] if generator.random() < 0.8 else None
        if pre_tokenizer is not None:
            tokenizer.pre_tokenizer = pre_tokenizer
        decoder = decoders.ByteLevel() if names is level else decoder_turns[number % len(decoder_turns)]
        if decoder is not None:
            tokenizer.decoder = decoder
        if generator.random() < 0.7:
            _add_tokens(tokenizer, generator)
        post = _post(generator)
        if post is not None and name != "ignore":
            tokenizer.post_processor = post
        yield tokenizer_oracle.from_library(f"{number} {name}", tokenizer, folder, repairs=names is level)
