"""Hostile files for everything that isinglass reads, and the property that every reader must keep.

A case depends only on its target and its seed. Most of its valid files are damaged where their format is fragile (a field, a
key, a record of a zip's directory), some at random places. `check` requires that a reader returns, or raises an
IsinglassError of one short printable line. No other exception may be raised, and nothing may be written outside of the
case's directory.
"""

import csv
import functools
import gzip
import io
import json
import os
import shutil
import stat
import struct
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from isinglass.config import TrainConfig
from isinglass.data.checks import inspect_data
from isinglass.data.custom import read_custom
from isinglass.data.examples import encode_labels
from isinglass.data.glue import PublishedFiles
from isinglass.data.inputs import open_input
from isinglass.errors import IsinglassError
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, load_checkpoint
from isinglass.models.families import FAMILIES
from isinglass.models.files import read_header, read_safetensors
from isinglass.results import RESULTS, FailedRun, RunResult, read_records
from isinglass.submission.check import LARGEST_FILE, check_submission
from isinglass.tasks import TASKS, Split, Task
from isinglass.tasks.custom import custom_task
from tests.sample_bench import sample_result

LONGEST_MESSAGE: Final = 500  # characters
SLOWEST_SECONDS: Final = 10.0

# ---- the property ------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """A symbolic link among a case's files."""

    to: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """One hostile input.

    Attributes:
        files: name below the case's directory -> content.
        read: calls the reader on the directory. False means that it refused the files without an exception.
    """

    files: Mapping[str, bytes | Link]
    read: Callable[[Path], bool]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a case: accepted or correctly refused, unless `escaped` describes what went wrong."""

    accepted: bool
    escaped: str
    seconds: float


def check(case: Case, directory: Path) -> Outcome:
    """Write the case's files to `directory`, which is emptied first, read them, and check what the reader does."""
    lay_out(case.files, directory)
    accepted, escaped = False, ""
    started = time.perf_counter()
    with _writes_outside(directory) as written, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            accepted = case.read(directory)
        except IsinglassError as error:
            escaped = flaw(str(error))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - Rust's panics are no Exception
            escaped = f"{type(error).__name__}: {str(error)[:300]!r}"
    seconds = time.perf_counter() - started
    if written:
        escaped = f"written outside: {written[0]!r}"
    if seconds > SLOWEST_SECONDS and not escaped:
        escaped = f"{seconds:.1f} s"
    return Outcome(accepted=accepted and not escaped, escaped=escaped, seconds=seconds)


def flaw(message: str) -> str:
    """Return what is wrong with an error's message, or an empty string."""
    if not message.isprintable():
        return f"a message that does not print: {message[:300]!r}"
    if not 10 <= len(message) <= LONGEST_MESSAGE:
        return f"a message of {len(message)} characters: {message[:300]!r}"
    return ""


def hold(message: str) -> None:
    """Check in the same way a message that a reader gives without an exception."""
    assert not flaw(message), flaw(message)


def lay_out(files: Mapping[str, bytes | Link], directory: Path) -> None:
    """Empty the directory and write the files."""
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.to)
        else:
            path.write_bytes(content)


_watched: list[tuple[str, list[str]]] = []  # the directory in which writing is allowed, and paths written elsewhere


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    writes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
    if event == "open":
        path, _, flags = arguments
        writes = not isinstance(path, int) and bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if writes:
        allowed, written = _watched[-1]
        for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
            if not os.path.realpath(os.fsdecode(path)).startswith(allowed + os.sep):
                written.append(f"{event} {path!r}")


@functools.cache
def _install_audit() -> None:
    sys.addaudithook(_audit)  # permanent: Python cannot remove a hook


@contextmanager
def _writes_outside(directory: Path) -> Iterator[list[str]]:
    """Collect the paths outside of `directory` that Python code writes, creates, renames or removes."""
    _install_audit()
    _watched.append((os.path.realpath(directory), []))
    try:
        yield _watched[-1][1]
    finally:
        _watched.pop()


# ---- damage to bytes and lines -----------------------------------------

FRAGMENTS: Final = (
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r",
    b"\r\n",
    b"\n",
    b"\n\n\n",
    b"\t",
    b"\t\t",
    b'"',
    b'"\t"',
    b"'",
    b"\\",
    b"\x1b[31m",
    b"\x1b]0;title\x07",
    b"\x7f",
    b"\x80",
    b"\xc0\xaf",  # an overlong `/`
    b"\xed\xa0\x80",  # half of a surrogate pair
    b"\xf4\x90\x80\x80",  # beyond Unicode
    b"\xe2\x82",  # truncated
    "\u2028".encode(),
    "\u0085".encode(),
    "\u202e".encode(),
    "\u200b".encode(),
    "\u0663".encode(),  # an Arabic 3
    "\uff11".encode(),  # a wide 1
    "\U0010ffff".encode(),
    "e\u0301".encode() * 20,
    "\u05d0\u4e2d\U0001f600".encode(),
    b"=cmd()",
    b"NaN",
    b"inf",
    b"-1",
    b"1e999",
    b"0x10",
    b"1_0",
    b"9" * 30,
    b"9" * 5000,
    b"<script>",
    b"x" * 70_000,
    b"entailment",
    b"1",
    b"",
)


def damaged_bytes(rng: Random, content: bytes) -> bytes:
    """Flip bits, or insert, remove, move or cut off bytes."""
    damage = rng.randrange(7)
    if damage == 0:
        found = bytearray(content)
        for _ in range(rng.choice((1, 1, 4, 64)) if found else 0):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        return bytes(found)
    start, end = sorted((rng.randint(0, len(content)), rng.randint(0, len(content))))
    if damage == 1:
        return content[:start]
    if damage == 2:
        return content[:start] + content[end:]
    if damage == 3:
        return content[:start] + content[end:] + content[start:end]
    if damage == 4:
        return content[:end] + content[start:end] * rng.choice((1, 1, 8)) + content[end:]
    if damage == 5:
        return content[:start] + rng.randbytes(rng.choice((1, 3, 40))) + content[start:]
    return content[:start] + rng.choice(FRAGMENTS) + content[start:]


def damaged_lines(rng: Random, content: bytes) -> bytes:
    """Remove, repeat, swap or join lines, or end them differently."""
    lines = content.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    damage = rng.randrange(8)
    if damage == 0:
        del lines[i]
    elif damage == 1:
        lines.insert(i, lines[j])
    elif damage == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif damage == 3:
        lines[i : i + 2] = [b"".join(lines[i : i + 2])]
    elif damage == 4:
        lines[i] = rng.choice(FRAGMENTS)
    elif damage == 5:
        lines[i] = lines[i][:20_000] * rng.choice((2, 3, 1000))
    elif damage == 6:
        return content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\0", b"", b"\x0b", "\u2028".encode())))
    else:
        return content.removesuffix(b"\n")
    return b"\n".join(lines)


def damaged_fields(rng: Random, content: bytes) -> bytes:
    """Remove, repeat, swap, replace or extend tab-separated fields, in one line or in all."""
    lines = content.split(b"\n")
    first = rng.randrange(len(lines))
    everywhere = rng.random() < 0.2
    damage, i, j, fragment = rng.randrange(6), rng.randrange(9), rng.randrange(9), rng.choice(FRAGMENTS)
    for number in range(len(lines)) if everywhere else (first,):
        fields = lines[number].split(b"\t")
        a, b = i % len(fields), j % len(fields)
        if damage == 0:
            del fields[a]
        elif damage == 1:
            fields.insert(a, fields[b])
        elif damage == 2:
            fields[a], fields[b] = fields[b], fields[a]
        elif damage == 3:
            fields[a] = fragment
        elif damage == 4:
            fields[a] += fragment
        else:
            fields += [fragment.replace(b"\t", b"")[:50]] * rng.choice((1, 2, 2000))
        lines[number] = b"\t".join(fields)
    return b"\n".join(lines)


def recoded(rng: Random, content: bytes) -> bytes:
    """Return the same text in another encoding, as another program would save it."""
    text = content.decode("utf-8", "replace")
    code = rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp037", "utf-7"))
    return text.encode(code, "replace")


def damaged_text(rng: Random, content: bytes) -> bytes:
    """Damage a text table once or several times; rarely return random bytes."""
    if rng.random() < 0.03:
        return rng.randbytes(rng.choice((0, 1, 20, 3000)))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        content = rng.choice((damaged_bytes, damaged_lines, damaged_fields, damaged_fields, recoded))(rng, content)
        content = content[: 1 << 20]
    return content


# ---- damage to JSON ----------------------------------------------------

TOKENS: Final = (
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "1.0",
    "1.5",
    "-0.0",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1e308",
    "2147483648",
    "9223372036854775808",
    "9" * 30,
    "-" + "9" * 400,
    "9" * 5000,
    "0." + "1" * 5000,
    '""',
    '"x"',
    '"1"',
    '"none"',
    '"bert"',
    '"\\ud800"',
    '"\\u0000"',
    '"a\\n\\u001b[31mb\\u202e\\u2028"',
    '"a\\tb"',
    '"=cmd()"',
    '"<script>alert(1)</script>"',
    '"../../../etc/passwd"',
    '"/etc/passwd"',
    '"' + "x" * 3000 + '"',
    '"' + "\\u4e2d" * 30_000 + '"',
    "[]",
    "{}",
    "[null]",
    "[0, 1, 2]",
    '["a", "a"]',
    '{"": 0}',
    '{"a\\nb": null}',
    '{"dev": {"accuracy": 1}}',
    "[" * 60 + "]" * 60,
    "[" * 700 + "]" * 700,
    "[" * 950 + "]" * 950,
    "[" * 970 + "]" * 970,
    "[" * 985 + "]" * 985,
    '{"a":' * 900 + "1" + "}" * 900,
    "[" * 100_000,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 50_000 + "1" + "}" * 50_000,
    "[" + "0," * 20_000 + "0]",
    "",
    ",",
    "}",
    "'x'",
    "undefined",
    "/* */ 1",
    "0x10",
    "01",
    "\u0661",
    '"\x01"',
    "\ufeff1",
)


def damaged_json(rng: Random, values: Mapping[str, Any]) -> bytes:
    """Return an object with members replaced, removed, renamed, repeated or wrapped. One in five is damaged as bytes too."""
    copy = json.loads(json.dumps(values))
    tokens: dict[str, str] = {}

    def placeholder(token: str) -> str:
        name = f"@{len(tokens)}@"
        tokens[json.dumps(name)] = token
        return name

    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        holder, key = rng.choice([*_places(copy)] or [(None, None)])
        damage = rng.randrange(8)
        if holder is None:
            break
        if damage == 0:
            del holder[key]
        elif damage == 1 and isinstance(holder, dict):
            holder[placeholder(rng.choice([token for token in TOKENS if token.startswith('"')]))] = holder.pop(key)
        elif damage == 2 and isinstance(holder, dict):
            holder[placeholder(json.dumps(key))] = placeholder(rng.choice(TOKENS))  # the same key twice
        elif damage == 3:
            holder[key] = rng.choice(([holder[key]], {"x": holder[key]}, str(holder[key]), [holder[key]] * 3))
        elif damage == 4:
            _, other = rng.choice([*_places(copy)])
            holder[key] = other
        else:
            holder[key] = placeholder(rng.choice(TOKENS))
    text = json.dumps(copy, ensure_ascii=rng.random() < 0.5)
    for name, token in tokens.items():
        text = text.replace(name, token)
    if rng.random() < 0.02:
        text = rng.choice(TOKENS)
    content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        content = rng.choice((damaged_bytes, recoded))(rng, content)
    return content


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each (container, key or index) of a tree, from the top."""
    for key in [*values] if isinstance(values, dict) else range(len(values)):
        yield values, key
        if isinstance(values[key], dict | list):
            yield from _places(values[key])


# ---- GLUE's tables and the user's texts --------------------------------

_WORDS: Final = (
    "The",
    "cat",
    "sat",
    '"on"',
    "a",
    "mat,",
    "said",
    "naïve",
    "Zoë",
    "中文",
    "1999",
    "--",
    "n't",
    "(x)",
    "ἀρχή",
)


def make_tsv(rng: Random) -> Case:
    """Make a split of a task, or texts as a user gives them to `predict`."""
    if rng.random() < 0.15:
        is_pair = rng.random() < 0.5
        lines = ["\t".join(_sentence(rng) for _ in range(1 + is_pair)) for _ in range(rng.randint(0, 5))]
        content = _perhaps(rng, damaged_text, "".join(f"{line}\n" for line in lines).encode())
        return Case(files={"mine.txt": content}, read=functools.partial(_read_user_texts, is_pair=is_pair))
    task = rng.choice([*TASKS.values()])
    split = rng.choice(task.splits)
    name = f"{task.folder}/{split.file}"
    files: dict[str, bytes | Link] = {name: _perhaps(rng, damaged_text, _table(rng, task, split))}
    if rng.random() < 0.03:
        there = files.pop(name)
        other = rng.choice(
            (name + "x", "a\x1b[31m\nb", "x" * 200, "\udcff\udcfe", f"{name}/below", f"{task.folder}/\u202ex")
        )
        files[other] = rng.choice((there, b""))
    elif rng.random() < 0.01:
        files[name] = Link(rng.choice((split.file, "nowhere", "/dev/zero", ".", "/")))
    return Case(files=files, read=functools.partial(_read_task, task=task, split=split))


def _table(rng: Random, task: Task, split: Split) -> bytes:
    """Return a valid file of a split in GLUE's layout."""
    columns = [str(column) for column in split.text_columns]
    label = [] if split.label_column is None else [str(split.label_column)]
    names = ["index", *columns, *label] if split.has_header else [*map(str, range(1 + max(map(int, [*columns, *label]))))]
    lines = ["\t".join(names)] if split.has_header else []
    for i in range(rng.randint(1, 6)):
        row = {name: str(i) for name in names} | {name: _sentence(rng) for name in columns}
        row |= dict.fromkeys(label, rng.choice(task.labels or ("0", "2.5", "5.000")))
        lines.append("\t".join(row[name] for name in names))
    return "".join(f"{line}\n" for line in lines).encode()


def _sentence(rng: Random) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 8)))


def _perhaps(rng: Random, damage: Callable[[Random, bytes], bytes], content: bytes) -> bytes:
    """Damage the content, except in one case of twenty, because valid files must be accepted."""
    return content if rng.random() < 0.05 else damage(rng, content)


def _read_task(directory: Path, *, task: Task, split: Split) -> bool:
    examples = PublishedFiles(task=task, data_dir=directory).read(split)
    counts = {len(column) for column in (*examples.texts, examples.line_numbers)}
    assert counts == {len(examples)} and examples.texts[0], "columns of one length, and not empty"
    assert not any("\t" in text or "\n" in text for column in examples.texts for text in column)
    if examples.labels is not None:
        assert len(encode_labels(examples, task, task.labels)) == len(examples)
    return True


def _read_user_texts(directory: Path, *, is_pair: bool) -> bool:
    inputs = open_input(directory / "mine.txt", TASKS["rte" if is_pair else "cola"])
    total, _ = inputs.check()
    assert total == sum(len(piece.examples) for piece in inputs.pieces())
    return True


# ---- the user's own tables ---------------------------------------------


def _own_rows(rng: Random) -> dict[str, list[Any]]:
    """Return columns of a small data set: labels of two classes, numbers, or lists of labels."""
    count = rng.randint(4, 12)
    labels: list[Any] = [i % 2 for i in range(count)]
    kind = rng.randrange(5)
    if kind == 0:
        labels = [("no", "yes")[label] for label in labels]
    elif kind == 1:
        labels = [label + rng.random() for label in labels]
    elif kind == 2:
        labels = [["a", "b"][: 1 + label] for label in labels]
    elif kind == 3:
        labels = [bool(label) for label in labels]
    columns = {"id": [*range(count)], "text": [f"{i} {_sentence(rng)}" for i in range(count)]}
    if rng.random() < 0.2:
        columns = {"premise": columns["text"], "hypothesis": [_sentence(rng) for _ in range(count)]}
    return {**columns, rng.choice(("label", "stars")): labels}


def make_csv(rng: Random) -> Case:
    """Make a CSV or TSV file, compressed or not; rarely two files, or a separate test set."""
    delimiter = rng.choice((",", "\t", ";"))
    columns = _own_rows(rng)
    stream = io.StringIO(newline="")
    writer = csv.writer(
        stream,
        delimiter=delimiter,
        quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
        lineterminator=rng.choice(("\n", "\r\n")),
    )
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(["|".join(one) if isinstance(one, list) else one for one in row])
    content = _perhaps(rng, damaged_text, stream.getvalue().encode())
    name = "mine.tsv" if delimiter == "\t" else "mine.csv"
    if rng.random() < 0.15:
        name, content = f"{name}.gz", gzip.compress(content, mtime=0)
        content = damaged_bytes(rng, content) if rng.random() < 0.3 else content
    files: dict[str, bytes | Link] = {name: content}
    if rng.random() < 0.02:
        files[name] = Link(rng.choice(("nowhere", "/dev/zero", ".", name)))
    return _own_case(rng, files, name)


def make_jsonl(rng: Random) -> Case:
    """Make JSON Lines with hostile objects or lines."""
    columns = _own_rows(rng)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    share = rng.choice((0.0, 0.1, 0.1, 0.5))
    lines = [damaged_json(rng, row) if rng.random() < share else json.dumps(row).encode() for row in rows]
    content = b"".join(line + b"\n" for line in lines)
    if rng.random() < 0.4:
        content = rng.choice((damaged_bytes, damaged_lines, recoded))(rng, content)
    name = rng.choice(("mine.jsonl", "mine.json", "mine.ndjson"))
    return _own_case(rng, {name: content}, name)


def make_parquet(rng: Random) -> Case:
    """Make a Parquet file of unusual types, or with damage in its pages or, more often, in its footer."""
    columns = _own_rows(rng)
    table = pa.table(columns)
    if rng.random() < 0.3:
        name = rng.choice([*columns])
        strange: list[Any] = [rng.choice((None, "", " ", "x", "\0", "=cmd()")) for _ in range(len(table))]
        arrays = (
            pa.array(strange),
            pa.array(strange).dictionary_encode(),
            pa.array([rng.choice((b"a", b"\xff", None)) for _ in strange], pa.binary()),
            pa.array([{"a": 1}] * len(table)),
            pa.array([[[1]]] * len(table)),
            pa.array([None] * len(table)),
            pa.array([float("nan"), 1e300, -0.0, 5e-324] * len(table))[: len(table)],
            pa.array([rng.randrange(5) for _ in strange], pa.timestamp("s")),
            pa.array([rng.randrange(5) for _ in strange]).cast(pa.decimal128(38, 2)),
        )
        table = table.set_column(table.column_names.index(name), name, rng.choice(arrays))
    if rng.random() < 0.1:
        table = table.append_column(rng.choice(("text", "label", "a.b", "\x1b[31m")), pa.array([*range(len(table))]))
    stream = io.BytesIO()
    pq.write_table(
        table,
        stream,
        compression=rng.choice(("none", "snappy", "zstd", "gzip")),
        use_dictionary=rng.random() < 0.5,
        data_page_version=rng.choice(("1.0", "2.0")),
        row_group_size=rng.choice((2, 100)),
    )
    content = stream.getvalue()
    for _ in range(rng.choice((0, 1, 1, 1, 3))):
        tail = rng.choice((0, len(content) - 300, len(content) - 2000))
        tail = max(0, tail)
        content = content[:tail] + damaged_bytes(rng, content[tail:])
    return _own_case(rng, {"mine.parquet": content}, "mine.parquet")


def _own_case(rng: Random, files: dict[str, bytes | Link], name: str) -> Case:
    """Return a case that uses the file as a training set with some settings, or as texts to predict."""
    if rng.random() < 0.15:
        return Case(files=files, read=functools.partial(_read_own_texts, name=name))
    choices = {
        "drop_incomplete": True,
        "label_delimiter": "|",
        "label_column": rng.choice(("label", "stars", "id", "\x1b[31m")),
        "text_column": "text",
        "delimiter": rng.choice((",", ";", "tab")),
        "kind": rng.choice(("classification", "regression", "multilabel")),
        "positive_label": rng.choice(("1", "yes", "x")),
        "test_file": name,
    }
    settings: dict[str, Any] = {key: value for key, value in choices.items() if rng.random() < 0.1}
    if "test_file" in settings:
        files["other" + name] = files[name]
        settings["test_file"] = ("other" + name,)
    return Case(files=files, read=functools.partial(_read_own, name=name, settings=settings))


def _read_own(directory: Path, *, name: str, settings: Mapping[str, Any]) -> bool:
    """Read, split and inspect the data, and then read them again with the inferred task."""
    places = {key: tuple(str(directory / one) for one in settings.get(key, ())) for key in ("test_file",)}
    config = TrainConfig(task="mine", train_file=(str(directory / name),), **{**settings, **places})
    data = read_custom(config)
    for note in data.notes:
        hold(note)
    splits = {split.name: data.read(split) for split in data.task.splits}
    for examples in splits.values():
        assert {len(column) for column in (*examples.texts, examples.line_numbers)} == {len(examples)} and len(examples)
        assert all(text.strip() for column in examples.texts for text in column)
        assert examples.labels is None or len(encode_labels(examples, data.task, data.task.labels)) == len(examples)
    json.dumps([*inspect_data(splits, data.task).lines()])
    again = read_custom(config, data.task)
    for split in again.task.splits:
        assert [*again.read(split).texts[0]] == [*splits[split.name].texts[0]], split.name
    return True


_OWN_TASK: Final = custom_task(
    name="mine", kind="classification", labels=["0", "1"], text_columns=["text"], label_column="label", splits=["train"]
)


def _read_own_texts(directory: Path, *, name: str) -> bool:
    inputs = open_input(directory / name, _OWN_TASK, keep=["all"])
    total, notes = inputs.check()
    for note in notes:
        hold(note)
    pieces = [*inputs.pieces()]
    assert sum(len(piece.examples) for piece in pieces) == total and inputs.kept
    for piece in pieces:
        assert {len(column) for column in (*piece.kept.values(), piece.examples.line_numbers)} == {len(piece.examples)}
    return True


# ---- results -----------------------------------------------------------


@functools.cache
def _records() -> list[dict[str, Any]]:
    """Return valid records of several kinds."""
    results = [
        sample_result("rte"),
        sample_result("mnli", backend="tensorflow", xla=True),
        sample_result("stsb", precision="amp", notes=["a slower path"], predictions={"dev": "runs/x/predictions-dev.tsv"}),
        sample_result("wnli", start_from="mnli", git_commit=None),
    ]
    failures = [FailedRun(config=result.config, start_from=None, error="It failed.") for result in results[:2]]
    records = [json.loads(record.to_json()) for record in (*results, *failures)]
    return [*map(version_1, records[:2]), *records]


def version_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result as it was written before it had a `schema_version`."""
    later = ("schema_version", "scores", "model_commit", "processes", "parts", "resumed_at")
    return {name: value for name, value in values.items() if name not in later}


def make_results(rng: Random) -> Case:
    """Make a `results.jsonl` of up to four records, or one run's `result.json`."""
    if rng.random() < 0.25:
        values = rng.choice(_records()[:6])
        return Case(files={"result.json": _perhaps_json(rng, values)}, read=_read_result)
    lines = [_perhaps_json(rng, rng.choice(_records())) for _ in range(rng.randint(1, 4))]
    content = b"".join(line + b"\n" for line in lines)
    if rng.random() < 0.2:
        content = rng.choice((damaged_bytes, damaged_lines, recoded))(rng, content)
    return Case(files={RESULTS: content}, read=_read_results)


def _perhaps_json(rng: Random, values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() if rng.random() < 0.1 else damaged_json(rng, values)


def _read_results(directory: Path) -> bool:
    """Read records and write the accepted ones. Reading those again must give the same records."""
    records = read_records(directory)
    for line in records.damaged:
        hold(f"line {line.number}: {line.reason}")
    kept = [*records.results, *records.failed]
    if kept:
        lines = "".join(record.to_json() + "\n" for record in kept)
        (directory / "again").mkdir()
        (directory / "again" / RESULTS).write_text(lines, encoding="utf-8", errors="backslashreplace")
        again = read_records(directory / "again")
        assert (again.results, again.failed, again.damaged) == (records.results, records.failed, [])
    return not records.damaged


def _read_result(directory: Path) -> bool:
    result = RunResult.read(directory / "result.json")
    (directory / "again.json").write_text(result.to_json(), encoding="utf-8", errors="backslashreplace")
    assert RunResult.read(directory / "again.json") == result
    return True


# ---- checkpoints -------------------------------------------------------


@functools.cache
def _checkpoint(model_type: str) -> tuple[dict[str, Any], bytes]:
    """Return `config.json` and `model.safetensors` of the smallest model of a family."""
    values: dict[str, Any] = {"vocab_size": 6, "max_position_embeddings": 9, "pad_token_id": 0, "initializer_range": 0.02}
    if model_type == "distilbert":
        values |= {"dim": 4, "n_layers": 1, "n_heads": 2, "hidden_dim": 5, "activation": "gelu", "dropout": 0.1}
        values |= {"attention_dropout": 0.1, "seq_classif_dropout": 0.2}
    else:
        values |= {"embedding_size": 4, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
        values |= {"intermediate_size": 5, "type_vocab_size": 1, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
        values |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "classifier_dropout": None}
    values |= {"model_type": model_type, "id2label": {"0": "no", "1": "yes"}, "architectures": ["X"]}
    family = FAMILIES[model_type]
    arrays = family.arrays(family.blueprint(values, CONFIG), num_outputs=2)
    return values, save({array.name: np.ones(array.shape, np.float32) for array in arrays})


@functools.cache
def _tokenizer() -> bytes:
    """Return a `tokenizer.json` of four words with BERT's components."""
    tokenizer = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "cat": 3}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="$A [PAD]", pair="$A [PAD] $B:1", special_tokens=[("[PAD]", 0)])
    return tokenizer.to_str().encode()


def make_config(rng: Random) -> Case:
    """Make a checkpoint directory with a hostile `config.json`, or now and then with another hostile JSON file."""
    model_type = rng.choice([*FAMILIES])
    values, weights = _checkpoint(model_type)
    if rng.random() < 0.1:
        values = values | {
            rng.choice(("position_embedding_type", "is_decoder", "dtype", "problem_type")): rng.choice(_WORDS)
        }
    files: dict[str, bytes | Link] = {CONFIG: _perhaps_json(rng, values), WEIGHTS: weights, TOKENIZER: _tokenizer()}
    if rng.random() < 0.1:
        files[CONFIG] = json.dumps(values).encode()
        files[TOKENIZER_CONFIG] = damaged_json(rng, {"model_max_length": 512, "pad_token": "[PAD]", "extra": {"a": [1]}})
    if rng.random() < 0.15:
        files[CONFIG] = json.dumps(values).encode()
        files[TOKENIZER] = damaged_json(rng, json.loads(_tokenizer()))
    if rng.random() < 0.02:
        files[rng.choice((CONFIG, TOKENIZER))] = rng.choice((b"", b"\xff", Link("nowhere"), Link(CONFIG)))
    return Case(files=files, read=_read_checkpoint)


def _read_checkpoint(directory: Path) -> bool:
    checkpoint = load_checkpoint(directory)
    held = sum(array.nbytes for array in checkpoint.weights.values())
    assert held <= 1 << 20, "no more weights than the file has"
    assert checkpoint.blueprint.max_length >= 1 and checkpoint.blueprint.head_size >= 1
    return True


def make_safetensors(rng: Random) -> Case:
    """Make a weights file with a false header or damaged bytes."""
    arrays = {f"layer.{i}.weight": np.ones((2, 3), np.float32) for i in range(rng.randint(0, 4))}
    whole = save({**arrays, "half": np.ones(5, np.float16), "ids": np.arange(4)}, {"format": "pt"})
    (size,) = struct.unpack("<Q", whole[:8])
    header, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    for name in [name for name in header if name != "__metadata__"]:
        if rng.random() < 0.2:
            header[name]["dtype"] = rng.choice(("BF16", "F64", "I8", "U8", "BOOL", "F8_E5M2", "I64", "F4", "C64", "x", ""))
        if rng.random() < 0.1:
            header[name]["shape"] = rng.choice(([], [0], [0, 2**62], [2**40, 2**40], [1] * 100, [6], [3, 2, 1], [-1, 6]))
        if rng.random() < 0.1:
            start, end = header[name]["data_offsets"]
            header[name]["data_offsets"] = rng.choice(([end, start], [start, end + 1], [0, 2**63], [0, len(data)], [start]))
    text = json.dumps(header).encode() if rng.random() < 0.3 else damaged_json(rng, header)
    length = len(text)
    if rng.random() < 0.1:
        length = rng.choice((0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1, 100_000_001))
    content = struct.pack("<Q", length % 2**64) + text + data
    if rng.random() < 0.2:
        content = damaged_bytes(rng, content)
    if rng.random() < 0.1:
        place = rng.randint(0, len(content))  # NaN and infinity among the weights
        content = content[:place] + rng.choice((b"\xff\xff\xff\x7f", b"\x00\x00\x80\x7f")) + content[place + 4 :]
    return Case(files={WEIGHTS: content}, read=_read_weights)


def _read_weights(directory: Path) -> bool:
    weights = read_safetensors(directory / WEIGHTS, read_header(directory / WEIGHTS))
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in weights.values())
    return True


# ---- submissions -------------------------------------------------------

_NAMES: Final = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "WNLI", "AX")
FEW: Final = {f"{name}.tsv": 3 for name in _NAMES}
_WORDED: Final = ("MNLI-m", "MNLI-mm", "AX", "QNLI", "RTE")
STRANGE_NAMES: Final = (
    "../evil.tsv",
    "../../../../tmp/evil",
    "/etc/passwd",
    "C:\\evil.tsv",
    "..\\RTE.tsv",
    "a/../RTE.tsv",
    "submission/RTE.tsv",
    "RTE.tsv/",
    "RTE.tsv\0.exe",
    "rte.tsv",
    "RTE.tsv ",
    "\x1b[31mred\nline",
    "\u202eRTE.tsv",
    "\u0420\u0422\u0415.tsv",
    "",
    ".",
    "/",
    "x" * 60_000,
    "__MACOSX/._RTE.tsv",
    "inner.zip",
    "=cmd()",
)


@functools.cache
def _good_files() -> dict[str, bytes]:
    answers = {name: "entailment" if name in _WORDED else "1" for name in _NAMES}
    lines = {name: "".join(f"{i}\t{answer}\n" for i in range(3)) for name, answer in answers.items()}
    return {f"{name}.tsv": f"index\tprediction\n{rows}".encode() for name, rows in lines.items()}


@functools.cache
def _large(kind: int) -> bytes:
    """Return more content than a file may have: zero bytes, empty lines, one long line, or many short ones."""
    filler = (b"\0", b"\n", b"1", b"0\t1\n")[kind]
    return filler * ((LARGEST_FILE + 1000) // len(filler))


@functools.cache
def _nested(depth: int = 3) -> bytes:
    content = bytes(100_000)
    for _ in range(depth):
        content = _zip({f"{i}.zip": content for i in range(3)})
    return content


def _zip(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def zip_of_good_files(behind: Mapping[str, bytes]) -> bytes:
    """Return a valid submission of three rows each, with `behind` appended to some files."""
    return _zip({name: content + behind.get(name, b"") for name, content in _good_files().items()})


def make_submission(rng: Random) -> Case:
    """Make a zip for GLUE with hostile files, entries or zip records."""
    entries: list[tuple[zipfile.ZipInfo, bytes]] = [(zipfile.ZipInfo(name), text) for name, text in _good_files().items()]
    for info, _ in entries:
        info.external_attr = (stat.S_IFREG | 0o644) << 16
    damages = rng.choice((0, 1, 1, 2, 4))
    for _ in range(damages):
        _damage_entries(rng, entries)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same name twice
        with zipfile.ZipFile(stream, "w") as archive:
            for info, content in entries:
                method = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)) if rng.random() < 0.003 else None
                large = len(content) > 1 << 20
                archive.writestr(info, content, zipfile.ZIP_DEFLATED if large else method or rng.choice((0, 0, 8)), 1)
            archive.comment = rng.choice((b"", b"", b"", b"PK\5\6" + bytes(18), b"x" * 65_535))
    content = stream.getvalue()
    if damages == 0 or rng.random() < 0.5:
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            content = _damaged_zip(rng, content)
    return Case(files={"glue.zip": content}, read=_read_submission)


def _damage_entries(rng: Random, entries: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
    place = rng.randrange(len(entries)) if entries else 0
    if not entries:
        return
    info, content = entries[place]
    damage = rng.randrange(12)
    if damage == 0:
        del entries[place]
    elif damage == 1:
        entries.append((zipfile.ZipInfo(info.filename), content))
    elif damage == 2:
        other = zipfile.ZipInfo("x")
        other.filename = rng.choice(STRANGE_NAMES)  # the constructor would clean it
        entries.append((other, content))
    elif damage == 3:
        other = zipfile.ZipInfo("x")
        other.filename = rng.choice(STRANGE_NAMES)
        entries[place] = (other, content)
    elif damage == 4:
        kind = rng.choice((stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, 0))
        info.external_attr = (kind | rng.choice((0o777, 0o4755, 0))) << 16
        entries[place] = (info, rng.choice((content, b"/etc/passwd", b"../../x")))
    elif damage == 5:
        info.extra = rng.choice((b"\1\0\x10\0" + bytes(16), b"\1\0\xff\xff", b"\1\0", b"up\5\0\1abcd", bytes(60_000)))
    elif damage == 6 and rng.random() < 0.02:
        entries[place] = (info, _large(rng.randrange(4)))
    elif damage == 7 and rng.random() < 0.05:
        entries[place] = (info, _nested())
    elif damage == 8 and rng.random() < 0.02:
        entries += [(zipfile.ZipInfo(f"{i}"), b"") for i in range(3000)]
    elif len(content) < 1 << 20:
        entries[place] = (info, damaged_text(rng, content))


# The signature of each zip record, and the (offset, size) of its numbers.
_ZIP_RECORDS: Final = (
    (
        b"PK\1\2",
        ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (38, 4), (42, 4)),
    ),
    (b"PK\3\4", ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
    (b"PK\5\6", ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
)


def _damaged_zip(rng: Random, content: bytes) -> bytes:
    """Replace a number in a zip's own records, damage bytes, or add a second zip before or after it."""
    damage = rng.randrange(8)
    if damage == 0:
        return damaged_bytes(rng, content)
    if damage == 1:
        end = content.rfind(b"PK\5\6")
        return content[: max(0, rng.choice((end, end - 30, end + 10, len(content) - 1, len(content) // 2)))]
    if damage == 2:
        other = rng.choice(
            (_zip({"RTE.tsv": b"x"}), b"MZ" + bytes(300), content, b"PK\6\6" + bytes(52), b"PK\6\7" + bytes(16))
        )
        return rng.choice((other + content, content + other))
    mark, numbers = rng.choice(_ZIP_RECORDS)
    found = bytearray(content)
    places = [i for i in range(len(found)) if found.startswith(mark, i)] if len(found) < 10_000 else [found.rfind(mark)]
    if not places:
        return content
    offset, size = rng.choice(numbers)
    start = max(0, rng.choice(places)) + offset
    limit = 256**size
    value = rng.choice((0, 1, 2, 8, 9, 12, 14, 64, 0x800, 0x801, limit // 2, limit - 1, limit - 2, rng.randrange(limit)))
    found[start : start + size] = value.to_bytes(size, "little")
    return bytes(found)


def _read_submission(directory: Path) -> bool:
    problems = check_submission(directory / "glue.zip", rows=FEW)
    for problem in problems:
        hold(str(problem))
    assert len(problems) <= 12 * 21
    return not problems


TARGETS: Final[Mapping[str, Callable[[Random], Case]]] = {
    "tsv": make_tsv,
    "csv": make_csv,
    "jsonl": make_jsonl,
    "parquet": make_parquet,
    "results": make_results,
    "config": make_config,
    "safetensors": make_safetensors,
    "submission": make_submission,
}


def make_case(target: str, seed: int) -> Case:
    """Return the case of this number, which is the same on every machine."""
    return TARGETS[target](Random(f"{target} {seed}"))
