"""Check a stranger's `tokenizer.json` before it is handed to `tokenizers`, which does what the file says.

A regular expression can take exponential time (`(a+)+$`), a chain of replacements can double a text thirty times, a
template can repeat it a million times, and a reference to nothing is a panic in Rust. So the parts that make up the served
tokenizers are listed here, and everything else is refused.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import numpy as np
from annotated_types import Len
from jaxtyping import Int64, UInt8
from pydantic import BaseModel, ConfigDict, ValidationError

from isinglass.errors import CheckpointError
from isinglass.models.files import parse_json
from isinglass.names import brief, printable

# The regular expressions that a file may contain -> the least number of characters that each matches. Served tokenizers have
# none (that of ByteLevel is built in), except for this one of models converted from SentencePiece, which never backtracks.
PATTERNS: Final = {" {2,}": 2}

MAX_WORD: Final = 1000  # characters; WordPiece's time grows with the square of a word's length, and BERT's limit is 100
MAX_REPLACEMENT: Final = 64  # bytes that one character may become by a table; the longest in Unicode takes 33
MAX_TOKEN_TYPE: Final = 255
TOKEN_IDS: Final = 2**31  # ids are below this


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A section of the file.

    Attributes:
        sequence: the key under which a part of type `Sequence` has its own parts.
        parts: types of the parts that the section may be made of. BERT, DistilBERT and ELECTRA have those named after BERT,
            RoBERTa has ByteLevel; the others are those of models trained with SentencePiece or by hand.
    """

    name: str
    sequence: str
    parts: frozenset[str]

    def flatten(self, part: Any) -> Iterator[Any]:
        """Yield the parts that `part` is made of: those of a sequence at any depth, and nothing for null."""
        if isinstance(part, dict) and part.get("type") == "Sequence" and isinstance(part.get(self.sequence), list):
            for inner in part[self.sequence]:
                yield from self.flatten(inner)
        elif part is not None:
            yield part


_NORMALIZERS: Final = "BertNormalizer Lowercase NFC NFD NFKC NFKD Nmt Precompiled Replace Strip StripAccents"
_PRE_TOKENIZERS: Final = "BertPreTokenizer ByteLevel Digits Metaspace Punctuation Whitespace WhitespaceSplit"
_PROCESSORS: Final = "BertProcessing ByteLevel RobertaProcessing TemplateProcessing"
SECTIONS: Final = (
    _Section(name="normalizer", sequence="normalizers", parts=frozenset(_NORMALIZERS.split())),
    _Section(name="pre_tokenizer", sequence="pretokenizers", parts=frozenset(_PRE_TOKENIZERS.split())),
    _Section(name="post_processor", sequence="processors", parts=frozenset(_PROCESSORS.split())),
)


def check_tokenizer(tokenizer_json: str, path: Path) -> None:
    """Refuse a tokenizer that is damaged, or that could hang, crash or swell texts.

    Args:
        tokenizer_json: the text of the file at `path`.

    Raises:
        CheckpointError: it is so, or it is made of parts that none of the served families has.
    """
    values = parse_json(tokenizer_json, str(path))
    faults = chain(
        *(_faults_in_section(section, values.get(section.name)) for section in SECTIONS),
        _faults_in_decoder(values.get("decoder")),
        _faults_in_model(values.get("model")),
        _faults_in_use(tokenizer_json),
    )
    fault = next(faults, None)
    if fault is not None:
        raise CheckpointError(f"{path} {fault}: choose a checkpoint with a tokenizer like BERT's or RoBERTa's.")


def _faults_in_section(section: _Section, value: Any) -> Iterator[str]:
    seen = set()
    for part in section.flatten(value):
        kind = part.get("type") if isinstance(part, dict) else part
        if not isinstance(kind, str) or kind not in section.parts:
            yield f"has a {section.name} of type {brief(kind)}, which is not served"
            return
        if kind in seen and kind != "Replace":  # which never makes a text longer
            yield f"has {kind} twice in its {section.name}, which could make texts longer without end"
        seen.add(kind)
        if kind in _PART_FAULTS:
            yield from _PART_FAULTS[kind](part)


def _faults_in_decoder(value: Any) -> Iterator[str]:
    for pattern in _regular_expressions(value):
        if pattern not in PATTERNS:
            yield f"has a decoder with the regular expression {brief(pattern)}, which is not served"


def _regular_expressions(value: Any) -> Iterator[str]:
    """Yield every regular expression at any depth."""
    if isinstance(value, dict):
        if "Regex" in value:
            yield str(value["Regex"])
        value = [*value.values()]
    if isinstance(value, list):
        for inner in value:
            yield from _regular_expressions(inner)


def _faults_in_model(model: Any) -> Iterator[str]:
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        yield "has no model with a vocabulary"
        return
    if "merges" in model and model.get("continuing_subword_prefix"):
        yield "has merges and a continuing_subword_prefix, which do not go together"
    longest = model.get("max_input_chars_per_word")
    if isinstance(longest, int) and longest > MAX_WORD:
        yield f"splits words of up to {brief(longest)} characters; at most {MAX_WORD} were expected"
    if isinstance(model["vocab"], list) and model.get("unk_id") is None:
        yield "has no unk_id, which stands for what is not in the vocabulary"


# ---- parts that need a closer look -------------------------------------


class _Replace(BaseModel):
    """A replacement of a literal text or of what a regular expression matches."""

    model_config = ConfigDict(strict=True)

    pattern: Annotated[dict[Literal["String", "Regex"], str], Len(1, 1)]
    content: str


def _faults_in_replacement(part: Mapping[str, Any]) -> Iterator[str]:
    """A replacement must not make a text longer."""
    try:
        replacement = _Replace.model_validate(part)
    except ValidationError:
        yield "has a Replace that names no pattern or no content"
        return
    ((kind, pattern),) = replacement.pattern.items()
    if kind == "Regex" and pattern not in PATTERNS:
        yield f"has a Replace with the regular expression {brief(pattern)}, which is not served"
        return
    least = PATTERNS[pattern] if kind == "Regex" else len(pattern)
    if least == 0 or len(replacement.content) > least:
        yield f"has a Replace of {brief(pattern)} by {brief(replacement.content)}, which could make texts longer without end"


@dataclass(frozen=True)
class _Charsmap:
    """SentencePiece's table of replacements: a trie, whose leaves say where in a pool of texts the replacement begins.

        bytes 0 to 4     length of the trie, unsigned, little endian
        trie             uint32, each a node of a double array as the library Darts-clone lays it out
        pool             UTF-8, each text closed by a zero byte

    The library follows the trie unchecked: wherever a byte of a text can lead must lie inside.
    """

    trie: Int64[np.ndarray, " U"]
    pool: UInt8[np.ndarray, " P"]

    @classmethod
    def decode(cls, encoded: str) -> "_Charsmap":
        """Decode base64.

        Raises:
            ValueError: the text is not base64, or the table is cut short or not UTF-8.
        """
        table = base64.b64decode(encoded, validate=True)
        length = int.from_bytes(table[:4], "little")
        trie = np.frombuffer(table, "<u4", length // 4, 4).astype(np.int64)
        pool = table[4 + length // 4 * 4 :]
        pool.decode()
        if not len(trie) or base64.b64encode(table).decode() != encoded:
            raise ValueError("an empty trie, or text that another table has too")
        return cls(trie, np.frombuffer(pool, np.uint8))

    def longest_replacement(self) -> int:
        """Return the most bytes that a replacement has.

        Raises:
            ValueError: a node leads out of the trie, or a leaf out of the pool or into the middle of a character.
        """
        trie, pool = self.trie, self.pool
        children = np.arange(len(trie)) ^ ((trie >> 10) << ((trie & 0x200) >> 6))  # where a node's children begin
        is_inner = (trie >> 31) == 0  # the other nodes are leaves, from which no byte leads on
        is_inner[0] = True
        if (children[is_inner] | 0xFF).max() >= len(trie):
            raise ValueError("a node leads out of the trie")
        has_leaf = is_inner & ((trie & 0x100) != 0)
        starts = trie[children[has_leaf]] & 0x7FFFFFFF
        if (starts >= len(pool)).any() or ((pool[starts] & 0xC0) == 0x80).any():
            raise ValueError("a leaf leads out of the pool or into a character")
        ends = np.append(np.flatnonzero(pool == 0), len(pool))
        lengths = ends[np.searchsorted(ends, starts)] - starts
        return int(lengths.max(initial=0))


def _faults_in_charsmap(part: Mapping[str, Any]) -> Iterator[str]:
    try:
        longest = _Charsmap.decode(str(part.get("precompiled_charsmap"))).longest_replacement()
    except ValueError:  # also that of base64 and of UTF-8
        yield "has a precompiled_charsmap that is damaged"
        return
    if longest > MAX_REPLACEMENT:
        yield f"has a precompiled_charsmap in which a character becomes more than {MAX_REPLACEMENT} bytes"


_Piece = Literal["Sequence", "SpecialToken"]
_PIECES: Final[tuple[_Piece, ...]] = get_args(_Piece)


class _Template(BaseModel):
    """What is added to one text, and to two: pieces, each of which names a text or a special token by its `id`."""

    model_config = ConfigDict(strict=True)

    special_tokens: dict[str, Any]
    single: list[dict[_Piece, dict[str, Any]]]
    pair: list[dict[_Piece, dict[str, Any]]]


def _faults_in_template(part: Mapping[str, Any]) -> Iterator[str]:
    """A template must have each text once, and only special tokens that it defines."""
    try:
        template = _Template.model_validate(part)
    except ValidationError:
        yield "has a TemplateProcessing without its parts"
        return
    for name, pieces, texts in (("single", template.single, ["A"]), ("pair", template.pair, ["A", "B"])):
        ids = {kind: [str(piece[kind].get("id")) for piece in pieces if kind in piece] for kind in _PIECES}
        if sorted(ids["Sequence"]) != texts or not {*ids["SpecialToken"]} <= template.special_tokens.keys():
            yield f"has a template for {name} texts that is not made of {' and '.join(texts)} and of tokens that it defines"


_PART_FAULTS: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]]] = {
    "Replace": _faults_in_replacement,
    "Precompiled": _faults_in_charsmap,
    "TemplateProcessing": _faults_in_template,
}


# ---- the parts together ------------------------------------------------


def _faults_in_use(tokenizer_json: str) -> Iterator[str]:
    """Yield what is wrong with the parts together, found by trying."""
    from tokenizers import Tokenizer  # imported where used, as in `data.tokenization`

    try:
        tokenizer: Any = Tokenizer.from_str(tokenizer_json)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        yield from _faults_in_vocabulary(tokenizer)
        for texts in (("a b",), ("a b", "c")):
            yield from _faults_in_encoding(tokenizer, texts)
    except BaseException as error:  # a panic in Rust is no Exception, and its class cannot be imported
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        yield f"cannot be used ({printable(str(error))[:200]})"


def _faults_in_vocabulary(tokenizer: Any) -> Iterator[str]:
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is not None and tokenizer.model.token_to_id(unknown) is None:
        yield f"has no {brief(unknown)} in its vocabulary, which stands for what is not in it"
    if max(tokenizer.get_vocab().values(), default=0) >= TOKEN_IDS:
        yield "has a token id beyond those of any model"
    for token in tokenizer.get_added_tokens_decoder().values():
        if token.normalized and tokenizer.normalizer and not tokenizer.normalizer.normalize_str(token.content):
            yield f"has the added token {brief(token.content)}, of which its normalizer leaves nothing"


def _faults_in_encoding(tokenizer: Any, texts: tuple[str, ...]) -> Iterator[str]:
    with_specials = tokenizer.encode(*texts, add_special_tokens=True)
    without = tokenizer.encode(*texts, add_special_tokens=False)
    specials = tokenizer.num_special_tokens_to_add(is_pair=len(texts) == 2)
    adds_more = len(with_specials) != len(without) + specials
    if adds_more or max(with_specials.type_ids, default=0) > MAX_TOKEN_TYPE:
        yield "adds more to a text than its special tokens and their types"
    if max(with_specials.ids, default=0) >= TOKEN_IDS:
        yield "has a token id beyond those of any model"
