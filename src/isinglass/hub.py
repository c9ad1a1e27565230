"""Look up and download files of the Hugging Face hub, with its own client and its own cache."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from isinglass.errors import HubError
from isinglass.names import brief
from isinglass.storage import cache_dir, replacing

NEWEST: Final = "main"
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
REVISION: Final = re.compile(r"[\w.-]{1,100}")
LONGEST_WAIT: Final = 10.0  # seconds, for the answer to a look-up

logger = logging.getLogger(__name__)


class Listing(BaseModel):
    """The names of all files of a repository at one commit."""

    model_config = ConfigDict(frozen=True)

    commit: str
    files: tuple[str, ...]


def split_revision(name: str) -> tuple[str, str | None]:
    """Divide `USER/NAME@REVISION`; without `@REVISION` the revision is None.

    Raises:
        HubError: what follows the @ is no commit, tag or branch.
    """
    repo, at_sign, revision = name.partition("@")
    if at_sign and not REVISION.fullmatch(revision):
        raise HubError(f"{brief(name)}: a commit, a tag or a branch was expected after the @.")
    return repo, revision or None


def fetch(repo: str, file: str, *, repo_type: str, instead: str, revision: str | None = None) -> Path | None:
    """Return the path of a repository's file in the local cache; download the file if the cache lacks it.

    Args:
        instead: what the user can do without the hub, for the message.
        revision: a commit, so that files fetched one by one belong together; None: the newest.

    Returns:
        A path below a directory that is named after the file's commit (`commit_of`); None if the repository has no such
        file.

    Raises:
        HubError: the repository does not exist or needs a login, or the hub cannot be reached and the cache lacks the file.
    """
    from huggingface_hub import _CACHED_NO_EXIST, errors, hf_hub_download, try_to_load_from_cache

    try:
        with _refusals_explained(repo, repo_type, instead), without_warnings():
            return Path(hf_hub_download(repo, file, repo_type=repo_type, revision=revision))
    except errors.LocalEntryNotFoundError:
        if try_to_load_from_cache(repo, file, repo_type=repo_type, revision=revision) is _CACHED_NO_EXIST:
            return None
        raise HubError(f"The hub cannot be reached and {repo}/{file} is not in its cache: {instead}.") from None
    except errors.EntryNotFoundError:
        return None
    except HubError:
        raise
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # of the HTTP library it is built on
        raise HubError(f"{repo}/{file} could not be downloaded from the hub ({reason(error)}): {instead}.") from None


def list_files(repo: str, *, repo_type: str, instead: str, revision: str = NEWEST) -> Listing | None:
    """Return the names of a repository's files, and the commit that they are of. Without the hub: as last seen.

    Args:
        instead: what the user can do without the hub, for the message.
        revision: a commit, a tag or a branch.

    Returns:
        None if the repository has no such revision.

    Raises:
        HubError: the repository does not exist or needs a login, or the hub cannot be reached and it was never seen.
    """
    from huggingface_hub import HfApi, errors

    known = _known_listing(repo, repo_type, revision)
    if known is not None and COMMIT.fullmatch(revision):  # a commit never changes
        return known
    try:
        with _refusals_explained(repo, repo_type, instead), without_warnings():
            info = HfApi().repo_info(repo, repo_type=repo_type, revision=revision, timeout=LONGEST_WAIT)
    except errors.RevisionNotFoundError:
        return None
    except HubError:
        raise
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # as in `fetch`
        if known is not None:
            return known
        if isinstance(error, errors.HfHubHTTPError):
            raise HubError(f"{repo} could not be looked up on the hub ({reason(error)}): {instead}.") from None
        raise HubError(f"The hub cannot be reached and {repo} is not in its cache: {instead}.") from None
    files = getattr(info, "siblings", None) or ()
    listing = Listing(commit=str(info.sha), files=tuple(sorted(file.rfilename for file in files)))
    for name in {revision, listing.commit}:
        _remember(listing, repo, _listing_path(repo, repo_type, name))
    return listing


def _listing_path(repo: str, repo_type: str, revision: str) -> Path:
    return cache_dir() / "hub" / f"{repo_type}s--{repo}--{revision}.json".replace("/", "--")


def _known_listing(repo: str, repo_type: str, revision: str) -> Listing | None:
    """Return what `list_files` wrote last; None if there is nothing that can be read."""
    try:
        return Listing.model_validate_json(_listing_path(repo, repo_type, revision).read_bytes())
    except (OSError, ValueError):  # a pydantic error is a ValueError
        return None


def _remember(listing: Listing, repo: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(listing.model_dump_json(), encoding="utf-8")
    except OSError as error:
        logger.warning(f"{path} could not be written ({error.strerror}): without the hub, {repo} will not be found.")


@contextmanager
def _refusals_explained(repo: str, repo_type: str, instead: str) -> Iterator[None]:
    """Turn the hub's refusals of a whole repository into errors of ours."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise HubError(f"{repo} is gated: accept its terms on the hub and log in with `hf auth login`.") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"The hub has no {repo_type} {brief(repo)}, or it is private (`hf auth login`): {instead}.") from None
    except errors.HFValidationError:
        raise HubError(f"{brief(repo)} is neither a directory nor a name on the hub (USER/NAME): {instead}.") from None


def commit_of(file: str, path: Path) -> str:
    """Return the commit of a fetched file: the client's cache holds it at `snapshots/COMMIT/FILE`."""
    return path.parents[len(Path(file).parts) - 1].name


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence the client's warnings about retries: our own error says how they ended. HF_HUB_VERBOSITY takes precedence."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    if level == logging.WARNING:  # its default
        client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)


def reason(error: Exception) -> str:
    """Return the first line of an error's text without its full stop, or the name of its class if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
