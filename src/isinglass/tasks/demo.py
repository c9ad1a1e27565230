"""The embedded task: English sentence pairs written for this project, which ship in the wheel (CC0)."""

import importlib.resources
from pathlib import Path
from typing import Final

from isinglass.metrics import Metric
from isinglass.tasks.task import Split, Task


def _split(name: str, rows: int) -> Split:
    return Split(
        name=name,
        file=f"{name}.tsv",
        rows=rows,
        text_columns=("premise", "hypothesis"),
        label_column="label",
        hub_split=name,
    )


DEMO: Final = Task(
    name="demo",
    title="demo",
    folder="demo_data",
    hub_config="",
    hub_text_columns=("premise", "hypothesis"),
    labels=("contradiction", "entailment", "neutral"),
    train=_split("train", 939),
    dev=(_split("dev", 180),),
    test=(_split("test", 180),),
    metrics=(Metric.ACCURACY,),
    dev_majority=((1 / 3,),),
    citation="written for isinglass: everyday and technical matters, each hypothesis written before its label was drawn",
)


def demo_data_dir() -> Path:
    """Return the directory whose folder `demo_data` holds the embedded files."""
    return Path(str(importlib.resources.files("isinglass.tasks")))
