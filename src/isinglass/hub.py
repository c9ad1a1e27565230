"""Download files from the Hugging Face hub, with its own client and its own cache."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isinglass.errors import HubError
from isinglass.names import brief


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
        with without_warnings():
            return Path(hf_hub_download(repo, file, repo_type=repo_type, revision=revision))
    except errors.LocalEntryNotFoundError:
        if try_to_load_from_cache(repo, file, repo_type=repo_type, revision=revision) is _CACHED_NO_EXIST:
            return None
        raise HubError(f"The hub cannot be reached and {repo}/{file} is not in its cache: {instead}.") from None
    except errors.GatedRepoError:
        raise HubError(f"{repo} is gated: accept its terms on the hub and log in with `hf auth login`.") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"The hub has no {repo_type} {brief(repo)}, or it is private (`hf auth login`): {instead}.") from None
    except errors.EntryNotFoundError:
        return None
    except errors.HFValidationError:
        raise HubError(f"{brief(repo)} is neither a directory nor a name on the hub (USER/NAME): {instead}.") from None
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # of the HTTP library it is built on
        raise HubError(f"{repo}/{file} could not be downloaded from the hub ({reason(error)}): {instead}.") from None


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
