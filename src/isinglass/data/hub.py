"""Files from the Hugging Face hub, through its own client and its own cache."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isinglass.data.examples import Examples
from isinglass.data.texts import CHUNK, StoredTexts
from isinglass.errors import DataError, HubError
from isinglass.names import brief
from isinglass.tasks import Split, Task
from isinglass.tasks.glue import HUB_REPO

logger = logging.getLogger(__name__)


def fetch(repo: str, file: str, *, repo_type: str, instead: str, revision: str | None = None) -> Path | None:
    """The path of one file of a hub repository in the local cache, downloaded if it is not there.

    Args:
        instead: what the user can do without the hub, for the message.
        revision: a commit, so that files fetched one by one belong together; None: the newest.

    Returns:
        The file below a directory that is named after its commit (`commit_of`). None if the repository has no such file.

    Raises:
        HubError: the repository does not exist or needs a login, or it cannot be reached and the file is not cached.
    """
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the HTTP library it is built on
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        with without_warnings():
            return Path(hf_hub_download(repo, file, repo_type=repo_type, revision=revision))
    except LocalEntryNotFoundError:
        if try_to_load_from_cache(repo, file, repo_type=repo_type, revision=revision) is _CACHED_NO_EXIST:
            return None
        raise HubError(f"The hub cannot be reached and {repo}/{file} is not in its cache: {instead}.") from None
    except GatedRepoError:
        raise HubError(f"{repo} is gated: accept its terms on the hub and log in with `hf auth login`.") from None
    except RepositoryNotFoundError:
        raise HubError(f"The hub has no {repo_type} {brief(repo)}, or it is private (`hf auth login`): {instead}.") from None
    except EntryNotFoundError:
        return None
    except HFValidationError:
        raise HubError(f"{brief(repo)} is neither a directory nor a name on the hub (USER/NAME): {instead}.") from None
    except (OSError, HTTPError) as error:
        raise HubError(f"{repo}/{file} could not be had from the hub ({reason(error)}): {instead}.") from None


def commit_of(file: str, path: Path) -> str:
    """The commit of a fetched file: the client's cache has it at `snapshots/COMMIT/FILE`."""
    return path.parents[len(Path(file).parts) - 1].name


def read_split(task: Task, split: Split) -> Examples:
    """Read one split of a GLUE task from the hub's Parquet files.

    Raises:
        HubError: as `fetch`.
        DataError: the file is not Parquet, a column is missing, a text is null, or an integer label has no name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = f"{task.hub_config}/{split.hub_split}-00000-of-00001.parquet"
    path = fetch(HUB_REPO, file, repo_type="dataset", instead="give GLUE's files with --data-dir")
    if path is None:
        raise HubError(f"{HUB_REPO} on the hub has no file {file}: give GLUE's files with --data-dir.")
    origin = f"{HUB_REPO}/{file}"
    note = f"{origin} is the hub's at commit {commit_of(file, path)}."
    logger.info(note)
    label_columns = ["label"] if split.label_column is not None else []
    wanted = [*task.hub_text_columns, *label_columns]
    texts = tuple(StoredTexts() for _ in task.hub_text_columns)
    numbers: list[object] = []
    try:
        with pq.ParquetFile(path) as opened:
            names = opened.schema_arrow.names
            for name in wanted:
                if name not in names:
                    raise DataError(f"{origin}: no column {name!r}; found {', '.join(map(repr, names))}.")
            for batch in opened.iter_batches(batch_size=CHUNK, columns=wanted):
                for name, column in zip(task.hub_text_columns, texts, strict=True):
                    values = batch.column(name).to_pylist()
                    if None in values:
                        row = len(column) + values.index(None) + 1
                        raise DataError(f"{origin}, row {row}: the column {name!r} is null; a text was expected.")
                    column.extend([str(text) for text in values])
                if label_columns:
                    numbers += batch.column("label").to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{origin} (at {path}) is not a readable Parquet file: {reason(error)}.") from None
    if not len(texts[0]):
        raise DataError(f"{origin} has no rows; {task.title}'s {split.name} set was expected.")
    labels: list[str] | None = None
    if label_columns:
        labels = _names(numbers, task, origin)
    return Examples(
        texts=texts, labels=labels, origin=origin, line_numbers=range(1, len(texts[0]) + 1), unit="row", notes=(note,)
    )


def _names(values: list[object], task: Task, origin: str) -> list[str]:
    """The hub's integers as label names; a regression score as it is."""
    if task.labels is None:
        return [str(value) for value in values]
    names = dict(enumerate(task.hub_labels or task.labels))
    for row, value in enumerate(values, 1):
        if value not in names:
            raise DataError(f"{origin}, row {row}: the label is {value!r}; 0 to {len(names) - 1} expected for {task.title}.")
    return [names[value] for value in values]  # type: ignore[index]  # checked above


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence the client's notes on its retries: what came of them is told once, by us. HF_HUB_VERBOSITY still counts."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    if level == logging.WARNING:  # its default
        client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)


def reason(error: Exception) -> str:
    """The first line of an error's text, without its full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
