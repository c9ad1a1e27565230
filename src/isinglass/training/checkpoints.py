"""What a run needs to continue after its process died: files in `RUN_DIR/checkpoints` while it is trained.

Each checkpoint is one safetensors file of the backend's arrays. Its metadata hold the progress as JSON and a digest. A file
is complete or absent, and the digest finds what a disk damages later. No generator's state is among the arrays, because
batches and dropout are functions of (seed, epoch) and (seed, step).
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from isinglass.config import SETTINGS, TrainConfig, as_dict, identifying
from isinglass.errors import ConfigError, DataError, StorageError, TrainingDivergedError
from isinglass.models.vocabulary import Vocabulary
from isinglass.storage import replacing
from isinglass.training.preparation import PreparedRun

logger = logging.getLogger(__name__)

CHECKPOINTS: Final = "checkpoints"
Unit = Literal["steps", "epochs", "seconds"]
SECONDS: Final = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Interval:
    """How often a checkpoint is written: after every `count` of `unit`. An infinite count means never."""

    count: float
    unit: Unit

    @staticmethod
    def parse(text: str) -> "Interval":
        """Read `200steps`, `1epoch`, `90s`, `5min`, `2h` or `never`.

        Raises:
            ConfigError: it is none of these.
        """
        if text.strip() == "never":
            return Interval(float("inf"), "seconds")
        match = re.fullmatch(r"\s*(\d{1,9})\s*((?P<unit>step|epoch)s?|s|min|h)\s*", text)
        if match is None or int(match[1]) == 0:
            raise ConfigError(
                f"--checkpoint-every is {text!r}; a number above 0 with its unit was expected: 200steps, 1epoch, 90s, 5min, "
                f"2h, or never."
            )
        if match["unit"]:
            return Interval(int(match[1]), "steps" if match["unit"] == "step" else "epochs")
        return Interval(int(match[1]) * SECONDS[match[2]], "seconds")

    def is_due(self, step: int, steps_per_epoch: int, seconds: float) -> bool:
        """Tell whether to write a checkpoint after `step` steps, `seconds` after the last checkpoint."""
        if self.unit == "seconds":
            return seconds >= self.count
        every = self.count if self.unit == "steps" else self.count * steps_per_epoch
        return step % every == 0


@dataclass(kw_only=True)
class TrainingState:
    """A run between two steps.

    Attributes:
        step: number of optimizer steps done.
        losses: the loss of each step.
        tokens: number of real tokens trained on.
        epoch_seconds: of each epoch; the last one may be unfinished.
        parts: number of micro-batches of a step, one after another; more than 1 where memory is short.
        notes: what a reader of the result should know about the steps.
        resumed_at: the steps after which the run was resumed.
        processes: number of processes that share each step.
        device: in words, with its threads; empty where it was not saved.
        epoch_scores: after each epoch, where the best one is picked; None for NaN.
        arrays: those of the backend, and the weights of the best epoch.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    epoch_seconds: list[float] = field(default_factory=list)
    compile_seconds: float = 0.0
    parts: int = 1
    notes: list[str] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    processes: int = 1
    device: str = ""
    epoch_scores: list[float | None] = field(default_factory=list)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        directory: made for the first checkpoint.
        every: how often one is written.
        keep: number of the newest ones that are kept.
        resume: whether the run continues from the newest one.
    """

    directory: Path
    every: Interval
    keep: int = 2
    resume: bool = False

    def save(self, state: TrainingState, identity: Mapping[str, Any]) -> Path:
        """Write a checkpoint, and remove the oldest beyond `keep`.

        Args:
            identity: what a run must share to continue from it, by name.

        Raises:
            TrainingDivergedError: an array holds NaN or infinity. The earlier checkpoints are kept.
            StorageError: the disk is full or may not be written. The earlier checkpoints are kept.
        """
        for name, array in state.arrays.items():
            if not np.isfinite(array).all():
                raise TrainingDivergedError(
                    f"After step {state.step} the array {name} holds NaN or infinity: lower the learning rate, or use "
                    f"--precision fp32. No checkpoint is made of it."
                )
        progress = {name: value for name, value in vars(state).items() if name != "arrays"}
        text = json.dumps(progress | {"identity": dict(identity)})
        arrays = {name: np.ascontiguousarray(array) for name, array in state.arrays.items()}
        path = self.directory / f"step-{state.step:09}.safetensors"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                save_file(arrays, partial, metadata={"progress": text, "blake2b": _digest(text, arrays)})
        except (OSError, SafetensorError) as error:
            names = ", ".join(other.name for other in self._newest_first()) or "none"
            reason = getattr(error, "strerror", None) or error
            raise StorageError(f"{path} could not be written ({reason}); earlier checkpoints that stay: {names}.") from error
        for old in self._newest_first()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def load(self, identity: Mapping[str, Any]) -> TrainingState | None:
        """Return the newest undamaged checkpoint; None if there is no checkpoint, or the run is not resumed.

        A damaged one is reported and skipped.

        Raises:
            ConfigError: it was made with other settings, another model or other data.
            DataError: there are checkpoints, and all are damaged.
        """
        if not self.resume:
            return None
        paths = self._newest_first()
        for path in paths:
            try:
                progress, arrays = _read(path)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                logger.warning(f"{path} is damaged ({error}): going back to the checkpoint before it.")
                continue
            compare_identity(progress.pop("identity"), identity, path)
            return TrainingState(**progress, arrays=arrays)
        if paths:
            raise DataError(f"All {len(paths)} checkpoints in {self.directory} are damaged: start again with --overwrite.")
        logger.warning(f"There is no checkpoint in {self.directory}: the run starts at its beginning.")
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.directory.glob("step-*.safetensors"), reverse=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the progress and the arrays of a checkpoint.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError: it is damaged.
    """
    with safe_open(path, framework="numpy") as stored:
        metadata = stored.metadata() or {}
        arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # it is no mapping
    if metadata["blake2b"] != _digest(metadata["progress"], arrays):
        raise ValueError("its checksum is another")
    return json.loads(metadata["progress"]), arrays


def _digest(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=32)
    for name in sorted(arrays):
        digest.update(f"\0{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def compare_identity(
    saved: Mapping[str, Any], current: Mapping[str, Any], path: Path, *, remedy: str = "start again with --overwrite"
) -> None:
    """Refuse to continue what `path` holds under another identity. A setting that an older version lacked has its default.

    Raises:
        ConfigError: it names what differs.
    """
    defaults = {name: json.loads(json.dumps(setting.default)) for name, setting in SETTINGS.items() if name in current}
    saved = defaults | {**saved}
    for name in dict.fromkeys((*current, *saved)):
        if saved.get(name) != current.get(name):
            was, found = (json.dumps(side.get(name)) for side in (saved, current))
            raise ConfigError(
                f"{path} was made with {name} {was}, and now it is {found}: resume with the same, or {remedy}."
            )


def run_identity(config: TrainConfig, run: PreparedRun, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what the steps of a run depend on, by name: settings but for the data's place, training data, model's shape.

    The vocabulary of the scored data belongs to it, because a checkpoint holds the embeddings of exactly that vocabulary.
    """
    tokens, labels = run.train.tokens, run.train.labels
    assert labels is not None
    model = np.frombuffer(json.dumps(run.model.config_json, sort_keys=True).encode(), np.uint8)
    encoder = run.model.encoder_weights
    first_weights = arrays_digest(encoder[name] for name in sorted(encoder)) if run.start_from else None
    return identifying(as_dict(config)) | {
        "training data (digest)": arrays_digest((tokens.input_ids, tokens.token_type_ids, tokens.offsets, labels)),
        "words of the training and scored data (digest)": arrays_digest([vocabulary.ids]),
        "model config (digest)": arrays_digest([model]),
        "weights of --start-from (digest)": first_weights,
    }


def arrays_digest(arrays: Iterable[NDArray[Any]]) -> str:
    """Return a digest of the arrays' content, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
