"""Hugging Face checkpoints (`config.json`, `model.safetensors`, `tokenizer.json`) <-> canonical names and NumPy arrays."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from isinglass.errors import CheckpointError
from isinglass.models.blueprint import HEAD_DENSE, HEAD_OUTPUT, Blueprint, HeadModules
from isinglass.models.families import get_family
from isinglass.models.families.family import Family, FileArray
from isinglass.models.files import Stored, read_header, read_json, read_safetensors, read_text
from isinglass.models.files import Weights as Weights  # what a checkpoint is made of, for those who import both from here
from isinglass.models.tokenizer import check_tokenizer
from isinglass.names import brief, printable
from isinglass.tasks.kinds import EVEN

logger = logging.getLogger(__name__)

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"  # carried along: `transformers` reads the tokenizer's class from it

CONFIG_BYTES: Final = 10_000_000  # the names of 100,000 labels take 5 MB; without such, a config has 2 kB
TOKENIZER_BYTES: Final = 64_000_000  # four times the largest that served models have (multilingual, 250,000 pieces)

THRESHOLD: Final = "threshold"  # in a config: probability above which a text of a multi-label task has a label

# Where a config names Python files beside it for `transformers` to run. None is run here, nor handed on.
CODE: Final = ("auto_map", "custom_code", "custom_pipelines", "trust_remote_code")
# Where older versions of `transformers` noted the user's directory that they had read from.
READ_FROM: Final = ("_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file")
DTYPE: Final = ("torch_dtype", "dtype")  # old and new key
_HEAD: Final = 0x68656164  # "head": apart from the seeds of batches and dropout


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model at rest.

    Attributes:
        origin: the directory it came from, for messages.
        blueprint: what the model computes, and its parameters.
        config_json: everything in `config.json`, so that saving keeps what only others read.
        weights: canonical name -> float32 array. Those of the head may be absent (a pretrained encoder).
        label_names: of a trained head, in the order of its outputs; None without a head or for a single output.
        tokenizer_json: the text of `tokenizer.json`.
        tokenizer_config: everything in `tokenizer_config.json`, if there is one.
        commit: of the hub's repository, if it came from there.
    """

    origin: str
    blueprint: Blueprint
    config_json: Mapping[str, Any]
    weights: Weights
    label_names: tuple[str, ...] | None
    tokenizer_json: str
    tokenizer_config: Mapping[str, Any] | None
    commit: str | None = None

    @property
    def family(self) -> Family:
        """The model's family."""
        return get_family(self.config_json["model_type"], self.origin)

    @property
    def encoder_weights(self) -> Weights:
        """The weights below the head."""
        return {name: array for name, array in self.weights.items() if not name.startswith("head.")}

    @property
    def threshold(self) -> float:
        """The probability above which a text of a multi-label task has a label."""
        return float(self.config_json.get(THRESHOLD, EVEN))

    @property
    def num_outputs(self) -> int | None:
        """Outputs of the trained head; None if there is none."""
        output = self.weights.get(f"{HEAD_OUTPUT}.weight")
        return None if output is None or f"{HEAD_DENSE}.weight" not in self.weights else len(output)


def load_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint directory.

    Weights of pretraining heads are passed over. Any other weight that `config.json` does not account for is an error,
    because a model without it would be another model.

    Raises:
        CheckpointError: a file is missing or damaged, the architecture is not served, or weights and config disagree.
    """
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not os.path.lexists(directory / name):
            raise CheckpointError(_missing(directory, name))
    config_json = read_json(directory / CONFIG, limit=CONFIG_BYTES)
    family = get_family(config_json.get("model_type"), str(directory / CONFIG))
    blueprint = family.blueprint(config_json, str(directory / CONFIG))
    _check_threshold(config_json.get(THRESHOLD, EVEN), directory / CONFIG)
    tokenizer_json = read_text(directory / TOKENIZER, limit=TOKENIZER_BYTES)
    check_tokenizer(tokenizer_json, directory / TOKENIZER)
    tokenizer_config = None
    if os.path.lexists(directory / TOKENIZER_CONFIG):
        tokenizer_config = read_json(directory / TOKENIZER_CONFIG, limit=CONFIG_BYTES)
    weights = load_weights(directory / WEIGHTS, family, blueprint)
    checkpoint = Checkpoint(
        origin=str(directory),
        blueprint=blueprint,
        config_json=config_json,
        weights=weights,
        label_names=_label_names(config_json, weights, directory / CONFIG),
        tokenizer_json=tokenizer_json,
        tokenizer_config=tokenizer_config,
    )
    _warn_of_code(checkpoint)
    return checkpoint


def load_weights(path: Path, family: Family, blueprint: Blueprint) -> Weights:
    """Read the encoder, and the parts of the head that are there, by canonical names.

    Args:
        blueprint: of the `config.json` beside the file.

    Raises:
        CheckpointError: the file is damaged, or an array is missing, has another shape, or is not accounted for.
    """
    header = read_header(path)
    unread = _current_names(header, path)
    contents: dict[str, FileArray] = {}
    for array in family.arrays(blueprint, num_outputs=1):
        bare = array.name.removeprefix(f"{family.prefix}.")
        stored = unread.pop(array.name, None) or unread.pop(bare, None)
        if stored is not None:
            _check_shape(array, header[stored].shape, path)
            contents[stored] = array
        elif array.parameters[0].depth <= blueprint.num_hidden_layers:  # the head may be missing
            raise CheckpointError(f"{path} has no weight {array.name}, which config.json calls for.")
    _check_surplus(unread, family, path)
    _check_head({array.parameters[0].name: header[name].shape[0] for name, array in contents.items()}, blueprint, path)
    weights: Weights = {}
    for name, values in read_safetensors(path, {name: header[name] for name in contents}).items():
        weights |= contents[name].split(values)
    return weights


def _current_names(header: Mapping[str, Stored], path: Path) -> dict[str, str]:
    """Return current name -> name in the file.

    The oldest checkpoints (bert-base-cased among them) call the weight of a LayerNorm gamma, and its bias beta.
    """
    names = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): name
        for name in header
    }
    if len(names) < len(header):
        raise CheckpointError(f"{path} holds a LayerNorm twice, under its old names and its new ones: save the model again.")
    return names


def _check_shape(array: FileArray, shape: tuple[int, ...], path: Path) -> None:
    """Compare a shape with config.json, which does not say how many rows the output has."""
    expected = array.shape
    if array.parameters[0].name.startswith(HEAD_OUTPUT) and shape and shape[0]:
        expected = shape[0], *expected[1:]
    if shape != expected:
        raise CheckpointError(f"{path}: {array.name} has shape {list(shape)}; config.json calls for {list(expected)}.")


def _check_surplus(unread: Mapping[str, str], family: Family, path: Path) -> None:
    surplus = [name for name in unread if not name.endswith("position_ids")]
    surplus = [name for name in surplus if name.removeprefix(f"{family.prefix}.").split(".")[0] not in family.ignored]
    if surplus:
        raise CheckpointError(
            f"{path} holds {len(surplus)} weights that config.json does not account for, the first {brief(surplus[0])}: "
            f"config and weights are of different models."
        )


def _check_head(rows: Mapping[str, int], blueprint: Blueprint, path: Path) -> None:
    """Refuse a product of the head whose weight and bias do not belong together.

    Args:
        rows: canonical name -> rows of each parameter in the file.
    """
    for module in HeadModules(blueprint, 1):
        weight, *bias = (rows.get(parameter.name) for parameter in module.parameters)
        if bias and bias[0] != weight:
            raise CheckpointError(
                f"{path}: weight and bias of {module.name} have {weight} and {bias[0]} rows: save the model again."
            )


def with_head(weights: Weights, blueprint: Blueprint, num_outputs: int, seed: int) -> Weights:
    """Return `weights` and the parameters of the head that they lack, float32.

    New matrices are drawn from N(0, initializer_range) by `seed`, new biases are 0, and new norms 1.
    """
    rng = np.random.default_rng([seed, _HEAD])
    complete = dict(weights)
    for parameter in chain.from_iterable(module.parameters for module in HeadModules(blueprint, num_outputs)):
        if parameter.name in weights:
            continue
        array = np.full(parameter.shape, 1.0 if parameter.role == "norm" else 0.0)
        if parameter.role == "matrix":
            array = rng.normal(0, blueprint.initializer_range, parameter.shape)
        complete[parameter.name] = array.astype(np.float32)
    return complete


def _warn_of_code(checkpoint: Checkpoint) -> None:
    """Warn of files with code that a checkpoint names."""
    names = {**checkpoint.config_json, **(checkpoint.tokenizer_config or {})}
    code = [key for key in CODE if key in names]
    if code:
        kind = checkpoint.family.architecture.removesuffix("ForSequenceClassification")
        logger.warning(
            f"{printable(checkpoint.origin)} names code of its own ({', '.join(code)}), which is not run: "
            f"the model is taken for a plain {kind}."
        )


def save_checkpoint(checkpoint: Checkpoint, weights: Weights, directory: Path) -> None:
    """Write `weights` as a checkpoint that `transformers` loads, beside `checkpoint`'s config and tokenizer.

    Args:
        checkpoint: supplies all but the weights; its `label_names` become `id2label` (None: regression).
        weights: canonical name -> float32 array, the head included.
        directory: exists; files of the same names are overwritten.
    """
    from safetensors.numpy import save_file

    arrays = checkpoint.family.arrays(checkpoint.blueprint, len(weights[f"{HEAD_OUTPUT}.weight"]))
    save_file({array.name: array.join(weights) for array in arrays}, directory / WEIGHTS, metadata={"format": "pt"})
    save_config_and_tokenizer(checkpoint, directory)


def save_config_and_tokenizer(checkpoint: Checkpoint, directory: Path) -> None:
    """Write everything of a checkpoint but its weights; as `save_checkpoint`."""
    labels = checkpoint.label_names or ("LABEL_0",)
    problem_type = checkpoint.config_json.get("problem_type") or "single_label_classification"
    config_json = {
        **_without(checkpoint.config_json, *CODE, *READ_FROM, *DTYPE),
        "architectures": [checkpoint.family.architecture],
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
        "problem_type": "regression" if checkpoint.label_names is None else problem_type,
        "dtype": "float32",
    }
    _write_json(directory / CONFIG, config_json)
    (directory / TOKENIZER).write_text(checkpoint.tokenizer_json, encoding="utf-8")
    if checkpoint.tokenizer_config is not None:
        tokenizer_config = _without(checkpoint.tokenizer_config, *CODE, *READ_FROM)
        if checkpoint.blueprint.embeddings.token_types > 1:  # a generic tokenizer class would leave the types out
            tokenizer_config.setdefault("model_input_names", ["input_ids", "token_type_ids", "attention_mask"])
        _write_json(directory / TOKENIZER_CONFIG, tokenizer_config)


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _check_threshold(value: Any, path: Path) -> None:
    if type(value) not in (int, float) or not 0 < value < 1:
        raise CheckpointError(f"{path}: {THRESHOLD} is {brief(value)}; a number between 0 and 1 was expected.")


def _label_names(config_json: Mapping[str, Any], weights: Weights, path: Path) -> tuple[str, ...] | None:
    """Return the labels in `id2label`, in the order of the outputs; None without a head or for a single output."""
    output = weights.get(f"{HEAD_OUTPUT}.weight")
    if output is None or len(output) == 1:
        return None
    keys = [*map(str, range(len(output)))]
    id2label = config_json.get("id2label") or {key: f"LABEL_{key}" for key in keys}
    if not isinstance(id2label, dict) or id2label.keys() != {*keys}:
        raise CheckpointError(
            f"{path}: id2label is {brief(id2label)}; the head has {len(keys)} outputs, 0 to {len(keys) - 1}."
        )
    for name in id2label.values():
        # labels are shown, and stand in tab-separated files
        if not isinstance(name, str | int | float) or printable(str(name)) != str(name):
            raise CheckpointError(f"{path}: a label in id2label is {brief(name)}; printable characters were expected.")
    return tuple(str(id2label[key]) for key in keys)


def _missing(directory: Path, name: str) -> str:
    if not directory.is_dir():
        return f"{directory} is not a directory; a checkpoint with {CONFIG}, {WEIGHTS} and {TOKENIZER} was expected."
    names = ", ".join(sorted(path.name for path in directory.iterdir())[:12]) or "nothing"
    advice = {
        WEIGHTS: "weights are read from safetensors only, since a pickle can run code: save the model as such",
        TOKENIZER: "save the fast tokenizer with `save_pretrained`",
    }.get(name, "give the directory that holds it")
    return f"{directory} is not a checkpoint: no {name} (it holds {names}); {advice}."
