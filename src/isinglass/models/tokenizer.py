"""Check a stranger's `tokenizer.json` before it is handed to `tokenizers`, which does what the file says.

A regular expression can take exponential time (`(a+)+$`), a chain of replacements can double a text thirty times, a
template can repeat it a million times, and a reference to nothing is a panic in Rust. So the parts that make up the served
tokenizers are listed here, and everything else is refused.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from isinglass.errors import CheckpointError
from isinglass.models.files import parse_json
from isinglass.names import brief, printable

# Section -> the key under which a part of type `Sequence` has its own parts, and the types of the parts that the section may
# be made of. BERT, DistilBERT and ELECTRA have those named after BERT, RoBERTa has ByteLevel; the others are those of models
# trained with SentencePiece or by hand.
SECTIONS: Final = {
    "normalizer": ("normalizers", "BertNormalizer Lowercase NFC NFD NFKC NFKD Nmt Precompiled Replace Strip StripAccents"),
    "pre_tokenizer": ("pretokenizers", "BertPreTokenizer ByteLevel Digits Metaspace Punctuation Whitespace WhitespaceSplit"),
    "post_processor": ("processors", "BertProcessing ByteLevel RobertaProcessing TemplateProcessing"),
}

# The regular expressions that a file may contain -> the least number of characters that each matches. Served tokenizers have
# none (that of ByteLevel is built in), except for this one of models converted from SentencePiece, which never backtracks.
PATTERNS: Final = {" {2,}": 2}

MAX_WORD: Final = 1000  # characters; WordPiece's time grows with the square of a word's length, and BERT's limit is 100
MAX_REPLACEMENT: Final = 64  # bytes that one character may become by a table; the longest in Unicode takes 33
MAX_TOKEN_TYPE: Final = 255
TOKEN_IDS: Final = 2**31  # ids are below this


_MALFORMED: Final = (AttributeError, KeyError, TypeError, ValueError)  # what a part without its fields raises


class _RefusedError(Exception):
    """What is wrong with a tokenizer, as the rest of a sentence that begins with its path."""


def check_tokenizer(tokenizer_json: str, path: Path) -> None:
    """Refuse a tokenizer that is damaged, or that could hang, crash or swell texts.

    Args:
        tokenizer_json: the text of the file at `path`.

    Raises:
        CheckpointError: it is so, or it is made of parts that none of the served families has.
    """
    values = parse_json(tokenizer_json, str(path))
    try:
        for section, (sequence, served) in SECTIONS.items():
            _check_parts(section, [*_flatten(values.get(section), sequence)], served.split())
        for pattern in _regular_expressions(values.get("decoder")):
            if pattern not in PATTERNS:
                raise _RefusedError(f"has a decoder with the regular expression {brief(pattern)}, which is not served")
        _check_model(values.get("model"))
        _check_use(tokenizer_json)
    except _RefusedError as fault:
        raise CheckpointError(f"{path} {fault}: choose a checkpoint with a tokenizer like BERT's or RoBERTa's.") from None


def _flatten(part: Any, sequence: str) -> Iterator[Any]:
    """Yield the parts that `part` is made of: those of a sequence at any depth, and nothing for null."""
    if isinstance(part, dict) and part.get("type") == "Sequence" and isinstance(part.get(sequence), list):
        for inner in part[sequence]:
            yield from _flatten(inner, sequence)
    elif part is not None:
        yield part


def _check_parts(section: str, parts: Sequence[Any], served: Sequence[str]) -> None:
    seen = set()
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else part
        if not isinstance(part, dict) or kind not in served:
            raise _RefusedError(f"has a {section} of type {brief(kind)}, which is not served")
        if kind in seen and kind != "Replace":  # which never makes a text longer
            raise _RefusedError(f"has {kind} twice in its {section}, which could make texts longer without end")
        seen.add(kind)
        if kind in _CHECKS:
            _CHECKS[str(kind)](part)


def _regular_expressions(value: Any) -> Iterator[str]:
    """Yield every regular expression at any depth."""
    if isinstance(value, dict):
        if "Regex" in value:
            yield str(value["Regex"])
        value = [*value.values()]
    if isinstance(value, list):
        for inner in value:
            yield from _regular_expressions(inner)


def _check_replacement(part: Mapping[str, Any]) -> None:
    """Refuse a replacement that makes a text longer."""
    try:
        ((kind, pattern),) = part["pattern"].items()
        least = {"String": len(pattern), "Regex": PATTERNS.get(pattern, -1)}[kind]
        can_grow = least == 0 or len(part["content"]) > least
    except _MALFORMED:
        raise _RefusedError("has a Replace that names no pattern or no content") from None
    if least < 0:
        raise _RefusedError(f"has a Replace with the regular expression {brief(pattern)}, which is not served")
    if can_grow:
        fault = f"has a Replace of {brief(pattern)} by {brief(part['content'])}"
        raise _RefusedError(f"{fault}, which could make texts longer without end")


def _check_charsmap(part: Mapping[str, Any]) -> None:
    """Refuse a table that makes a text much longer, or that leads out of itself."""
    try:
        longest = _longest_replacement(str(part.get("precompiled_charsmap")))
    except ValueError:  # also that of base64 and of UTF-8
        raise _RefusedError("has a precompiled_charsmap that is damaged") from None
    if longest > MAX_REPLACEMENT:
        raise _RefusedError(f"has a precompiled_charsmap in which a character becomes more than {MAX_REPLACEMENT} bytes")


def _longest_replacement(encoded: str) -> int:
    """Return the most bytes that a replacement has in SentencePiece's table, base64.

    It is a trie, whose leaves say where in a pool of texts the replacement begins:

        bytes 0 to 4     length of the trie, unsigned, little endian
        trie             uint32, each a node of a double array as the library Darts-clone lays it out
        pool             UTF-8, each text closed by a zero byte

    The library follows the trie unchecked: wherever a byte of a text can lead must lie inside.

    Raises:
        ValueError: a node leads out of the trie, or a leaf out of the pool or into the middle of a character; or the text
            is not base64, or the table is cut short or not UTF-8.
    """
    table = base64.b64decode(encoded, validate=True)
    length = int.from_bytes(table[:4], "little") // 4
    trie = np.frombuffer(table, "<u4", length, 4).astype(np.int64)
    texts = table[4 + length * 4 :]
    texts.decode()
    if length == 0 or base64.b64encode(table).decode() != encoded:
        raise ValueError("an empty trie, or text that another table has too")
    pool = np.frombuffer(texts, np.uint8)
    children = np.arange(length) ^ ((trie >> 10) << ((trie & 0x200) >> 6))  # where a node's children begin
    is_inner = (trie >> 31) == 0  # the other nodes are leaves, from which no byte leads on
    is_inner[0] = True
    if (children[is_inner] | 0xFF).max() >= length:
        raise ValueError("a node leads out of the trie")
    has_leaf = is_inner & ((trie & 0x100) != 0)
    starts = trie[children[has_leaf]] & 0x7FFFFFFF
    if (starts >= len(pool)).any() or ((pool[starts] & 0xC0) == 0x80).any():
        raise ValueError("a leaf leads out of the pool or into a character")
    ends = np.append(np.flatnonzero(pool == 0), len(pool))
    lengths = ends[np.searchsorted(ends, starts)] - starts
    return int(lengths.max(initial=0))


def _check_template(part: Mapping[str, Any]) -> None:
    """Refuse a template that has not each text once, or special tokens that it does not define."""
    for name, texts in (("single", ["A"]), ("pair", ["A", "B"])):
        ids: dict[str, list[str]] = {"Sequence": [], "SpecialToken": []}
        try:
            for piece in part[name]:
                ((kind, value),) = piece.items()
                ids[kind].append(str(value["id"]))
            is_sound = sorted(ids["Sequence"]) == texts and part["special_tokens"].keys() >= {*ids["SpecialToken"]}
        except _MALFORMED:
            raise _RefusedError("has a TemplateProcessing without its parts") from None
        if not is_sound:
            made_of = f"{' and '.join(texts)} and of tokens that it defines"
            raise _RefusedError(f"has a template for {name} texts that is not made of {made_of}")


_CHECKS: Final[Mapping[str, Callable[[Mapping[str, Any]], None]]] = {
    "Replace": _check_replacement,
    "Precompiled": _check_charsmap,
    "TemplateProcessing": _check_template,
}


def _check_model(model: Any) -> None:
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise _RefusedError("has no model with a vocabulary")
    if "merges" in model and model.get("continuing_subword_prefix"):
        raise _RefusedError("has merges and a continuing_subword_prefix, which do not go together")
    longest = model.get("max_input_chars_per_word")
    if isinstance(longest, int) and longest > MAX_WORD:
        raise _RefusedError(f"splits words of up to {brief(longest)} characters; at most {MAX_WORD} were expected")
    if isinstance(model["vocab"], list) and model.get("unk_id") is None:
        raise _RefusedError("has no unk_id, which stands for what is not in the vocabulary")


def _check_use(tokenizer_json: str) -> None:
    """Refuse parts that do not go together, which is found by trying."""
    from tokenizers import Tokenizer  # imported where used, as in `data.tokenization`

    try:
        tokenizer: Any = Tokenizer.from_str(tokenizer_json)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        _check_vocabulary(tokenizer)
        for texts in (("a b",), ("a b", "c")):
            _check_encoding(tokenizer, texts)
    except _RefusedError:
        raise
    except BaseException as error:  # a panic in Rust is no Exception, and its class cannot be imported
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _RefusedError(f"cannot be used ({printable(str(error))[:200]})") from None


def _check_vocabulary(tokenizer: Any) -> None:
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is not None and tokenizer.model.token_to_id(unknown) is None:
        raise _RefusedError(f"has no {brief(unknown)} in its vocabulary, which stands for what is not in it")
    if max(tokenizer.get_vocab().values(), default=0) >= TOKEN_IDS:
        raise _RefusedError("has a token id beyond those of any model")
    for token in tokenizer.get_added_tokens_decoder().values():
        if token.normalized and tokenizer.normalizer and not tokenizer.normalizer.normalize_str(token.content):
            raise _RefusedError(f"has the added token {brief(token.content)}, of which its normalizer leaves nothing")


def _check_encoding(tokenizer: Any, texts: tuple[str, ...]) -> None:
    with_specials = tokenizer.encode(*texts, add_special_tokens=True)
    without = tokenizer.encode(*texts, add_special_tokens=False)
    specials = tokenizer.num_special_tokens_to_add(is_pair=len(texts) == 2)
    adds_more = len(with_specials) != len(without) + specials
    if adds_more or max(with_specials.type_ids, default=0) > MAX_TOKEN_TYPE:
        raise _RefusedError("adds more to a text than its special tokens and their types")
    if max(with_specials.ids, default=0) >= TOKEN_IDS:
        raise _RefusedError("has a token id beyond those of any model")
