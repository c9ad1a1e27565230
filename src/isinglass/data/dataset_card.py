"""Read the card of a data set on the hub: its subsets, the files of their splits, and the names of its classes.

What the card does not say, the names of the files tell.
"""

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from isinglass.data.columns import as_text
from isinglass.data.files import short_reason
from isinglass.data.formats import ParquetTable
from isinglass.errors import DataError
from isinglass.names import brief

ONLY_SUBSET: Final = "default"  # name of the subset of a data set that names none
PARTIAL: Final = "partial-"  # what the hub puts before the name of a split of which it converted a part only
# our split -> its names on the hub, which are also sought in the names of files; the first that there is counts
SPLITS: Final[Mapping[str, Sequence[str]]] = {
    "train": ("train", "training"),
    "dev": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_KEYWORDS: Final = frozenset(name for names in SPLITS.values() for name in names)
_SHARD: Final = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}\b.*")  # train-00000-of-00002.parquet
_CONVERTED_FILE: Final = re.compile(r"[^/]+/[^/]+/\d{4}\.parquet")  # SUBSET/SPLIT/0000.parquet
_TO_CLASSES: Final = ("dtype", "class_label", "feature", "sequence", "list", "large_list")  # keys on the way to `names`
_REMEDY: Final = "name another commit (USER/NAME@COMMIT), or download the files and give them with --train-file"

ClassNames = dict[str, tuple[str, ...]]
"""Column -> the names of its classes, in the order of their numbers."""
Files = Mapping[str, tuple[str, ...]]
"""Split -> the names of its Parquet files in the repository."""


class _SplitFiles(BaseModel):
    """An entry of `data_files`."""

    split: str
    path: str | list[str]


class _Subset(BaseModel):
    """An entry of `configs`, which says where the files of a subset lie."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    config_name: str
    data_files: str | list[str | _SplitFiles] | None = None
    data_dir: str = ""
    default: bool = False

    def splits(self, files: Iterable[str]) -> Files:
        """Return the Parquet files of each split."""
        names = _parquet(files)
        if self.data_files is None:
            folder = posixpath.normpath(self.data_dir)
            inside = [name for name in names if PurePosixPath(name).is_relative_to(folder)]
            return _by_split(inside)
        patterns: dict[str, list[str]] = {}
        for entry in [self.data_files] if isinstance(self.data_files, str) else self.data_files:
            split, path = ("train", entry) if isinstance(entry, str) else (entry.split, entry.path)
            patterns.setdefault(split, []).extend([path] if isinstance(path, str) else path)
        found = {split: self._matches(names, paths) for split, paths in patterns.items()}
        return {split: matches for split, matches in found.items() if matches}

    def _matches(self, names: Sequence[str], patterns: Iterable[str]) -> tuple[str, ...]:
        """Return the names that match any of the patterns, in which `*` stands for anything but `/`."""
        from fsspec.utils import glob_translate

        paths = [posixpath.normpath(posixpath.join(self.data_dir, pattern)) for pattern in patterns]
        regexes = [re.compile(glob_translate(path)) for path in paths]
        return tuple(name for name in names if any(regex.match(name) for regex in regexes))


class DatasetCard(BaseModel):
    """What is read of the YAML at the top of a data set's `README.md`; without any values, a card that says nothing."""

    configs: list[_Subset] | None = None
    dataset_info: dict[str, Any] | list[dict[str, Any]] | None = None

    @classmethod
    def read(cls, path: Path, origin: str) -> "DatasetCard":
        """Read the card.

        Raises:
            DataError: the YAML cannot be read.
        """
        import yaml
        from huggingface_hub import metadata_load

        try:
            return cls.model_validate(metadata_load(path) or {})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise DataError(f"{origin}: {place} is {brief(first['input'])}, which is not understood: {_REMEDY}.") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise DataError(f"{origin}: the YAML at its top cannot be read ({short_reason(error)}): {_REMEDY}.") from None

    def subsets(self, files: Sequence[str]) -> dict[str, Files]:
        """Return the files of each split of each subset: those that the card names, else those that their names tell."""
        if self.configs:
            return {subset.config_name: subset.splits(files) for subset in self.configs}
        return guess_subsets(files)

    @property
    def default(self) -> str:
        """The subset to use where none is named, if it is one of the data set's."""
        names = [subset.config_name for subset in self.configs or () if subset.default]
        return names[0] if len(names) == 1 else ONLY_SUBSET

    def class_names(self, subset: str, origin: str) -> ClassNames:
        """Return the names of the classes of a subset's columns.

        Raises:
            DataError: two classes have the same name, or a number between two others has none.
        """
        infos = [self.dataset_info] if isinstance(self.dataset_info, dict) else self.dataset_info or []
        named = [info for info in infos if info.get("config_name", ONLY_SUBSET) == subset]
        if not named and len(infos) == 1:
            named = infos
        features = named[0].get("features") if named else None
        features = [each for each in features if isinstance(each, dict)] if isinstance(features, list) else []
        return _class_names(((each.get("name"), each) for each in features), origin)


def noted_class_names(table: ParquetTable) -> ClassNames:
    """Return the names of classes that the library `datasets` notes in the files that it writes.

    Raises:
        DataError: the note is damaged.
    """
    note = table.metadata.get(b"huggingface")
    if note is None:
        return {}
    try:
        features = json.loads(note)["info"]["features"]
        columns = [*features.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"the features in its metadata cannot be read ({short_reason(error)})"
        raise DataError(f"{table.file.origin}: {reason}: {_REMEDY}.") from None
    return _class_names(columns, table.file.origin)


def _class_names(features: Iterable[tuple[Any, Any]], origin: str) -> ClassNames:
    """Return the names of the classes of those columns that have any."""
    found: ClassNames = {}
    for column, feature in features:
        try:
            names = _names_of(feature)
        except (ValueError, TypeError, RecursionError) as error:
            reason = f"the classes of {brief(column)} are not understood ({short_reason(error)})"
            raise DataError(f"{origin}: {reason}: {_REMEDY}.") from None
        if names:
            found[str(column)] = names
    return found


def _names_of(feature: Any) -> tuple[str, ...]:
    """Return the names of a feature's classes; none if it is not of classes, or of lists of them.

    In a card it is `{dtype: {class_label: {names: {'0': NAME, ...}}}}`, with `sequence` or `list` for a list; in a file
    `{"names": [NAME, ...], "_type": "ClassLabel"}`, for a list as its `feature` or alone in a list.
    """
    if isinstance(feature, list) and len(feature) == 1:
        return _names_of(feature[0])
    if not isinstance(feature, dict):
        return ()
    names = feature.get("names")
    if names is None:
        return next(filter(None, (_names_of(feature[key]) for key in _TO_CLASSES if key in feature)), ())
    by_number = {int(number): name for number, name in names.items()} if isinstance(names, dict) else dict(enumerate(names))
    ordered = tuple(as_text(by_number[number]) or "" for number in sorted(by_number))
    if sorted(by_number) != [*range(len(ordered))]:
        raise ValueError(f"their numbers are not 0 to {len(ordered) - 1}")
    if len({*ordered}) < len(ordered):
        raise ValueError("two have the same name")
    return ordered


# ---- splits by the names of files --------------------------------------


def guess_subsets(files: Iterable[str]) -> dict[str, Files]:
    """Return the Parquet files of each split of each subset, as their names tell; empty without Parquet files."""
    names = _parquet(files)
    if not names:
        return {}
    if not all(map(_CONVERTED_FILE.fullmatch, names)):
        return {ONLY_SUBSET: _by_split(names)}
    subsets: dict[str, dict[str, tuple[str, ...]]] = {}
    for name in names:
        subset, folder, _ = name.split("/")
        splits = subsets.setdefault(subset, {})
        split = folder.removeprefix(PARTIAL)
        splits[split] = (*splits.get(split, ()), name)
    return {**subsets}


def _parquet(files: Iterable[str]) -> list[str]:
    return [name for name in files if name.lower().endswith(".parquet")]


def _by_split(names: Sequence[str]) -> Files:
    """Return the files of each split. If no name tells a split, all are training data."""
    splits = [_guess_split(PurePosixPath(name)) for name in names]
    if names and not any(splits):
        return {"train": tuple(names)}
    found: dict[str, tuple[str, ...]] = {}
    for name, split in zip(names, splits, strict=True):
        key = split or PurePosixPath(name).stem
        found[key] = (*found.get(key, ()), name)
    return found


def _guess_split(file: PurePosixPath) -> str | None:
    """Return the split that the name of a file tells or, failing that, the name of the nearest folder that tells one."""
    shard = _SHARD.fullmatch(file.name)
    if shard:
        return shard["split"]
    for part in (file.stem, *(folder.name for folder in file.parents)):
        for word in re.split(r"[-._ 0-9]+", part.lower()):
            if word in _KEYWORDS:
                return word
    return None
