"""A finished classifier as ONNX: built from the NumPy weights, node by node, whichever framework trained them.

What is written is a directory that ONNX Runtime and `optimum` read:

DIRECTORY/
  model.onnx              float32; weights of 2 GB or more lie beside it, in model.onnx_data
  model-int8.onnx         where asked for: weights of int8, activations quantised as they come
  config.json, tokenizer.json, tokenizer_config.json

Shapes: B examples of L tokens, padding included.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float32, Int64
from safetensors import SafetensorError

from isinglass.data.tokenization import TokenizedTexts
from isinglass.errors import CheckpointError, IsinglassError, MissingDependencyError, OutputExistsError, StorageError
from isinglass.export.onnx_graph import AXES, OPSET, OUTPUT, build_model, input_names
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, Checkpoint, save_config_and_tokenizer
from isinglass.runs.finished import FinishedModel
from isinglass.storage import check_parent, held, take_place
from isinglass.training.labels import label_order

if TYPE_CHECKING:
    from onnx import ModelProto

MODEL: Final = "model.onnx"
INT8: Final = "model-int8.onnx"
LARGEST_FILE: Final = 2_000_000_000  # bytes of weights in one file: protobuf reads no message of 2 GiB

_FILES: Final = frozenset({MODEL, f"{MODEL}_data", INT8, f"{INT8}_data", CONFIG, TOKENIZER, TOKENIZER_CONFIG})


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export left.

    Attributes:
        files: those of the directory, by name.
        opset: of ONNX's own operators.
        inputs: name -> names of its axes, both of them free; all are int64.
        label_names: the task's, in the order of the outputs; None for regression.
        max_length: most tokens of an example, as in training.
    """

    directory: Path
    files: tuple[Path, ...]
    opset: int
    inputs: Mapping[str, tuple[str, ...]]
    label_names: tuple[str, ...] | None
    max_length: int


def export_run(model: FinishedModel, directory: Path, *, int8: bool = False, overwrite: bool = False) -> Exported:
    """Write a finished model to `directory`, made if need be: all of its files, or none.

    Args:
        int8: a quantised model too.
        overwrite: replace an earlier export, and nothing else.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
        OutputExistsError: as `check_output`, or another process writes there.
        ConfigError: as `check_output`.
        CheckpointError: the model has no trained head, or one for other labels than its task's.
        StorageError: the disk is full, say. What was there is as it was.
    """
    _check_installed("onnx", *(["onnxruntime"] if int8 else []))
    check_output(directory, overwrite=overwrite)
    checkpoint = replace(model.checkpoint, label_names=label_order(model.checkpoint, model.task))
    max_length = min(model.config.max_length, checkpoint.blueprint.max_length)
    try:
        with _whole(directory, overwrite=overwrite) as partial:
            export_onnx(checkpoint, partial, max_length=max_length)
            if int8:
                quantize(partial)
    except IsinglassError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"The model could not be written to {directory} ({reason}): nothing is left of it.") from error
    return Exported(
        directory=directory,
        files=tuple(sorted(path for path in directory.iterdir() if path.name in _FILES)),
        opset=OPSET,
        inputs=dict.fromkeys(input_names(checkpoint.blueprint), AXES),
        label_names=checkpoint.label_names,
        max_length=max_length,
    )


def check_output(directory: Path, *, overwrite: bool) -> None:
    """Refuse, before any work is done, to write where something else stands or where nothing can be written.

    Raises:
        OutputExistsError: `directory` is a file, or is not empty and `overwrite` is false, or holds what no export writes,
            or cannot be replaced.
        ConfigError: `directory` cannot be made.
    """
    real, working = _real(directory), Path.cwd()
    if real in (working, *working.parents) or os.path.ismount(real):
        raise OutputExistsError(
            f"{directory} is the working directory, one above it, or a mount point, and cannot be replaced: name a new "
            f"directory in it, --output {directory / 'onnx'}."
        )
    if real.is_dir():
        holds = {path.name for path in real.iterdir()}
        if holds and not overwrite:
            raise OutputExistsError(f"{directory} is not empty: choose another --output, or replace it with --overwrite.")
        if holds and (MODEL not in holds or holds - _FILES):
            why = f"it has no {MODEL}" if MODEL not in holds else f"it holds {min(holds - _FILES)!r} too"
            raise OutputExistsError(f"{directory} is not what an export leaves ({why}): --overwrite does not replace it.")
    elif os.path.lexists(real):
        raise OutputExistsError(f"{directory} is a file: choose another --output.")
    check_parent(directory, option="--output")


@contextmanager
def _whole(directory: Path, *, overwrite: bool) -> Iterator[Path]:
    """A directory to write to beside `directory`; when the block ends well it is synced and takes its place."""
    real = _real(directory)
    partial, lock = real.with_name(f".{real.name}.partial"), real.with_name(f".{real.name}.lock")
    real.parent.mkdir(parents=True, exist_ok=True)
    with held(lock, str(directory)):
        try:
            check_output(directory, overwrite=overwrite)
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed while it wrote
            partial.mkdir()
            yield partial
            take_place(partial, real)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            lock.unlink(missing_ok=True)


def export_onnx(checkpoint: Checkpoint, directory: Path, *, max_length: int | None = None) -> Path:
    """Write `checkpoint` as a float32 model, its config and its tokenizer beside it.

    The model takes int64 (B, L) `input_ids`, `attention_mask` (1 for tokens, 0 for padding) and, where there is more than
    one token type, `token_type_ids`; it gives float32 (B, outputs) `logits`. Its metadata names `label_names`, a JSON list
    in the order of the outputs (absent for regression), `problem_type` as in `config.json`, and `max_length`.

    Args:
        directory: exists; files of the same names are overwritten.
        max_length: most tokens of an example; None: as many as the model has positions for.

    Returns:
        The model's path.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
        CheckpointError: there is no trained head.
        OSError: the disk is full, say.
    """
    _check_installed("onnx")
    if checkpoint.num_outputs is None:
        raise CheckpointError(f"{checkpoint.origin} has no trained classification head: train it first.")
    save_config_and_tokenizer(checkpoint, directory)
    labels = checkpoint.label_names
    properties = {
        **({} if labels is None else {"label_names": json.dumps(labels)}),
        "problem_type": json.loads((directory / CONFIG).read_text())["problem_type"],
        "max_length": str(max_length or checkpoint.blueprint.max_length),
    }
    _save(build_model(checkpoint, checkpoint.num_outputs, properties), directory / MODEL)
    return directory / MODEL


def quantize(directory: Path) -> Path:
    """Write an int8 model beside `directory`'s float32 one: a quarter of its size.

    The weights of matrix products and the embeddings of words have 8 bits. Those of products are scaled by output, and keep
    to 7 of the 8 bits: CPUs without VNNI add two products in 16 bits, where others overflow. Activations are quantised as
    they come, over the whole batch, so that an answer depends a little on its neighbours.

    Args:
        directory: as `export_onnx` leaves it; a file of the same name is overwritten.

    Returns:
        The int8 model's path.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
        OSError: the disk is full, say.
    """
    _check_installed("onnx", "onnxruntime")
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


def onnx_outputs(
    path: Path, tokens: TokenizedTexts, pad_token_id: int, *, batch_size: int = 32, threads: int = 0
) -> Float32[np.ndarray, "N outputs"]:
    """Logits of an exported model by ONNX Runtime on the CPU, in the order of the file.

    Args:
        path: of the float32 or the int8 model.
        tokens: at least one of each example, and no more than the model has positions for.
        batch_size: most examples of a batch, which has neighbours by length, padded to its longest.
        threads: of ONNX Runtime; 0: one for each core.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
    """
    _check_installed("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = [one.name for one in session.get_inputs()]
    outputs = np.full((len(tokens), session.get_outputs()[0].shape[1]), np.nan, np.float32)
    longest_first = np.argsort(-tokens.lengths, kind="stable")  # the first batch takes the most memory
    for start in range(0, len(tokens), batch_size):
        index = longest_first[start : start + batch_size]
        padded = _padded(tokens, index, pad_token_id)
        (outputs[index],) = session.run([OUTPUT], {name: padded[name] for name in inputs})
    return outputs


def _padded(
    tokens: TokenizedTexts, index: Int64[np.ndarray, " B"], pad_token_id: int
) -> dict[str, Int64[np.ndarray, "B L"]]:
    """Some examples as the model's inputs."""
    places, lengths = np.arange(tokens.lengths[index].max()), tokens.lengths[index, None]
    is_token = places < lengths
    at = (tokens.offsets[index, None] + places)[is_token]
    input_ids, token_type_ids = np.full(is_token.shape, pad_token_id, np.int64), np.zeros(is_token.shape, np.int64)
    input_ids[is_token], token_type_ids[is_token] = tokens.input_ids[at], tokens.token_type_ids[at]
    return {"input_ids": input_ids, "attention_mask": is_token.astype(np.int64), "token_type_ids": token_type_ids}


def _is_large(model: "ModelProto") -> bool:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_FILE


def _save(model: "ModelProto", path: Path) -> None:
    """Write a model: one file if protobuf allows it, else its weights beside it. Of a large one no weights remain."""
    import onnx

    data = path.with_name(f"{path.name}_data")  # as `optimum` calls it
    data.unlink(missing_ok=True)  # it would be appended to
    onnx.save(model, path, save_as_external_data=_is_large(model), location=data.name)


def _real(path: Path) -> Path:
    """Absolute, symbolic links followed: what a link points to is replaced, not the link."""
    return Path(os.path.realpath(path))


def _check_installed(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise MissingDependencyError(f"The export to ONNX needs {package}: `pip install 'isinglass[onnx]'`.")
