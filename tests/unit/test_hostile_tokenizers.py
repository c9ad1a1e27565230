"""Untrusted tokenizers: `tokenizers` does whatever a tokenizer.json says, so its content is validated first."""

import base64
import json
import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from isinglass.errors import CheckpointError
from isinglass.models.tokenizer import check_tokenizer

A, B = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
CLS, SEP = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
SPECIALS = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in (("[CLS]", 2), ("[SEP]", 3))}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [CLS, A, SEP],
    "pair": [CLS, A, SEP, B, SEP],
    "special_tokens": SPECIALS,
}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
SHRINK = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "b": 5, "##a": 6}
WORD_LEVEL = {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "[UNK]"}
WORD_PIECE = {
    "type": "WordPiece",
    "vocab": VOCABULARY,
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}
BPE = {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}, "merges": [["a", "b"]], "unk_token": None}
UNIGRAM = {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.0], ["▁", -2.0]], "unk_id": 0, "byte_fallback": False}
BERT_NORMALIZER = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}


def tokenizer(**changes: object) -> dict[str, object]:
    """Return a `tokenizer.json` like BERT's, with the given changes."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": BERT_NORMALIZER,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": TEMPLATE,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": WORD_PIECE,
        **changes,
    }


def added(content: str, **changes: object) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": 9, "content": content, **flags, **changes}


def sequence(key: str, *parts: object) -> dict[str, object]:
    return {"type": "Sequence", key: parts}


def charsmap(units: list[int], pool: bytes = b"") -> dict[str, str]:
    """Return a normalizer like SentencePiece's: a trie of these nodes, and the replacements that its leaves point to."""
    table = struct.pack("<I", 4 * len(units)) + np.array(units, "<u4").tobytes() + pool
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


def trie_for_a(value: int) -> list[int]:
    """Return a trie with the single key "a" and this value: root, node and leaf in the layout of Darts-clone."""
    units = [0] * 512
    units[0] = 1 << 10  # its children begin at unit 1
    units[1 ^ ord("a")] = ord("a") | 1 << 8 | (256 ^ 1 ^ ord("a")) << 10  # has a leaf, at unit 256
    units[256] = 1 << 31 | value
    return units


DISTIL_OLD = {key: value for key, value in WORD_PIECE.items() if key != "type"}  # as in the first files of this format
ROBERTA = tokenizer(
    normalizer=None,
    pre_tokenizer=BYTE_LEVEL,
    model=BPE,
    post_processor={
        "type": "RobertaProcessing",
        "sep": ["</s>", 1],
        "cls": ["<s>", 0],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
    decoder=BYTE_LEVEL,
)
SENTENCEPIECE = tokenizer(
    normalizer=sequence("normalizers", charsmap(trie_for_a(0), b"b\0"), SHRINK),
    pre_tokenizer=sequence("pretokenizers", {"type": "WhitespaceSplit"}, METASPACE),
    model=UNIGRAM,
    decoder=METASPACE,
)
SOUND = {
    "BERT": tokenizer(),
    "without a type": tokenizer(model=DISTIL_OLD),
    "with added tokens": tokenizer(added_tokens=[added("[CLS]", id=2, special=True), added("<x>", normalized=True)]),
    "padded and truncated": tokenizer(
        padding={
            "strategy": {"Fixed": 8},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        truncation={"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
    ),
    "BERT's old processor": tokenizer(post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}),
    "RoBERTa": ROBERTA,
    "SentencePiece": SENTENCEPIECE,
}


@pytest.mark.parametrize("name", SOUND)
def test_tokenizers_of_the_served_kinds_are_taken(name: str) -> None:
    check_tokenizer(json.dumps(SOUND[name]), Path("tokenizer.json"))


def test_the_embedded_models_tokenizer_is_taken() -> None:
    from isinglass.models.source import demo_directory

    path = demo_directory() / "tokenizer.json"
    check_tokenizer(path.read_text(encoding="utf-8"), path)


def test_what_a_charsmap_says_is_what_tokenizers_does() -> None:
    """Otherwise validation would inspect another trie than the one that `tokenizers` follows."""
    from tokenizers import Tokenizer

    normalizer = Tokenizer.from_str(json.dumps(SENTENCEPIECE)).normalizer
    assert normalizer.normalize_str("a  cat") == "b cbt"


REGEX = "(a+)+$"
NODE = trie_for_a(0)


def replace(pattern: dict[str, str], content: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def template(**changes: object) -> dict[str, object]:
    return tokenizer(post_processor={**TEMPLATE, **changes})


def node(at: int, value: int) -> dict[str, str]:
    return charsmap([*NODE[:at], value, *NODE[at + 1 :]], b"b\0")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param(
            tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": REGEX}, "behavior": "Isolated", "invert": False}),
            "pre_tokenizer of type 'Split'",
            id="split",
        ),
        pytest.param(
            tokenizer(normalizer=replace({"Regex": REGEX}, "x")),
            "the regular expression '(a+)+$', which is not served",
            id="replace",
        ),
        pytest.param(
            tokenizer(normalizer={"pattern": {"Regex": REGEX}, "content": "x"}),
            "normalizer of type None",
            id="without a type",
        ),
        pytest.param(
            tokenizer(normalizer=sequence("normalizers", sequence("normalizers", replace({"Regex": REGEX}, "")))),
            "'(a+)+$'",
            id="sequences",
        ),
        pytest.param(
            tokenizer(decoder=sequence("decoders", replace({"Regex": "(a{9999}){9999}"}, ""))),
            "a decoder with the regular",
            id="decoder",
        ),
        pytest.param(tokenizer(normalizer=replace({"Regex": "("}, "x")), "the regular expression '('", id="no expression"),
        pytest.param(
            tokenizer(normalizer=sequence("normalizers", *[replace({"String": "a"}, "aa")] * 30)),
            "longer without end",
            id="doubling",
        ),
        pytest.param(tokenizer(normalizer=replace({"String": ""}, "")), "longer without end", id="everywhere"),
        pytest.param(tokenizer(normalizer=sequence("normalizers", *[{"type": "NFKC"}] * 2)), "NFKC twice", id="NFKC"),
        pytest.param(
            tokenizer(pre_tokenizer=sequence("pretokenizers", *[BYTE_LEVEL] * 30)), "ByteLevel twice", id="bytes of bytes"
        ),
        pytest.param(tokenizer(pre_tokenizer={"type": "FixedLength", "length": 0}), "'FixedLength'", id="length 0"),
        pytest.param(tokenizer(normalizer={"type": "Prepend", "prepend": "a" * 10**6}), "'Prepend'", id="prepend"),
        pytest.param(tokenizer(normalizer=[]), "normalizer of type []", id="list"),
        pytest.param(tokenizer(normalizer="NFC"), "normalizer of type 'NFC', which is not served", id="bare string"),
        pytest.param(
            tokenizer(pre_tokenizer=sequence("pretokenizers", {"type": "WhitespaceSplit"}, "ByteLevel")),
            "pre_tokenizer of type 'ByteLevel', which is not served",
            id="bare string in a sequence",
        ),
        pytest.param(tokenizer(normalizer=charsmap([], b"")), "charsmap that is damaged", id="no trie"),
        pytest.param(tokenizer(normalizer=charsmap([1 << 10], b"b\0")), "charsmap that is damaged", id="short trie"),
        pytest.param(tokenizer(normalizer=node(0, 1 << 30)), "charsmap that is damaged", id="root leads out"),
        pytest.param(tokenizer(normalizer=node(0, 1 << 31 | 1 << 30)), "charsmap that is damaged", id="root is a leaf"),
        pytest.param(
            tokenizer(normalizer=node(1 ^ ord("a"), ord("a") | 0x7FFFFE00)), "charsmap that is damaged", id="node leads out"
        ),
        pytest.param(tokenizer(normalizer=node(256, 1 << 31 | 2)), "charsmap that is damaged", id="behind the pool"),
        pytest.param(
            tokenizer(normalizer=charsmap(trie_for_a(1), "é\0".encode())), "charsmap that is damaged", id="within a letter"
        ),
        pytest.param(tokenizer(normalizer=charsmap(NODE, b"\xff\0")), "charsmap that is damaged", id="no UTF-8"),
        pytest.param(
            tokenizer(normalizer=charsmap(NODE, b"x" * 10**6)), "becomes more than 64 bytes", id="a megabyte a letter"
        ),
        *(
            pytest.param(
                tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": text}),
                "charsmap that is damaged",
                id=f"charsmap {text}",
            )
            for text in ("", "AAAA", "%%%%", "AQAAAA==", "AAAAAB==", "/////w==", None, 7, "é")
        ),
        pytest.param(template(single=[A, A]), "template for single texts", id="twice the text"),
        pytest.param(template(pair=[A, *[B] * 1000]), "template for pair texts", id="a thousand times"),
        pytest.param(template(single=[B]), "template for single texts", id="the second of one"),
        pytest.param(template(pair=[]), "template for pair texts", id="nothing"),
        pytest.param(template(special_tokens={}), "of tokens that it defines", id="undefined"),
        pytest.param(template(single="$A"), "without its parts", id="a text"),
        pytest.param(template(single=[{"Sequence": "A"}]), "without its parts", id="no object"),
        pytest.param(
            template(special_tokens={**SPECIALS, "[SEP]": {"id": "[SEP]", "ids": [2**32 - 1], "tokens": ["x"]}}),
            "a token id beyond",
            id="id",
        ),
        pytest.param(template(single=[{"Sequence": {"id": "A", "type_id": 256}}]), "and their types", id="type"),
        pytest.param(tokenizer(model=None), "no model with a vocabulary", id="no model"),
        pytest.param(tokenizer(model={**BPE, "continuing_subword_prefix": "####"}), "do not go together", id="prefix"),
        pytest.param(
            tokenizer(model={**BPE, "merges": [["x", "y"]]}), "cannot be used (Token `x` out of vocabulary", id="merge"
        ),
        pytest.param(tokenizer(model={**BPE, "unk_token": "?"}), "no '?' in its vocabulary", id="BPE's unknown"),
        pytest.param(
            tokenizer(model={**WORD_LEVEL, "unk_token": "?"}), "no '?' in its vocabulary", id="WordLevel's unknown"
        ),
        pytest.param(
            tokenizer(model={**WORD_PIECE, "unk_token": "?"}), "no '?' in its vocabulary", id="WordPiece's unknown"
        ),
        pytest.param(
            tokenizer(model={**WORD_PIECE, "max_input_chars_per_word": 10**9}), "words of up to 1000000000", id="long words"
        ),
        pytest.param(tokenizer(model={**UNIGRAM, "unk_id": None}), "no unk_id", id="Unigram's unknown"),
        pytest.param(tokenizer(model={**UNIGRAM, "unk_id": 7}), "cannot be used", id="unknown beyond"),
        pytest.param(tokenizer(model={**WORD_LEVEL, "vocab": {**VOCABULARY, "z": 2**31}}), "a token id beyond", id="int32"),
        pytest.param(tokenizer(model={**WORD_LEVEL, "vocab": {**VOCABULARY, "z": 2**70}}), "cannot be used", id="2**70"),
        pytest.param(tokenizer(model={**WORD_LEVEL, "vocab": {**VOCABULARY, "z": -1}}), "cannot be used", id="-1"),
        pytest.param(
            tokenizer(model={**WORD_LEVEL, "vocab": {**VOCABULARY, "\ud800": 9}}), "cannot be used", id="half a letter"
        ),
        pytest.param(
            tokenizer(
                added_tokens=[added("  ", normalized=True)],
                normalizer={"type": "Strip", "strip_left": True, "strip_right": True},
            ),
            "its normalizer leaves nothing",
            id="vanishing",
        ),
        pytest.param({}, "no model with a vocabulary", id="nothing at all"),
    ],
)
def test_what_could_hang_crash_or_swell_is_refused(changed: dict[str, object], expected: str, capfd) -> None:
    """Each of these loads in `tokenizers` or causes a panic, which writes to standard error by itself."""
    started = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        check_tokenizer(json.dumps(changed), Path("dir/tokenizer.json"))
    said = str(caught.value)
    assert said.startswith("dir/tokenizer.json ")
    assert expected in said
    assert "\n" not in said
    assert len(said) < 500
    assert time.monotonic() - started < 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text", ["", "not json", "[]", "null", '{"model": ' * 10**5, '{"version": NaN}', '{"a": 1, "a": 2}', "{}", "1" * 10**5]
)
def test_what_is_no_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"^tokenizer\.json"):
        check_tokenizer(text, Path("tokenizer.json"))


def test_a_type_that_stands_twice_hides_nothing() -> None:
    """Python uses the last of two equal keys, and Rust may use the first."""
    twice = json.dumps(tokenizer(normalizer={"type": "NFC"})).replace('"type": "NFC"', '"type": "Split", "type": "NFC"')
    with pytest.raises(CheckpointError, match="names 'type' twice"):
        check_tokenizer(twice, Path("tokenizer.json"))


def test_odd_words_in_a_vocabulary_are_words() -> None:
    """Words of a megabyte, of zero bytes, or without characters are only looked up, so they are accepted."""
    odd = {"\0": 7, "": 8, "x" * 10**6: 9, "\u202e\x1b[2J": 10, "##": 11}
    check_tokenizer(json.dumps(tokenizer(model={**WORD_PIECE, "vocab": VOCABULARY | odd})), Path("tokenizer.json"))


def spoilt(value: object, rng: random.Random) -> object:
    """Return the same JSON with one value somewhere in it replaced, removed or repeated."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice([*value])
        if rng.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: spoilt(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        kept = [[], [value[at]] * 2, [spoilt(value[at], rng)], [spoilt(value[at], rng)]]
        return [*value[:at], *rng.choice(kept), *value[at + 1 :]]
    odd = (None, True, 0, 1, -1, 255, 256, 2**31, 2**32, 1e30, "", "a", "[CLS]", "\0", "é", "A", [], {}, [1], {"id": "A"})
    parts = (BYTE_LEVEL, METASPACE, SHRINK, BERT_NORMALIZER, TEMPLATE, WORD_PIECE, BPE, UNIGRAM, {"type": "Nmt"})
    return rng.choice(rng.choice((odd, parts)))


@pytest.mark.parametrize("name", ["BERT", "with added tokens", "padded and truncated", "RoBERTa", "SentencePiece"])
def test_what_is_taken_tokenizes_and_what_is_not_is_said(name: str, capfd) -> None:
    """Whatever is changed in a file, there must be no panic, no other exception, and no text that grows without limit."""
    from tokenizers import Tokenizer

    texts = ("", "a b ab  a", "aaaa" * 50 + "!", "\0\u202e\t ﷺ é ① 是 🙂", "[CLS] <x> [SEP]")
    rng = random.Random(name)
    taken = refused = 0
    for _ in range(300):
        text = json.dumps(spoilt(SOUND[name], rng))
        try:
            check_tokenizer(text, Path("tokenizer.json"))
        except CheckpointError:
            refused += 1
            continue
        taken += 1
        one = Tokenizer.from_str(text)
        one.no_padding()
        one.enable_truncation(64, strategy="longest_first")
        for encoding in one.encode_batch_fast([*texts, *((text, texts[1]) for text in texts)]):
            assert len(encoding) <= 64
            assert max(encoding.type_ids, default=0) < 256
    assert taken > 30
    assert refused > 100
    assert capfd.readouterr().err == ""
