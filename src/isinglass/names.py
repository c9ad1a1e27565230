"""Format names, texts and figures for messages, tables and pages."""

import difflib
import math
import reprlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Final

_BRIEF: Final = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 60


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return an insert for an error message that offers the nearest known name; empty if none is near.

    >>> did_you_mean("mprc", ["mrpc", "rte"])
    " (did you mean 'mrpc'?)"
    """
    near = difflib.get_close_matches(name[:100].lower(), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def printable(text: str) -> str:
    r"""Return a text on one line, safe on a terminal: characters that do not print are written as in Python, `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(value: object) -> str:
    """Return `repr(value)` cut short for a message: a value from a file may be of any length and depth.

    >>> brief("a" * 1000)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    text = _BRIEF.repr(value)
    return text if len(text) <= 120 else f"{text[:60]}...{text[-57:]}"


def shortened(text: str, most: int) -> str:
    """Return a text cut short for a message: a text from a file may be of any length."""
    return text if len(text) <= most else f"{text[:most]}..."


def listed(names: Iterable[object], most: int = 200) -> str:
    """Return quoted names for a message, cut short where they are longer than a sentence.

    >>> listed(["text", "label"])
    "'text', 'label'"
    """
    return shortened(", ".join(map(brief, islice(names, 50))), most)


def duration(seconds: float) -> str:
    """Return `2:35:23` from one hour on, else `40:57`; `unknown` for NaN."""
    if math.isnan(seconds):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def short_name(model: object) -> str:
    """Return the last part of a model's name or path, without the user's directories."""
    return Path(str(model)).name or str(model)
