"""A finished run's model, and its card, as one commit on the Hugging Face hub, through the hub's own client.

Nothing else of the run is sent: its result names the user's files, and its predictions may hold the user's texts.
"""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Final

from isinglass.errors import DataError, HubError
from isinglass.hub import reason, without_warnings
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS
from isinglass.names import brief, printable
from isinglass.results import RunResult
from isinglass.runs.directory import MODEL, RESULT, TASK, load_run
from isinglass.training.card import CARD, model_card
from isinglass.training.checkpoints import CHECKPOINTS

logger = logging.getLogger(__name__)

FILES: Final = (CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG, TASK)


def push_run(
    directory: Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    license: str | None = None,  # noqa: A002  # as the hub calls it
) -> tuple[str, str]:
    """Send the model of a run to the hub, into a repository that is made if need be. Files that are there already stay.

    Args:
        repo: `USER/NAME`.
        private: make the repository private; one that is there must be.
        revision: the branch, made if need be; None: `main`.
        license: an identifier of the hub's, for the card.

    Returns:
        The URL of the model's page, and the commit to name when it is used.

    Raises:
        DataError: the directory is not that of a finished run with its model.
        CheckpointError: the model is damaged.
        ConfigError: `license` has not the form of an identifier.
        HubError: `repo` or `revision` is no name, there is no token, or the hub refuses or cannot be reached.
    """
    _check_names(repo, revision)
    if (directory / CHECKPOINTS).is_dir() and not (directory / RESULT).is_file():
        raise DataError(f"{directory} holds an unfinished run: finish it with `isinglass train --resume`, then push it.")
    if not (directory / RESULT).is_file():
        raise DataError(f"{directory} is not the directory of a finished run: no {RESULT}.")
    if not (directory / MODEL).is_dir():
        raise DataError(f"{directory} has no {MODEL}/: `isinglass train` keeps it, a bench only with --keep-models.")
    finished = load_run(directory)
    result = RunResult.read(directory / RESULT)
    names = finished.checkpoint.label_names
    card = model_card(result, finished.task, names, license=license, repo=repo)
    token = _token(repo)

    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    with _errors_in_one_sentence(repo):
        url = str(api.create_repo(repo, private=private or None, exist_ok=True))
        if private and not api.repo_info(repo).private:
            raise HubError(
                f"{repo} is on the hub already and is public, which --private does not change: make it private there, or "
                f"choose another name."
            )
        if revision not in (None, "main"):
            api.create_branch(repo, branch=str(revision), exist_ok=True)
            url = f"{url}/tree/{revision}"
        files = {name: directory / MODEL / name for name in FILES if (directory / MODEL / name).exists()}
        contents: dict[str, Path | bytes] = {CARD: card.encode(), **files}
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
        message = f"Fine-tuned on {printable(finished.task.title)} with isinglass"
        commit = api.create_commit(repo, operations, commit_message=message, revision=revision)
    return url, commit.oid


def _check_names(repo: str, revision: str | None) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise HubError(
            f"{brief(repo)} cannot be a model's name on the hub: USER/NAME was expected, both of letters, digits, `-`, `_` "
            f"and `.` (no `--`, no `..`, none of them at an end)."
        )
    if revision is not None and (not re.fullmatch(r"[\w][\w./-]{0,99}", revision, re.ASCII) or ".." in revision):
        raise HubError(
            f"{brief(revision)} cannot be a branch on the hub: letters, digits, `-`, `_`, `.` and `/` were expected."
        )


def _token(repo: str) -> str:
    """Return the user's token, from where the hub's client stores it.

    Raises:
        HubError: there is none, or the hub may not be asked for anything.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise HubError(f"HF_HUB_OFFLINE is set, so that nothing is sent to the hub: unset it to push {repo}.")
    try:
        token = get_token()
    except Exception as error:  # noqa: BLE001  # of OAuth, of OIDC, of Colab: each has its own, by version
        raise HubError(f"The hub's token cannot be had ({reason(error)}): log in with `hf auth login`.") from None
    if token is None:
        raise HubError(f"There is no token for the hub: log in with `hf auth login`, or set HF_TOKEN, to push {repo}.")
    return token


@contextmanager
def _errors_in_one_sentence(repo: str) -> Iterator[None]:
    """Raise what the client raises as a HubError, and log its warnings as one line each.

    Its progress bars are shown on a terminal only, and where HF_HUB_DISABLE_PROGRESS_BARS says so.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library it is built on
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars  # type: ignore[attr-defined]

    shows_bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or (sys.stderr and sys.stderr.isatty())
    try:
        with without_warnings(), ExitStack() as stack, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            if not shows_bars:
                disable_progress_bars()
                stack.callback(enable_progress_bars)
            yield
    except HubError:
        raise
    except (HTTPError, OSError, ValueError, LookupError, RuntimeError) as error:
        raise HubError(_sentence(repo, error)) from None
    for warning in warned:
        if warning.category is UserWarning:
            logger.warning(" ".join(str(warning.message).split()))


def _sentence(repo: str, error: Exception) -> str:
    """Return what to do about an error of the client. Errors of its upload threads are behind a RuntimeError."""
    from huggingface_hub import constants

    cause = error.__cause__ if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception) else error
    response = getattr(cause, "response", None)
    if response is not None:
        status, said = response.status_code, getattr(cause, "server_message", None)
        answer = f"{status}: {said.splitlines()[0][:300].rstrip('.')}" if said else str(status)
        of_the_hub = cause is error  # not of the storage to which its threads upload
        if of_the_hub and status == 401:
            return f"The hub does not take your token ({answer}): log in with `hf auth login`."
        if of_the_hub and status == 403:
            return (
                f"You may not write to {repo} on the hub ({answer}): name a repository of your own, or log in by "
                f"`hf auth login` with a token that may write."
            )
        return f"{repo} could not be pushed to the hub ({answer}){'; try again later.' if status >= 500 else '.'}"
    if isinstance(cause, JSONDecodeError):
        return f"{repo} could not be pushed: what {constants.ENDPOINT} answers is not JSON, as the hub's answers are."
    if isinstance(cause, ValueError | LookupError | RuntimeError):
        return f"{repo} could not be pushed to the hub ({' '.join(str(cause).split())[:300].rstrip('.')})."
    return f"The connection to the hub at {constants.ENDPOINT} failed ({reason(cause)}); try again when it works."
