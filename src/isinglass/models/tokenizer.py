"""Whether the `tokenizer.json` of a stranger may be handed to `tokenizers`, which does what the file says.

A regular expression can take exponential time (`(a+)+$`), a chain of replacements can double a text thirty times, a
template can repeat it a million times, and a reference to nothing is a panic in Rust. So the parts that served
tokenizers are made of are listed here, and everything else is refused.
"""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from isinglass.errors import CheckpointError
from isinglass.models.files import parse_json
from isinglass.names import brief, printable

# Section -> the parts it may be made of, and where a sequence keeps its own. BERT, DistilBERT and ELECTRA have the parts
# named after BERT, RoBERTa has ByteLevel; the others are those of models trained with SentencePiece or by hand.
SECTIONS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "normalizer": (
        "normalizers",
        (
            "BertNormalizer",
            "Lowercase",
            "NFC",
            "NFD",
            "NFKC",
            "NFKD",
            "Nmt",
            "Precompiled",
            "Replace",
            "Strip",
            "StripAccents",
        ),
    ),
    "pre_tokenizer": (
        "pretokenizers",
        ("BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit"),
    ),
    "post_processor": ("processors", ("BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing")),
}

# The regular expressions that a file may bring along -> the least that each matches. Served tokenizers have none (that of
# ByteLevel is built in), but for this one of models converted from SentencePiece: it never goes back over a text.
PATTERNS: Final = {" {2,}": 2}

MAX_WORD: Final = 1000  # characters; WordPiece's time grows with the square of a word's length, and BERT's limit is 100
MAX_REPLACEMENT: Final = 64  # bytes that one character may become by a table; the longest in Unicode takes 33


def check_tokenizer(tokenizer_json: str, path: Path) -> None:
    """Refuse a tokenizer that is none, or that could hang, crash or swell where its texts are tokenized.

    Args:
        tokenizer_json: the text of the file at `path`.

    Raises:
        CheckpointError: it is so, or it is made of parts that none of the served families has.
    """
    values = parse_json(tokenizer_json, str(path))
    wrong = _fault_in_parts(values) or _fault_in_use(tokenizer_json)
    if wrong is not None:
        raise CheckpointError(f"{path} {wrong}: choose a checkpoint with a tokenizer as BERT's or RoBERTa's.")


def _fault_in_parts(values: dict[str, Any]) -> str | None:
    """What is wrong with the parts by themselves; None if nothing is."""
    for section, (_, known) in SECTIONS.items():
        seen = set()
        for part in _parts(values.get(section), section):
            kind = part.get("type") if isinstance(part, dict) else part
            if not isinstance(kind, str) or kind not in known:
                return f"has a {section} of type {brief(kind)}, which is not served"
            if kind in seen and kind != "Replace":  # which never makes a text longer
                return f"has {kind} twice in its {section}, which could make texts longer without end"
            seen.add(kind)
            if wrong := _FAULTS.get(kind, lambda _: None)(part):
                return wrong
    for pattern in _patterns(values.get("decoder")):
        if pattern not in PATTERNS:
            return f"has a decoder with the regular expression {brief(pattern)}, which is not served"
    model = values.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        return "has no model with a vocabulary"
    if "merges" in model and model.get("continuing_subword_prefix"):
        return "has merges and a continuing_subword_prefix, which do not go together"
    longest = model.get("max_input_chars_per_word")
    if isinstance(longest, int) and longest > MAX_WORD:
        return f"takes words of up to {brief(longest)} characters apart; at most {MAX_WORD} were expected"
    if isinstance(model["vocab"], list) and model.get("unk_id") is None:
        return "has no unk_id, which stands for what is not in the vocabulary"
    return None


def _parts(part: Any, section: str) -> Iterator[Any]:
    """A section's parts, sequences taken apart; nothing for null."""
    key, _ = SECTIONS[section]
    if isinstance(part, dict) and part.get("type") == "Sequence" and isinstance(part.get(key), list):
        for inner in part[key]:
            yield from _parts(inner, section)
    elif part is not None:
        yield part


def _patterns(value: Any) -> Iterator[Any]:
    """Every regular expression at any depth."""
    if isinstance(value, dict):
        if "Regex" in value:
            yield value["Regex"] if isinstance(value["Regex"], str) else None
        for inner in value.values():
            yield from _patterns(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _patterns(inner)


def _fault_in_replacement(part: dict[str, Any]) -> str | None:
    """A replacement is of a literal text, or by a known expression, and makes the text no longer."""
    pattern, content = part.get("pattern"), part.get("content")
    if not isinstance(pattern, dict) or len(pattern) != 1 or not isinstance(content, str):
        return "has a Replace that names no pattern or no content"
    ((kind, wanted),) = pattern.items()
    least = PATTERNS.get(str(wanted)) if kind == "Regex" else len(str(wanted))
    if least is None:
        return f"has a Replace with the regular expression {brief(wanted)}, which is not served"
    if not least or len(content) > least:
        return f"has a Replace of {brief(wanted)} by {brief(content)}, which could make texts longer without end"
    return None


def _fault_in_charsmap(part: dict[str, Any]) -> str | None:
    """SentencePiece's table of replacements: a trie, whose leaves say where in a pool of texts the replacement begins.

        bytes 0 to 4     length of the trie, unsigned, little endian
        trie             uint32, each a node of a double array as the library Darts-clone lays it out
        pool             UTF-8, each text closed by a zero byte

    The library follows the trie unchecked: wherever a byte of a text can lead must lie inside.
    """
    wrong = "has a precompiled_charsmap that is damaged"
    try:
        encoded = str(part.get("precompiled_charsmap"))
        table = base64.b64decode(encoded, validate=True)
        length = int.from_bytes(table[:4], "little")
        units = np.frombuffer(table, "<u4", length // 4, 4).astype(np.int64)
        pool = table[4 + length // 4 * 4 :]
        pool.decode()
    except (binascii.Error, ValueError):  # UnicodeDecodeError is a ValueError
        return wrong
    if not len(units) or base64.b64encode(table).decode() != encoded:
        return wrong
    reached = np.arange(len(units)) ^ ((units >> 10) << ((units & 0x200) >> 6))  # where the node's children begin
    inner = (units >> 31) == 0  # others are leaves, which no byte leads on from
    inner[0] = True
    if (reached[inner] | 0xFF).max() >= len(units):
        return wrong
    starts = units[reached[inner & ((units & 0x100) != 0)]] & 0x7FFFFFFF
    stored = np.frombuffer(pool, np.uint8)
    if (starts >= len(stored)).any() or ((stored[starts] & 0xC0) == 0x80).any():
        return wrong
    stops = np.append(np.flatnonzero(stored == 0), len(stored))
    if (stops[np.searchsorted(stops, starts)] - starts > MAX_REPLACEMENT).any():
        return f"has a precompiled_charsmap in which a character becomes more than {MAX_REPLACEMENT} bytes"
    return None


def _fault_in_template(part: dict[str, Any]) -> str | None:
    """A template has each text once, and special tokens that it defines."""
    defined = part.get("special_tokens")
    for name, texts in (("single", ["A"]), ("pair", ["A", "B"])):
        pieces = part.get(name)
        if not isinstance(defined, dict) or not isinstance(pieces, list):
            return "has a TemplateProcessing without its parts"
        found: dict[str, list[str]] = {"Sequence": [], "SpecialToken": []}
        for piece in pieces:
            for kind, value in piece.items() if isinstance(piece, dict) else ():
                found.setdefault(str(kind), []).append(str(value.get("id")) if isinstance(value, dict) else "")
        if sorted(found["Sequence"]) != texts or not defined.keys() >= set(found["SpecialToken"]):
            return f"has a template for {name} texts that is not made of {' and '.join(texts)} and of tokens that it defines"
    return None


_FAULTS: Final = {
    "Replace": _fault_in_replacement,
    "Precompiled": _fault_in_charsmap,
    "TemplateProcessing": _fault_in_template,
}


def _fault_in_use(tokenizer_json: str) -> str | None:
    """What is wrong with the parts together, found by trying; None if nothing is."""
    from tokenizers import Tokenizer  # imported where used, as in `data.tokenization`

    try:
        tokenizer: Any = Tokenizer.from_str(tokenizer_json)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        unknown = getattr(tokenizer.model, "unk_token", None)
        if unknown is not None and tokenizer.model.token_to_id(unknown) is None:
            return f"has no {brief(unknown)} in its vocabulary, which stands for what is not in it"
        if max(tokenizer.get_vocab().values(), default=0) >= 2**31:
            return "has a token id beyond those of any model"
        for token in tokenizer.get_added_tokens_decoder().values():
            if token.normalized and tokenizer.normalizer and not tokenizer.normalizer.normalize_str(token.content):
                return f"has the added token {brief(token.content)}, of which its normalizer leaves nothing"
        for texts in (("a b",), ("a b", "c")):
            with_specials, without = (tokenizer.encode(*texts, add_special_tokens=wanted) for wanted in (True, False))
            specials = tokenizer.num_special_tokens_to_add(is_pair=len(texts) == 2)
            if len(with_specials) != len(without) + specials or max(with_specials.type_ids, default=0) > 255:
                return "adds more to a text than its special tokens and their types"
            if max(with_specials.ids, default=0) >= 2**31:
                return "has a token id beyond those of any model"
    except BaseException as error:  # a panic in Rust is no Exception, and its class cannot be imported
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return f"cannot be used ({printable(str(error))[:200]})"
    return None
