"""Hugging Face checkpoints (`config.json`, `model.safetensors`, `tokenizer.json`) <-> canonical names and NumPy arrays."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from isinglass.errors import CheckpointError
from isinglass.models.encoder_config import EncoderConfig
from isinglass.models.files import check_regular, read_json, read_text
from isinglass.models.tokenizer import check_tokenizer
from isinglass.models.weights import Stored, read_header, read_safetensors
from isinglass.models.weights import Weights as Weights  # what a checkpoint is made of, for those who import both from here
from isinglass.names import brief, printable

logger = logging.getLogger(__name__)

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"  # carried along: `transformers` reads the tokenizer's class from it

CONFIG_BYTES: Final = 10_000_000  # the names of 100,000 labels take 5 MB; without such, a config has 2 kB
TOKENIZER_BYTES: Final = 64_000_000  # four times the largest that served models have (multilingual, 250,000 pieces)

MULTILABEL: Final = "multi_label_classification"  # `problem_type` in a config
# Where a config names Python files beside it for `transformers` to run. None is run here, nor handed on.
CODE: Final = ("auto_map", "custom_code", "custom_pipelines", "trust_remote_code")
# Where older versions of `transformers` wrote down from which directory of the user's they had read.
READ_FROM: Final = ("_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model at rest.

    Attributes:
        origin: the directory it came from, for messages.
        config: the encoder's shape.
        config_json: everything in `config.json`, so that saving keeps what only others read.
        weights: canonical name -> float32 array. `head.*` may be absent (a pretrained encoder).
        label_names: of a trained head, in the order of its outputs; None without a head or for a single output.
        is_multilabel: whether each output is a label of its own, beside the others.
        tokenizer_json: the text of `tokenizer.json`.
        tokenizer_config: everything in `tokenizer_config.json`, if there is one.
        commit: of the hub's repository, if it came from there.
    """

    origin: str
    config: EncoderConfig
    config_json: Mapping[str, Any]
    weights: Weights
    label_names: tuple[str, ...] | None
    tokenizer_json: str
    tokenizer_config: Mapping[str, Any] | None
    commit: str | None = None
    is_multilabel: bool = False

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
        if not os.path.lexists(directory / name):
            raise CheckpointError(_missing(directory, name))
        check_regular(directory / name)
    config_json = read_json(directory / CONFIG, limit=CONFIG_BYTES)
    config = EncoderConfig.from_json(config_json, str(directory / CONFIG))
    header = read_header(directory / WEIGHTS)
    names = _names_in_file(header, config, directory / WEIGHTS)
    output = names.get("head.output.weight")
    num_outputs = None if output is None else header[output].shape[0]
    tokenizer_json = read_text(directory / TOKENIZER, limit=TOKENIZER_BYTES)
    check_tokenizer(tokenizer_json, directory / TOKENIZER)
    extra = directory / TOKENIZER_CONFIG
    tokenizer_config = read_json(extra, limit=CONFIG_BYTES) if os.path.lexists(extra) else None
    label_names = None if num_outputs is None else _label_names(config_json, num_outputs, directory / CONFIG)
    arrays = read_safetensors(directory / WEIGHTS, {name: header[name] for name in names.values()})
    if code := [key for key in CODE if key in config_json or key in (tokenizer_config or {})]:
        logger.warning(
            f"{printable(str(directory))} names code of its own ({', '.join(code)}), which is not run: the model is taken "
            f"for a plain {config.family.architecture.removesuffix('ForSequenceClassification')}."
        )
    return Checkpoint(
        origin=str(directory),
        config=config,
        config_json=config_json,
        weights={canonical: arrays[name] for canonical, name in names.items()},
        label_names=label_names,
        tokenizer_json=tokenizer_json,
        tokenizer_config=tokenizer_config,
        is_multilabel=config_json.get("problem_type") == MULTILABEL,
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
        **{k: v for k, v in checkpoint.config_json.items() if k not in ("torch_dtype", "dtype", *CODE, *READ_FROM)},
        "architectures": [family.architecture],
        "id2label": {str(i): name for i, name in enumerate(labels or ("LABEL_0",))},
        "label2id": {name: i for i, name in enumerate(labels or ("LABEL_0",))},
        "problem_type": _problem_type(checkpoint),
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
        tokenizer_config = {k: v for k, v in checkpoint.tokenizer_config.items() if k not in (*CODE, *READ_FROM)}
        if checkpoint.config.type_vocab_size > 1:  # a generic tokenizer class of `transformers` would leave the types out
            tokenizer_config.setdefault("model_input_names", ["input_ids", "token_type_ids", "attention_mask"])
        (directory / TOKENIZER_CONFIG).write_text(json.dumps(tokenizer_config, indent=2) + "\n", encoding="utf-8")


def _problem_type(checkpoint: Checkpoint) -> str:
    if checkpoint.label_names is None:
        return "regression"
    return MULTILABEL if checkpoint.is_multilabel else "single_label_classification"


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


def _names_in_file(header: Mapping[str, Stored], config: EncoderConfig, path: Path) -> dict[str, str]:
    """Canonical name -> name in the file, once config and header are seen to describe the same model."""
    family = config.family
    if config.num_hidden_layers > len(header):  # before anything is done layer by layer
        raise CheckpointError(
            f"{path} holds {len(header)} weights; {CONFIG} calls for {config.num_hidden_layers} layers: config and weights "
            f"are of different models."
        )
    # TensorFlow-era checkpoints (bert-base-cased among them) call a LayerNorm's parameters gamma and beta.
    found = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): name
        for name in header
    }
    if len(found) < len(header):
        raise CheckpointError(f"{path} holds a LayerNorm twice, under its old names and its new ones: save the model anew.")
    shapes = config.shapes
    names: dict[str, str] = {}
    for canonical, name in parameter_names(config):
        bare = name.removeprefix(f"{family.prefix}.")
        stored = found.pop(name, None) or found.pop(bare, None)
        if stored is None:
            if canonical.startswith("head."):
                continue
            raise CheckpointError(f"{path} has no weight {name}, which {CONFIG} calls for.")
        shape = header[stored].shape
        rows = shape[0] if shape else 0
        expected = shapes.get(canonical) or ((rows, config.hidden_size) if canonical.endswith("weight") else (rows,))
        if shape != expected or not rows:
            raise CheckpointError(f"{path}: {name} has shape {list(shape)}; {CONFIG} calls for {list(expected)}.")
        names[canonical] = stored
    surplus = [
        name
        for name in found
        if name.removeprefix(f"{family.prefix}.").split(".")[0] not in family.ignored and not name.endswith("position_ids")
    ]
    if surplus:
        raise CheckpointError(
            f"{path} holds {len(surplus)} weights that {CONFIG} does not account for, the first {brief(surplus[0])}: "
            f"config and weights are of different models."
        )
    for layer in ("head.dense", "head.output"):
        weight, bias = (names.get(f"{layer}.{kind}") for kind in ("weight", "bias"))
        heights = [None if name is None else header[name].shape[0] for name in (weight, bias)]
        if heights[0] != heights[1]:
            raise CheckpointError(
                f"{path}: weight and bias of {layer} have {heights[0]} and {heights[1]} rows: save the model anew."
            )
    return names


def _label_names(config_json: Mapping[str, Any], num_outputs: int, path: Path) -> tuple[str, ...] | None:
    """`id2label` in the order of the outputs; None for a single output."""
    if num_outputs == 1:
        return None
    id2label = config_json.get("id2label") or {str(i): f"LABEL_{i}" for i in range(num_outputs)}
    if not isinstance(id2label, dict) or id2label.keys() != {str(i) for i in range(num_outputs)}:
        raise CheckpointError(
            f"{path}: id2label is {brief(id2label)}; the head has {num_outputs} outputs, 0 to {num_outputs - 1}."
        )
    for name in id2label.values():  # they are printed, and stand in tab-separated files
        if not isinstance(name, str | int | float) or printable(str(name)) != str(name):
            raise CheckpointError(
                f"{path}: a label in id2label is {brief(name)}; a name of printable characters was expected."
            )
    return tuple(str(id2label[str(i)]) for i in range(num_outputs))


def _missing(directory: Path, name: str) -> str:
    if not directory.is_dir():
        return f"{directory} is not a directory; a checkpoint with {CONFIG}, {WEIGHTS} and {TOKENIZER} was expected."
    holds = ", ".join(sorted(p.name for p in directory.iterdir())[:12]) or "nothing"
    advice = {
        WEIGHTS: "weights are read from safetensors only, since a pickle can run code: save the model as such",
        TOKENIZER: "save the fast tokenizer with `save_pretrained`",
    }.get(name, "give the directory that holds it")
    return f"{directory} is not a checkpoint: no {name} (it holds {holds}); {advice}."
