"""Make a custom task of lists in memory, through the same code as for files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from isinglass.config import TrainConfig
from isinglass.data.columns import Columns
from isinglass.data.custom import read_rows, resolve_source
from isinglass.data.examples import LoadedSplits
from isinglass.data.files import DataFile
from isinglass.data.formats import Chunk, Table

NAMES = {"train": "training data", "dev": "validation data"}


@dataclass(frozen=True, kw_only=True)
class MemoryTable(Table):
    """A table whose columns are lists; messages count its rows from 0."""

    unit: ClassVar[str] = "index"

    values: dict[str, Sequence[Any]]

    @classmethod
    def of(cls, name: str, values: dict[str, Sequence[Any]]) -> Self:
        return cls(file=DataFile(path=Path(name), origin=name), columns=tuple(values), values=values)

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        columns = [self.values[name] for name in names]
        yield Chunk(columns=columns, numbers=range(len(columns[0])))


def memory_data(
    *,
    name: str,
    texts: tuple[Sequence[Any], ...],
    labels: Sequence[Any],
    dev: tuple[tuple[Sequence[Any], ...], Sequence[Any]] | None = None,
    **settings: Any,
) -> LoadedSplits:
    """Return the data of a task made of texts and labels; `dev`: texts and labels of its validation set."""
    config = TrainConfig(task=name, train_file=("memory",), **settings)
    columns = Columns(texts=("text", "text2")[: len(texts)], label="label")
    splits = {}
    for split, rows in (("train", (texts, labels)), ("dev", dev)):
        if rows is not None:
            values = dict(zip(columns.names, (*rows[0], rows[1]), strict=True))
            table = MemoryTable.of(NAMES[split], values)
            splits[split] = read_rows(split, [table], columns, config)
    return resolve_source(splits, columns, config)
