"""Export a finished classifier to ONNX, whichever framework trained it.

The export is a directory that ONNX Runtime and `optimum` read:

DIRECTORY/
  model.onnx              float32; weights of 2 GB or more lie beside it, in model.onnx_data
  model-int8.onnx         on request: int8 weights, activations quantised at run time
  config.json, tokenizer.json, tokenizer_config.json
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safetensors import SafetensorError

from isinglass.errors import CheckpointError, IsinglassError, MissingDependencyError, OutputExistsError, StorageError
from isinglass.export.onnx_graph import AXES, OPSET, build_model, input_names
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, Checkpoint, save_config_and_tokenizer
from isinglass.runs.directory import FinishedModel
from isinglass.storage import held, names_to_replace, real_path, take_place
from isinglass.training.preparation import label_order

if TYPE_CHECKING:
    from onnx import ModelProto

MODEL: Final = "model.onnx"
INT8: Final = "model-int8.onnx"
LARGEST_FILE: Final = 2_000_000_000  # bytes of weights in one file: protobuf reads no message of 2 GiB

_FILES: Final = frozenset({MODEL, f"{MODEL}_data", INT8, f"{INT8}_data", CONFIG, TOKENIZER, TOKENIZER_CONFIG})


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An export that was written.

    Attributes:
        files: sorted by name.
        opset: version of ONNX's own operators.
        inputs: name -> names of its two axes, both of free length; all are int64.
        label_names: of the task, in the order of the outputs; None for regression.
        max_length: the longest example in tokens, as in training.
    """

    directory: Path
    files: tuple[Path, ...]
    opset: int
    inputs: Mapping[str, tuple[str, ...]]
    label_names: tuple[str, ...] | None
    max_length: int


def export_run(model: FinishedModel, directory: Path, *, int8: bool = False, overwrite: bool = False) -> Exported:
    """Write a finished model to `directory`: all of its files, or none.

    Args:
        directory: created if it does not exist.
        int8: whether to write a quantised model too.
        overwrite: whether to replace an earlier export; nothing else is replaced.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
        OutputExistsError: as `check_output`, or another process writes there.
        ConfigError: as `check_output`.
        CheckpointError: the model has no trained head, or one for other labels than its task's.
        StorageError: the files cannot be written. An earlier export is unchanged.
    """
    check_installed(*(("onnx", "onnxruntime") if int8 else ("onnx",)))
    check_output(directory, overwrite=overwrite)
    checkpoint = replace(model.checkpoint, label_names=label_order(model.checkpoint, model.task))
    max_length = min(model.config.max_length, checkpoint.blueprint.max_length)
    try:
        with _replacing(directory, overwrite=overwrite) as partial:
            export_onnx(checkpoint, partial, max_length=max_length)
            if int8:
                quantize(partial)
    except IsinglassError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"The model could not be written to {directory} ({reason}): nothing is left of it.") from error
    files = tuple(sorted(path for path in directory.iterdir() if path.name in _FILES))
    return Exported(
        directory=directory,
        files=files,
        opset=OPSET,
        inputs=dict.fromkeys(input_names(checkpoint.blueprint), AXES),
        label_names=checkpoint.label_names,
        max_length=max_length,
    )


def check_output(directory: Path, *, overwrite: bool) -> None:
    """Check, before any work is done, that an export can be written to `directory`.

    Raises:
        OutputExistsError: `directory` is a file, is not empty and `overwrite` is false, holds files that no export writes,
            or cannot be replaced.
        ConfigError: `directory` cannot be created.
    """
    names = names_to_replace(directory, option="--output", example="onnx")
    if not names:
        return
    if not overwrite:
        raise OutputExistsError(f"{directory} is not empty: choose another --output, or replace it with --overwrite.")
    others = names - _FILES
    if others or MODEL not in names:
        reason = f"it holds {min(others)!r} too" if MODEL in names else f"it has no {MODEL}"
        raise OutputExistsError(f"{directory} is not what an export leaves ({reason}): --overwrite does not replace it.")


@contextmanager
def _replacing(directory: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a directory to write to beside `directory`; when the block ends well it is synced and takes its place."""
    real = real_path(directory)
    partial, lock = real.with_name(f".{real.name}.partial"), real.with_name(f".{real.name}.lock")
    real.parent.mkdir(parents=True, exist_ok=True)
    with held(lock, str(directory)):
        try:
            check_output(directory, overwrite=overwrite)
            shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed while it wrote
            partial.mkdir()
            yield partial
            take_place(partial, real)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            lock.unlink(missing_ok=True)


def export_onnx(checkpoint: Checkpoint, directory: Path, *, max_length: int | None = None) -> Path:
    """Write `checkpoint` as a float32 model, with its config and its tokenizer beside it.

    Inputs of the model are int64 (B, L): `input_ids`, `attention_mask` (1 for tokens, 0 for padding), and `token_type_ids`
    where there is more than one token type. Its output is `logits`, float32 (B, K). Its metadata are `label_names`, a JSON
    list in the order of the outputs (absent for regression), `problem_type` as in `config.json`, and `max_length`.

    Args:
        directory: exists; files of the same names are overwritten.
        max_length: the longest example in tokens; None: as many as the model has positions for.

    Returns:
        The model's path.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
        CheckpointError: there is no trained head.
        OSError: the file cannot be written.
    """
    check_installed("onnx")
    if checkpoint.num_outputs is None:
        raise CheckpointError(f"{checkpoint.origin} has no trained classification head: train it first.")
    save_config_and_tokenizer(checkpoint, directory)
    properties = {
        "problem_type": json.loads((directory / CONFIG).read_text())["problem_type"],
        "max_length": str(max_length or checkpoint.blueprint.max_length),
    }
    if checkpoint.label_names is not None:
        properties["label_names"] = json.dumps(checkpoint.label_names)
    _save(build_model(checkpoint, checkpoint.num_outputs, properties), directory / MODEL)
    return directory / MODEL


def quantize(directory: Path) -> Path:
    """Write an int8 model, a quarter of the size, beside the float32 model of `directory`.

    The weights of matrix products and the embeddings have 8 bits. Weights of products are scaled by output, and use 7 of
    the 8 bits: CPUs without VNNI add two products in 16 bits, where 8 would overflow. Activations are quantised at run
    time, over the whole batch, so that a prediction depends a little on the other examples of its batch.

    Args:
        directory: as `export_onnx` leaves it; a file of the same name is overwritten.

    Returns:
        The int8 model's path.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
        OSError: the file cannot be written.
    """
    check_installed("onnx", "onnxruntime")
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = onnx.load(directory / MODEL)
    properties = {prop.key: prop.value for prop in model.metadata_props}
    add_pre_process_metadata(model)  # otherwise a warning advises to fuse nodes first, which this graph does not need
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=directory) as scratch:
        quantize_dynamic(
            model,
            Path(scratch) / MODEL,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=_is_large(model),
        )
        quantized = onnx.load(Path(scratch) / MODEL)
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    onnx.helper.set_model_props(quantized, properties)
    _save(quantized, directory / INT8)
    return directory / INT8


def _is_large(model: "ModelProto") -> bool:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_FILE


def _save(model: "ModelProto", path: Path) -> None:
    """Write a model as one file if protobuf allows it, else with its weights beside it, which then leave `model`."""
    import onnx

    data = path.with_name(f"{path.name}_data")  # as `optimum` calls it
    data.unlink(missing_ok=True)  # it would be appended to
    onnx.save(model, path, save_as_external_data=_is_large(model), location=data.name)


def check_installed(*packages: str) -> None:
    """Check that packages of the extra `onnx` are installed.

    Raises:
        MissingDependencyError: one is not.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingDependencyError(f"The export to ONNX needs {package}: `pip install 'isinglass[onnx]'`.")
