"""Your own files in a bench: all runs share one task, and the same rows of each split.

`tasks/TASK.json` in the bench's directory describes the task, as `task.json` beside a model does, with a digest of each
split.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.checks import DataFacts, inspect_data
from isinglass.data.examples import Source, digest_of
from isinglass.errors import DataError
from isinglass.models.files import read_json
from isinglass.names import brief
from isinglass.results import RunResult
from isinglass.storage import replacing
from isinglass.tasks import custom

DIGESTS: Final = "digests"

Description = dict[str, Any]
"""The content of `tasks/TASK.json`."""


@dataclass(frozen=True)
class OwnData:
    """What is known about your own files: what all runs must share, notes of their reading, and facts about their rows."""

    description: Description
    notes: tuple[str, ...]
    facts: DataFacts


def read_own_data(config: TrainConfig) -> OwnData:
    """Read and check the files that the settings name.

    Raises:
        DataError: they are missing or damaged.
    """
    data = open_data(config)
    splits = {split.name: data.read(split) for split in data.task.splits}
    return OwnData(describe(data), data.notes, inspect_data(splits, data.task))


def describe(data: Source) -> Description:
    """Return the task with those of its splits that have labels, and a digest of every split."""
    task = data.task
    labelled = replace(task, test=tuple(split for split in task.test if split.label_column is not None))
    digests = {split.name: digest_of(data.read(split)) for split in task.splits}
    values: Description = json.loads(custom.to_json(labelled))
    return values | {DIGESTS: digests}


def settle(description: Description, bench: Path, results: Sequence[RunResult]) -> None:
    """Write the description that runs and report go by. If runs of the task are finished, theirs stays.

    Raises:
        DataError: the finished runs had another description.
    """
    path = _path(description, bench)
    if path.exists() and any(result.task == description["name"] for result in results):
        check_same(description, bench)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_same(description: Description, bench: Path) -> None:
    """Refuse a task or rows other than those of the bench: their scores could not be compared.

    Raises:
        DataError: they differ; the message says in what.
    """
    path = _path(description, bench)
    if not path.exists():
        return
    name, earlier = description["name"], read_json(path, limit=custom.MOST_BYTES)
    digests, earlier_digests = description[DIGESTS], earlier.get(DIGESTS)
    if isinstance(earlier_digests, dict) and digests != earlier_digests:
        splits = dict.fromkeys((*digests, *earlier_digests))
        changed = " and ".join(split for split in splits if digests.get(split) != earlier_digests.get(split))
        raise DataError(
            f"The {changed} rows of {name} are not those of earlier runs of this bench (the files, or settings that choose "
            f"rows, have changed): use a new --output."
        )
    for key, value in description.items():
        was = earlier.get(key)
        if was != value:
            before = f"in earlier runs of this bench {brief(was)}"
            raise DataError(f"The {key} of {name} is {brief(value)}, and {before}: use a new --output.")


def _path(description: Description, bench: Path) -> Path:
    return bench / "tasks" / f"{description['name']}.json"
