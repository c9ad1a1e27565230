"""Which arrays of a weights file are which parameters, decided by the file's header before any array is read."""

from collections.abc import Mapping
from pathlib import Path

from isinglass.errors import CheckpointError
from isinglass.models.blueprint import HEAD_OUTPUT, Blueprint
from isinglass.models.families.family import Family, FileArray
from isinglass.models.weights import Stored
from isinglass.names import brief

Header = Mapping[str, Stored]


def match_arrays(header: Header, family: Family, blueprint: Blueprint, path: Path) -> dict[str, FileArray]:
    """Return name in the file -> what it holds, for all arrays of the encoder and those of the head that are there.

    Args:
        header: of the weights file `path`.
        blueprint: of the `config.json` beside it.

    Raises:
        CheckpointError: an array is missing, has another shape, or is not accounted for.
    """
    unread = _current_names(header, path)
    found: dict[str, FileArray] = {}
    for array in family.arrays(blueprint, num_outputs=1):
        bare = array.name.removeprefix(f"{family.prefix}.")
        stored = unread.pop(array.name, None) or unread.pop(bare, None)
        if stored is not None:
            _check_shape(array, header[stored].shape, path)
            found[stored] = array
        elif array.parameters[0].depth <= blueprint.num_hidden_layers:  # the head may be missing
            raise CheckpointError(f"{path} has no weight {array.name}, which config.json calls for.")
    _check_surplus(unread, family, path)
    _check_head({array.parameters[0].name: header[name].shape[0] for name, array in found.items()}, blueprint, path)
    return found


def _current_names(header: Header, path: Path) -> dict[str, str]:
    """Return current name -> name in the file.

    The oldest checkpoints (bert-base-cased among them) call the weight of a LayerNorm gamma, and its bias beta.
    """
    names = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): name
        for name in header
    }
    if len(names) < len(header):
        raise CheckpointError(f"{path} holds a LayerNorm twice, under its old names and its new ones: save the model anew.")
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
    for module in blueprint.head_modules(num_outputs=1):
        weight, *bias = (rows.get(parameter.name) for parameter in module.parameters)
        if bias and bias[0] != weight:
            raise CheckpointError(
                f"{path}: weight and bias of {module.name} have {weight} and {bias[0]} rows: save the model anew."
            )
