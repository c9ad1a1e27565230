"""The user's own files in a bench: all of its runs share one task, and the same rows of each set.

`tasks/TASK.json` in the bench's directory holds the task, as `task.json` beside a model does, and a digest of each set.
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from isinglass.data.examples import Examples
from isinglass.data.source import Source
from isinglass.errors import DataError
from isinglass.models.files import read_json
from isinglass.names import brief
from isinglass.results import RunResult
from isinglass.storage import replacing
from isinglass.tasks import custom

LIMIT: Final = 10_000_000  # bytes
DIGESTS: Final = "digests"


def describe(data: Source) -> dict[str, Any]:
    """The task with the sets that are scored, and of each of its sets a digest."""
    task = data.task
    scored = replace(task, test=tuple(split for split in task.test if split.label_column is not None))
    digests = {split.name: _digest(data.read(split)) for split in task.splits}
    values: dict[str, Any] = json.loads(custom.to_json(scored))
    return values | {DIGESTS: digests}


def settle(found: dict[str, Any], bench: Path, results: Sequence[RunResult]) -> None:
    """Write what runs, and the report, go by; where runs of the task are finished, theirs counts.

    Raises:
        DataError: it is another.
    """
    path = _path(found, bench)
    if any(result.task == found["name"] for result in results):
        check_same(found, bench)
    elif path.exists():
        path.unlink()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_same(found: dict[str, Any], bench: Path) -> None:
    """Refuse rows, or labels, that are not those that the bench goes by: the scores could not be compared.

    Raises:
        DataError: they are others; the message says which.
    """
    path = _path(found, bench)
    if not path.exists():
        return
    before = read_json(path, limit=LIMIT)
    digests, earlier = found[DIGESTS], before.get(DIGESTS)
    if not isinstance(earlier, dict):
        raise DataError(f"{path}: {DIGESTS} is {brief(earlier)}; an object was expected: use a new --output.")
    other = [name for name in dict.fromkeys((*digests, *earlier)) if digests.get(name) != earlier.get(name)]
    if other:
        raise DataError(
            f"The {' and '.join(other)} rows of {found['name']} are not those of earlier runs of this bench (the files, or "
            f"settings that choose rows, have changed): use a new --output."
        )
    for key, value in found.items():
        if before.get(key) != value:
            raise DataError(
                f"The {key} of {found['name']} is {brief(value)}, and in earlier runs of this bench "
                f"{brief(before.get(key))}: use a new --output."
            )


def _path(found: dict[str, Any], bench: Path) -> Path:
    return bench / "tasks" / f"{found['name']}.json"


def _digest(examples: Examples) -> str:
    """Of texts and labels, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    labels = itertools.repeat(None) if examples.labels is None else examples.labels
    for row in zip(*examples.texts, labels):  # repeat has no end
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
