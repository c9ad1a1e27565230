"""Hugging Face checkpoints (`config.json`, `model.safetensors`, `tokenizer.json`) <-> canonical names and NumPy arrays."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32

from isinglass.errors import CheckpointError
from isinglass.models.encoder_config import EncoderConfig

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"  # carried along: `transformers` reads the tokenizer's class from it

Weights = dict[str, Float32[np.ndarray, "..."]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model at rest.

    Attributes:
        origin: the directory it came from, for messages.
        config: the encoder's shape.
        config_json: everything in `config.json`, so that saving keeps what only others read.
        weights: canonical name -> float32 array. `head.*` may be absent (a pretrained encoder).
        label_names: of a trained head, in the order of its outputs; None without a head or for a single output.
        tokenizer_json: the text of `tokenizer.json`.
        tokenizer_config: everything in `tokenizer_config.json`, if there is one.
    """

    origin: str
    config: EncoderConfig
    config_json: Mapping[str, Any]
    weights: Weights
    label_names: tuple[str, ...] | None
    tokenizer_json: str
    tokenizer_config: Mapping[str, Any] | None

    @property
    def num_outputs(self) -> int | None:
        """Outputs of the trained head; None if there is none."""
        output = self.weights.get("head.output.weight")
        return None if output is None or "head.dense.weight" not in self.weights else len(output)


def load_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint directory.

    Weights of pretraining heads are passed over. Anything else that `config.json` does not account for is an error: a
    weight left unread is another model.

    Raises:
        CheckpointError: a file is missing or damaged, the architecture is not served, or weights and config disagree.
    """
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (directory / name).is_file():
            raise CheckpointError(_missing(directory, name))
    config_json = _read_json(directory / CONFIG)
    tokenizer_json = _read_text(directory / TOKENIZER)
    extra = directory / TOKENIZER_CONFIG
    config = EncoderConfig.from_json(config_json, str(directory / CONFIG))
    weights = _canonical(read_safetensors(directory / WEIGHTS), config, directory / WEIGHTS)
    outputs = weights.get("head.output.weight")
    return Checkpoint(
        origin=str(directory),
        config=config,
        config_json=config_json,
        weights=weights,
        label_names=None if outputs is None else _label_names(config_json, len(outputs), directory / CONFIG),
        tokenizer_json=tokenizer_json,
        tokenizer_config=_read_json(extra) if extra.is_file() else None,
    )


def save_checkpoint(checkpoint: Checkpoint, weights: Weights, directory: Path) -> None:
    """Write `weights` as a checkpoint that `transformers` loads, beside `checkpoint`'s config and tokenizer.

    Args:
        checkpoint: supplies all but the weights; its `label_names` become `id2label` (None: regression).
        weights: canonical name -> float32 array, the head included.
        directory: exists; files of the same names are overwritten.
    """
    from safetensors.numpy import save_file

    family = checkpoint.config.family
    names = dict(parameter_names(checkpoint.config))
    labels = checkpoint.label_names
    config_json = {
        **{k: v for k, v in checkpoint.config_json.items() if k not in ("_name_or_path", "torch_dtype", "dtype")},
        "architectures": [family.architecture],
        "id2label": {str(i): name for i, name in enumerate(labels or ("LABEL_0",))},
        "label2id": {name: i for i, name in enumerate(labels or ("LABEL_0",))},
        "problem_type": "regression" if labels is None else "single_label_classification",
        "dtype": "float32",
    }
    save_file(
        {names[name]: np.ascontiguousarray(array) for name, array in weights.items()},
        directory / WEIGHTS,
        metadata={"format": "pt"},
    )
    (directory / CONFIG).write_text(json.dumps(config_json, indent=2) + "\n", encoding="utf-8")
    (directory / TOKENIZER).write_text(checkpoint.tokenizer_json, encoding="utf-8")
    if checkpoint.tokenizer_config is not None:
        tokenizer_config = dict(checkpoint.tokenizer_config)
        if checkpoint.config.type_vocab_size > 1:  # a generic tokenizer class of `transformers` would leave the types out
            tokenizer_config.setdefault("model_input_names", ["input_ids", "token_type_ids", "attention_mask"])
        (directory / TOKENIZER_CONFIG).write_text(json.dumps(tokenizer_config, indent=2) + "\n", encoding="utf-8")


def read_safetensors(path: Path) -> Weights:
    """All arrays of a safetensors file as float32; bfloat16 and float16 are widened, integers left out.

    Raises:
        CheckpointError: the file is damaged, or an array is of another kind or holds NaN or infinity.
    """
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(path.read_bytes())
    except (SafetensorError, struct.error, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}.") from None
    weights: Weights = {}
    for name, entry in entries:
        dtype, data = entry["dtype"], entry["data"]
        if dtype in ("I64", "I32", "U8", "BOOL"):  # buffers such as position_ids: nothing learned
            continue
        if dtype == "BF16":  # the upper half of a float32
            array = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif dtype in ("F32", "F16"):
            array = np.frombuffer(data, "<f4" if dtype == "F32" else "<f2").astype(np.float32)
        else:
            raise CheckpointError(f"{path}: {name} is of kind {dtype}; F32, F16 or BF16 was expected.")
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; the file is damaged or its training diverged.")
        weights[name] = array.reshape(entry["shape"])
    return weights


def parameter_names(config: EncoderConfig) -> list[tuple[str, str]]:
    """(canonical, checkpoint) names of every parameter, layer by layer."""
    known = {*config.shapes, "head.output.weight", "head.output.bias"}
    pairs: list[tuple[str, str]] = []
    for canonical, name in config.family.parameter_names:
        layers = range(config.num_hidden_layers) if "{i}" in canonical else (0,)
        for i in layers:
            for kind in ("weight", "bias"):
                full = f"{canonical.format(i=i)}.{kind}"
                if full in known:
                    pairs.append((full, f"{name.format(i=i)}.{kind}"))
    return pairs


def _canonical(found: Weights, config: EncoderConfig, path: Path) -> Weights:
    """Rename to canonical names and check that config and weights describe the same model."""
    family = config.family
    # TensorFlow-era checkpoints (bert-base-cased among them) call a LayerNorm's parameters gamma and beta.
    found = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): array
        for name, array in found.items()
    }
    shapes = config.shapes
    weights: Weights = {}
    for canonical, name in parameter_names(config):
        bare = name.removeprefix(f"{family.prefix}.")
        array = found.pop(name, None)
        if array is None:
            array = found.pop(bare, None)
        if array is None:
            if canonical.startswith("head."):
                continue
            raise CheckpointError(f"{path} has no weight {name}, which {CONFIG} calls for.")
        expected = shapes.get(canonical, array.shape)
        if array.shape != expected:
            raise CheckpointError(f"{path}: {name} has shape {list(array.shape)}; {CONFIG} calls for {list(expected)}.")
        weights[canonical] = array
    surplus = [
        name
        for name in found
        if name.removeprefix(f"{family.prefix}.").split(".")[0] not in family.ignored and not name.endswith("position_ids")
    ]
    if surplus:
        raise CheckpointError(
            f"{path} holds {len(surplus)} weights that {CONFIG} does not account for, the first {surplus[0]}: "
            f"config and weights are of different models."
        )
    return weights


def _label_names(config_json: Mapping[str, Any], num_outputs: int, path: Path) -> tuple[str, ...] | None:
    """`id2label` in the order of the outputs; None for a single output."""
    if num_outputs == 1:
        return None
    id2label = config_json.get("id2label") or {str(i): f"LABEL_{i}" for i in range(num_outputs)}
    if not isinstance(id2label, dict) or sorted(id2label) != sorted(str(i) for i in range(num_outputs)):
        raise CheckpointError(
            f"{path}: id2label is {id2label!r}; the head has {num_outputs} outputs, 0 to {num_outputs - 1}."
        )
    return tuple(str(id2label[str(i)]) for i in range(num_outputs))


def _missing(directory: Path, name: str) -> str:
    if not directory.is_dir():
        return f"{directory} is not a directory; a checkpoint with {CONFIG}, {WEIGHTS} and {TOKENIZER} was expected."
    holds = ", ".join(sorted(p.name for p in directory.iterdir())[:12]) or "nothing"
    advice = {
        WEIGHTS: "save the model with `save_pretrained(..., safe_serialization=True)`",
        TOKENIZER: "save the fast tokenizer with `save_pretrained`",
    }.get(name, "give the directory that holds it")
    return f"{directory} is not a checkpoint: no {name} (it holds {holds}); {advice}."


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not UTF-8 text.") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: a JSON object was expected.")
    return values
