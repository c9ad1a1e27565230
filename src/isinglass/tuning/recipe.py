"""What a search leaves for people: the table of its trials and the recipe of the best."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isinglass.config import PLACES, TrainConfig, as_dict, resolve
from isinglass.errors import (
    StorageError,
)
from isinglass.metrics import LOWER_IS_BETTER
from isinglass.names import printable
from isinglass.storage import replacing
from isinglass.tuning.search_space import SETTINGS
from isinglass.tuning.study import TunedTrial

RECIPE: Final = "recipe.toml"
TRIALS: Final = "trials.tsv"


def write(
    directory: Path, config: TrainConfig, metric: str, finished: Sequence[TunedTrial], notes: Sequence[str]
) -> TunedTrial | None:
    """Write the table of trials and, if there is one with a score, the best one's recipe; return that trial."""
    scored = [(one, one.score) for one in finished if one.state == "complete" and one.score is not None]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    best, _ = max(
        ((one, score) for one, score in scored if not math.isnan(score)),
        key=lambda pair: sign * pair[1],
        default=(None, 0.0),
    )
    try:
        with replacing(directory / TRIALS) as path, open(path, "w", encoding="utf-8", newline="") as lines:
            table = csv.writer(lines, delimiter="\t", lineterminator="\n")
            table.writerow(["number", "state", *SETTINGS, metric, "seconds"])
            for one in finished:
                score = "" if one.score is None else "NaN" if math.isnan(one.score) else f"{one.score:.6g}"
                settings = (repr(one.settings[name]) for name in SETTINGS)
                table.writerow([one.number, one.state, *settings, score, f"{one.seconds:.1f}"])
        if best is not None:
            with replacing(directory / RECIPE) as path:
                text = _recipe(config, metric, best, len(finished), notes)
                path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(f"{directory} cannot be written ({error.strerror}): make room and run it again.") from error
    return best


def _recipe(config: TrainConfig, metric: str, best: TunedTrial, trials: int, notes: Sequence[str]) -> str:
    """TOML that `isinglass train --config` takes: the searched settings, and those that differ from the usual ones."""
    usual = as_dict(resolve(task=config.task))
    given = {
        name: value
        for name, value in as_dict(config).items()
        if name not in ("task", *PLACES, *SETTINGS) and value != usual[name]
    }
    comments = [
        f"{config.task}, {config.model}: trial {best.number} is the best of {trials} by {metric}, {best.score:.4f}.",
        *notes,
    ]
    values = {**best.settings, **given}
    lines = [*(f"# {printable(one)}" for one in comments), *(f"{name} = {_toml(value)}" for name, value in values.items())]
    return "".join(f"{line}\n" for line in lines)


def _toml(value: str | bool | float) -> str:
    """A plain value in TOML, whose basic strings are JSON's but for what JSON writes as two halves."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
