"""Names and texts in messages: the nearest known name for one that is not known; what does not print, made visible."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """An insert for an error message; empty if nothing known is near.

    >>> did_you_mean("mprc", ["mrpc", "rte"])
    " (did you mean 'mrpc'?)"
    """
    near = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def printable(text: str) -> str:
    r"""A text on one line, safe on a terminal and in a document: what does not print is written as in Python, `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
