"""The files that a search leaves for people: the table of its trials, and the best one's settings as a recipe."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from isinglass.config import PLACES, TrainConfig, as_dict, resolve
from isinglass.metrics import Metric
from isinglass.names import printable
from isinglass.storage import replacing
from isinglass.tuning.search_space import SETTINGS
from isinglass.tuning.study import TunedTrial

RECIPE: Final = "recipe.toml"
TRIALS: Final = "trials.tsv"


def best_trial(trials: Sequence[TunedTrial], metric: Metric) -> TunedTrial | None:
    """Return the complete trial with the best score, the first of equal ones; None if none has a score."""
    scored = [trial for trial in trials if trial.state == "complete" and math.isfinite(metric.rank(trial.score))]
    return max(scored, key=lambda trial: metric.rank(trial.score), default=None)


def write_table(directory: Path, trials: Sequence[TunedTrial], metric: Metric) -> None:
    """Write `trials.tsv`: number, state, settings, score and seconds of each finished trial."""
    with replacing(directory / TRIALS) as path, open(path, "w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, delimiter="\t", lineterminator="\n")
        table.writerow(["number", "state", *SETTINGS, metric, "seconds"])
        for trial in trials:
            settings = [repr(trial.settings[name]) for name in SETTINGS]
            table.writerow([trial.number, trial.state, *settings, _score_text(trial.score), f"{trial.seconds:.1f}"])


def _score_text(score: float | None) -> str:
    if score is None:
        return ""
    return "NaN" if math.isnan(score) else f"{score:.6g}"


def write_recipe(
    directory: Path, config: TrainConfig, best: TunedTrial, *, metric: Metric, trials: int, notes: Sequence[str]
) -> None:
    """Write `recipe.toml`, which `isinglass train --config` takes.

    It has the settings that were searched, and those of the search that are not the defaults.

    Args:
        trials: number of finished trials.
    """
    comments = [
        f"{config.task}, {config.model}: trial {best.number} is the best of {trials} by {metric}, {best.score:.4f}.",
        *notes,
    ]
    lines = [f"# {printable(comment)}\n" for comment in comments]
    values = {**best.settings, **_changed_settings(config)}
    lines += [f"{name} = {_toml(value)}\n" for name, value in values.items()]
    with replacing(directory / RECIPE) as path:
        path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def _changed_settings(config: TrainConfig) -> Mapping[str, Any]:
    """Return the settings that were not searched, and are not the task's defaults."""
    defaults = as_dict(resolve(task=config.task))
    left_out = {"task", *PLACES, *SETTINGS}
    settings = as_dict(config)
    return {name: value for name, value in settings.items() if name not in left_out and value != defaults[name]}


def _toml(value: str | bool | float) -> str:
    """Return a plain value in TOML. TOML's basic strings are those of JSON, except DEL, which must be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
