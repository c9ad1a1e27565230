"""Write a submission: choose the runs, make the files of their predictions, and zip these."""

import logging
import math
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, Literal

from isinglass.data.files import DataFile
from isinglass.errors import ConfigError, DataError, OutputExistsError
from isinglass.names import did_you_mean
from isinglass.results import RESULTS, RunResult, file_below, read_records
from isinglass.storage import check_parent, real_path, replacing
from isinglass.submission.check import FILES, HEADER, NUMBER, GlueFile, problems_of_file
from isinglass.tables import Table
from isinglass.tasks import TASKS, Task

logger = logging.getLogger(__name__)
ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: the same answers give the same bytes


@dataclass(frozen=True, kw_only=True)
class SubmittedFile:
    """One of the eleven files: a run's predictions, or one label on every row, or absent.

    Attributes:
        name: `RTE.tsv`.
        run: whose predictions it holds, else None.
        dev_score: the run's value of its task's first metric on dev (MNLI: mean of both sets); None if it has none.
        candidates: of how many runs with test predictions this one is the best.
        filled: the label on every row; None if the file is a run's or absent.
    """

    name: str
    run: RunResult | None = None
    dev_score: float | None = None
    candidates: int = 0
    filled: str | None = None


def write_submission(
    directory: Path,
    output: Path,
    *,
    partial: Literal["refuse", "absent", "majority"] = "refuse",
    overwrite: bool = False,
    select: Mapping[str, str | int | None] | None = None,
    rows: Mapping[str, int] | None = None,
) -> list[SubmittedFile]:
    """Write the zip: for each task the test predictions of the run that is best on dev.

    MNLI-m, MNLI-mm and AX come from one run; one that answers all three goes before one that does not. Of equal runs the
    first in `results.jsonl` is taken; one without a score only if no other has any.

    Args:
        directory: as `isinglass bench` leaves it.
        output: the zip, replaced only with `overwrite`. On any error it stays as it was.
        partial: what becomes of files that no run answers: `refuse` to write, leave them `absent`, or fill them with
            the `majority` label.
        select: `backend`, `precision` (what ran), `model`, `seed`: what a run must have; None: any.
        rows: file name -> rows, where other than the published test sets'.

    Returns:
        Where each of the eleven files comes from, absent ones included.

    Raises:
        OutputExistsError: `output` exists and `overwrite` is false, or it is no zip.
        ConfigError: `output` cannot be made there, or no run is like `select`.
        DataError: there are no results; a file is missing and `partial` is `refuse`; a predictions file lies outside of
            `directory`, or does not hold what GLUE takes.
        OSError: the disk is full, say.
    """
    _check_output(output, overwrite=overwrite)
    wanted = {name: value for name, value in (select or {}).items() if value is not None}
    results = _selected(directory, wanted)
    files = [_choose(file, results, fill=partial == "majority") for file in FILES]
    absent = [file.name for file in files if file.run is None and file.filled is None]
    if (absent and partial == "refuse") or len(absent) == len(files):
        among = f" ({', '.join(f'{name} {value}' for name, value in wanted.items())})" if wanted else ""
        raise DataError(
            f"{directory} has no test predictions{among} for {', '.join(absent)}: add such runs with `isinglass bench "
            f"--predict-test`, or say --partial absent|majority to leave these files out or fill them with one label."
        )
    contents = {}
    for file, chosen in zip(FILES, files, strict=True):
        if file.name not in absent:
            contents[file.name] = _content(file, chosen, directory, (rows or {}).get(file.name, file.rows))
    _write_zip(output, contents)
    return files


def _check_output(output: Path, *, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise OutputExistsError(f"{output} exists: choose another --output, or replace it with --overwrite.")
    if output.exists() and not (output.is_file() and zipfile.is_zipfile(output)):
        raise OutputExistsError(f"{output} is not a zip: --overwrite does not replace it; choose another --output.")
    check_parent(output, option="--output")


def _selected(directory: Path, select: Mapping[str, str | int]) -> list[RunResult]:
    """Return the finished runs that have the properties in `select`."""
    records = read_records(directory)
    for line in records.damaged:
        logger.warning("%s, line %d is no record and is left out: %s.", directory / RESULTS, line.number, line.reason)
    results = records.results
    for name, value in select.items():
        if name not in ("backend", "precision", "model", "seed"):
            raise ConfigError(f"Runs are selected by backend, precision, model or seed; {name!r} is none of them.")
        known = sorted({str(getattr(result, name)) for result in records.results})
        if str(value) not in known:
            near = did_you_mean(str(value), known)
            raise ConfigError(f"{directory} has no run with {name} {value}{near}; it has {', '.join(known) or 'no runs'}.")
        results = [result for result in results if str(getattr(result, name)) == str(value)]
    return results


def _choose(file: GlueFile, results: Sequence[RunResult], *, fill: bool) -> SubmittedFile:
    """Return the task's best run, the same for each file of the task."""
    candidates = [result for result in results if result.task == file.task.name and _answered(result)]
    run = max(candidates, key=_rank, default=None)
    if run is None or file.key not in run.predictions:
        return SubmittedFile(name=file.name, filled=file.majority if fill else None)
    return SubmittedFile(name=file.name, run=run, dev_score=_dev_score(run), candidates=len(candidates))


def _rank(result: RunResult) -> tuple[int, bool, float]:
    score = _dev_score(result)
    return _answered(result), score is not None, score or 0.0


def _answered(result: RunResult) -> int:
    """Return how many of the eleven files the run's predictions fill."""
    return sum(file.task.name == result.task and file.key in result.predictions for file in FILES)


def _dev_score(result: RunResult) -> float | None:
    """Return the mean of the task's first metric over the dev sets; None if one of them is not defined."""
    metric = TASKS[result.task].metrics[0]
    scores = [found[metric].value for found in result.scores.values() if metric in found]
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(result.scores) else None


def _content(file: GlueFile, chosen: SubmittedFile, directory: Path, rows: int) -> bytes:
    """Return a file as GLUE takes it: a run's predictions, checked, or one label on every row."""
    if chosen.run is None:
        lines = [HEADER.decode(), *(f"{row}\t{chosen.filled}" for row in range(rows)), ""]
        return "\n".join(lines).encode()
    path = file_below(directory, chosen.run.predictions[file.key])
    if not path.is_file():
        raise DataError(f"{path} is not a file, though {directory / RESULTS} names it: run it again with `isinglass bench`.")
    content = _first_columns(file.task, path)
    for problem in problems_of_file(file, content, rows):
        place = path if problem.line is None else f"{path}, line {problem.line}"
        raise DataError(
            f"{place}: {problem.found}; {file.name} takes {problem.expected}. Run it again with `isinglass bench`, or name "
            f"another run by its --seed."
        )
    return content


def _first_columns(task: Task, path: Path) -> bytes:
    """Return index and prediction of each line. STS-B's values are clipped to its range, with three decimals."""
    lines = []
    for line in chain.from_iterable(block for _, block in DataFile.at(path).lines()):
        fields = line.split("\t", 2)[:2]
        if task.labels is None:
            fields[1:] = [_clipped(text, *task.score_range) for text in fields[1:]]
        lines.append("\t".join(fields) + "\n")
    return "".join(lines).encode()


def _clipped(text: str, low: float, high: float) -> str:
    """Return `5.000` for `5.2`. What is no finite number stays as it is, for the check."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return f"{min(max(low, value), high):.3f}" if math.isfinite(value) else text


def _write_zip(output: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files at the root of a zip, readable for all; directories above it are made."""
    target = real_path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as beside, zipfile.ZipFile(beside, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, date_time=ZIP_TIME)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


def files_table(output: Path, files: Sequence[SubmittedFile]) -> Table:
    """Return where each of the eleven files comes from, its score on dev, and why it was chosen."""
    rows = []
    for file in files:
        if file.run is None:
            rows.append((file.name, "absent" if file.filled is None else f"every row {file.filled}", "-", "-"))
        else:
            run = f"{file.run.model} {file.run.backend} {file.run.precision} seed {file.run.seed}"
            rows.append((file.name, run, TASKS[file.run.task].metrics[0].text(file.dev_score), f"best of {file.candidates}"))
    note = "The best of several runs on dev flatters its dev score: the server's will be lower."
    notes = (note,) if any(file.candidates > 1 for file in files) else ()
    columns = ("file", "predictions of", "dev", "chosen as")
    return Table(title=str(output), columns=columns, rows=tuple(rows), notes=notes)
