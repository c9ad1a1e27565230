"""What a run must share with the checkpoint that it is resumed from, and all its processes with each other."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from isinglass.backends.process_group import ProcessGroup
from isinglass.config import TrainConfig, as_dict, without_places
from isinglass.errors import ConfigError
from isinglass.models.vocabulary import Vocabulary
from isinglass.training.preparation import PreparedRun


def run_identity(config: TrainConfig, run: PreparedRun, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what the steps of a run depend on, by name: settings but for the data's place, training data, model's shape.

    The vocabulary of the scored data belongs to it, because a checkpoint holds the embeddings of exactly that vocabulary.
    """
    tokens, labels = run.train.tokens, run.train.labels
    assert labels is not None
    model = np.frombuffer(json.dumps(run.model.config_json, sort_keys=True).encode(), np.uint8)
    return without_places(as_dict(config)) | {
        "training data (digest)": _digest((tokens.input_ids, tokens.token_type_ids, tokens.offsets, labels)),
        "words of the training and scored data (digest)": _digest([vocabulary.ids]),
        "model config (digest)": _digest([model]),
    }


def check_same_run(group: ProcessGroup, identity: Mapping[str, Any], run: PreparedRun) -> None:
    """Refuse processes that were started with other settings, data or weights.

    Raises:
        ConfigError: some were.
    """
    weights = _digest(run.model.weights[name] for name in sorted(run.model.weights))
    _check_alike(group, [identity, weights], "settings, data or model: start all alike, on the same files")


def check_same_checkpoint(group: ProcessGroup, step: int | None) -> None:
    """Refuse processes that found other checkpoints; `step` is that of the checkpoint, None if there is none.

    Raises:
        ConfigError: some did.
    """
    _check_alike(group, step, "checkpoints: --output-dir must lie on storage that all hosts share")


def _check_alike(group: ProcessGroup, value: Any, what: str) -> None:
    digest = hashlib.blake2b(json.dumps(value).encode()).digest()
    digests = group.gather(np.frombuffer(digest, np.uint8))
    for rank, other in enumerate(digests):
        if not np.array_equal(other, digests[0]):
            raise ConfigError(f"Process {rank} of the {group.size} that share this run has other {what}.")


def _digest(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
