"""Find a data set on the hub: its files at one commit, of one subset, as tables by split.

A repository without Parquet files has them in a branch of its own, into which the hub converts data sets.
"""

import logging
import os.path
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from isinglass.data.dataset_card import PARTIAL, SPLITS, ClassNames, DatasetCard, Files, guess_subsets, noted_class_names
from isinglass.data.files import DataFile
from isinglass.data.formats import ParquetTable
from isinglass.errors import HubError
from isinglass.hub import NEWEST, Listing, fetch, list_files, split_revision
from isinglass.names import brief, did_you_mean, listed
from isinglass.results import HubData

CARD: Final = "README.md"
CONVERTED: Final = "refs/convert/parquet"  # the branch into which the hub converts data sets
INSTEAD: Final = "check the name, or give files with --train-file"
OPTIONS: Final = {"train": "--train-file", "dev": "--validation-file", "test": "--test-file"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """One subset of a data set of the hub, at one commit.

    Attributes:
        files: those of each split, by the names that splits have on the hub.
        class_names: as the card has them. The files may have those of other columns.
        notes: sentences for the result.
    """

    origin: HubData
    files: Files
    class_names: ClassNames
    notes: tuple[str, ...]

    @property
    def splits(self) -> dict[str, str]:
        """Our splits that it has, with their names on the hub: `dev` -> `validation`."""
        return _our_splits(self.files)

    def open(self, split: str) -> list[ParquetTable]:
        """Download the files of one of our splits where the cache lacks them, and read their schemas.

        Raises:
            HubError: it has no such split, is gated, or the hub cannot be reached and the cache lacks a file.
            DataError: a file is not Parquet.
        """
        if split not in self.splits:
            title = f"{self.origin.repo} (subset {brief(self.origin.subset)})"
            raise HubError(
                f"{title} has no {split} set among its splits {listed(self.files)}: give one with {OPTIONS[split]}."
            )
        return [self._open_file(name) for name in self.files[self.splits[split]]]

    def _open_file(self, name: str) -> ParquetTable:
        repo, commit = self.origin.repo, self.origin.commit
        path = fetch(repo, name, repo_type="dataset", revision=commit, instead=INSTEAD)
        if path is None:
            raise HubError(f"{repo} on the hub has no file {name} at commit {commit}: {INSTEAD}.")
        table = ParquetTable.open(DataFile(path=path, origin=f"{repo}/{name}"))
        return replace(table, class_names={**noted_class_names(table), **self.class_names})


def open_dataset(name: str, subset: str | None) -> HubDataset:
    """Look a data set up on the hub or, without it, in the cache. Its data are downloaded when they are opened.

    Args:
        name: USER/NAME, optionally with @REVISION.
        subset: None: the only one, or the one that the card calls the default.

    Raises:
        HubError: there is no such data set, revision or subset, it has no Parquet files, or has several subsets and no
            default.
        DataError: its card cannot be read.
    """
    repo, revision = split_revision(_checked_name(name))
    listing = list_files(repo, repo_type="dataset", revision=revision or NEWEST, instead=INSTEAD)
    if listing is None:
        raise HubError(f"{repo} on the hub has no commit, tag or branch {brief(revision)}: {INSTEAD}.")
    card = _read_card(repo, listing)
    subsets = card.subsets(listing.files)
    chosen = subset
    if any(subsets.values()):
        chosen = _choose_subset(repo, subsets, card.default, subset)
        if subsets[chosen]:
            class_names = card.class_names(chosen, f"{repo}/{CARD}")
            note = f"The data set {repo} is the hub's at commit {listing.commit}."
            return _dataset(HubData(repo=repo, subset=chosen, commit=listing.commit), subsets, class_names, note, subset)
    listing = _converted(repo, revision)
    subsets = guess_subsets(listing.files)
    chosen = _choose_subset(repo, subsets, card.default, chosen)
    note = f"The data set {repo} has no Parquet files; those that the hub made of it are of commit {listing.commit}."
    return _dataset(HubData(repo=repo, subset=chosen, commit=listing.commit), subsets, {}, note, subset)


def _dataset(
    origin: HubData, subsets: Mapping[str, Files], class_names: ClassNames, note: str, requested: str | None
) -> HubDataset:
    """Return a subset, with notes about what was chosen and what is left out."""
    logger.info(note)
    notes = [note]
    files = subsets[origin.subset]
    others = [name for name in subsets if name != origin.subset]
    if others and requested is None:
        notes.append(f"Subset: {brief(origin.subset)}, the data set's default; others are {listed(others)} (--subset).")
    used = _our_splits(files).values()
    unused = [split for split in files if split not in used]
    if unused and used:
        notes.append(f"Splits of the data set that are not used: {listed(unused)}.")
    partial = [split for split, names in files.items() if any(f"/{PARTIAL}" in name for name in names)]
    if partial:
        notes.append(f"Of very large data sets the hub converts a part only: the splits {listed(partial)} are not complete.")
    return HubDataset(origin=origin, files=files, class_names=class_names, notes=tuple(notes))


def _our_splits(files: Files) -> dict[str, str]:
    """Return our splits that there are, with their names on the hub."""
    by_lower_case = {name.lower(): name for name in files}
    names = {split: [name for name in names if name in by_lower_case] for split, names in SPLITS.items()}
    return {split: by_lower_case[found[0]] for split, found in names.items() if found}


def _checked_name(name: str) -> str:
    """Refuse what looks like a path, which no server should be asked for.

    Raises:
        HubError: it does.
    """
    is_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    if is_path or os.path.isfile(name):  # noqa: PTH113 - Path.is_file raises an error for a name that is too long
        raise HubError(
            f"dataset is {brief(name)}; a name on the hub (USER/NAME) was expected: give files with --train-file."
        )
    return name


def _read_card(repo: str, listing: Listing) -> DatasetCard:
    if CARD not in listing.files:
        return DatasetCard()
    path = fetch(repo, CARD, repo_type="dataset", revision=listing.commit, instead=INSTEAD)
    return DatasetCard() if path is None else DatasetCard.read(path, f"{repo}/{CARD}")


def _choose_subset(repo: str, subsets: Collection[str], default: str, requested: str | None) -> str:
    """Return the requested subset, the only one or the default.

    Raises:
        HubError: there is no such subset, or there are several and no default.
    """
    if requested is not None:
        if requested in subsets:
            return requested
        hint = did_you_mean(requested, subsets)
        raise HubError(f"{repo} has no subset {brief(requested)}{hint}; it has {listed(subsets)}.")
    if len(subsets) > 1 and default not in subsets:
        raise HubError(f"{repo} has {len(subsets)} subsets: name one with --subset; they are {listed(subsets)}.")
    return default if default in subsets else next(iter(subsets))


def _converted(repo: str, revision: str | None) -> Listing:
    """Return the Parquet files into which the hub converted a data set.

    Raises:
        HubError: there are none, or another commit was requested.
    """
    if revision is not None:
        raise HubError(
            f"{repo} has no Parquet files at {revision}: leave the revision out, or give files with --train-file."
        )
    listing = list_files(repo, repo_type="dataset", revision=CONVERTED, instead=INSTEAD)
    if listing is None or not guess_subsets(listing.files):
        remedy = "download its files, and give them with --train-file"
        raise HubError(f"{repo} on the hub has no Parquet files, and the hub made none ({CONVERTED}): {remedy}.")
    return listing
