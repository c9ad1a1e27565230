"""A finished classifier as ONNX: built from the NumPy weights, node by node, whichever framework trained them.

What is written is a directory that ONNX Runtime and `optimum` read:

DIRECTORY/
  model.onnx              float32; weights of 2 GB or more lie beside it, in model.onnx_data
  model-int8.onnx         where asked for: weights of int8, activations quantised as they come
  config.json, tokenizer.json, tokenizer_config.json

Shapes: B examples of L tokens, padding included; H hidden size = N heads x D head size, E embedding size, F intermediate
size. Both B and L are free. Padding follows the tokens, because the head reads the first place, and changes no float32
logit. As in training, positions are counted from the first place on, and only the first token leaves the last layer.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float32, Int64
from safetensors import SafetensorError

from isinglass.data.tokenization import TokenizedTexts
from isinglass.errors import CheckpointError, IsinglassError, MissingDependencyError, OutputExistsError, StorageError
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, Checkpoint, save_checkpoint
from isinglass.models.encoder_config import ACTIVATIONS, EncoderConfig
from isinglass.models.weights import Weights
from isinglass.runs.loading import FinishedModel
from isinglass.storage import check_parent, held, take_place
from isinglass.training.labels import label_order

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

MODEL: Final = "model.onnx"
INT8: Final = "model-int8.onnx"
OUTPUT: Final = "logits"
AXES: Final = ("batch", "sequence")  # of every input
OPSET: Final = 20  # the first with Gelu, exact and by tanh (LayerNormalization came with 17); any ONNX Runtime since 1.17
LARGEST_FILE: Final = 2_000_000_000  # bytes of weights in one file: protobuf reads no message of 2 GiB
FORBIDDEN: Final = np.float32(-1e30)  # added to the score of a key that pads: its weight is exactly 0, and no sum overflows

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
    max_length = min(model.config.max_length, checkpoint.config.max_length)
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
        inputs=dict.fromkeys(_inputs(checkpoint.config), AXES),
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
    save_checkpoint(checkpoint, {}, directory)
    (directory / WEIGHTS).unlink()  # its config and its tokenizer only
    labels = checkpoint.label_names
    properties = {
        **({} if labels is None else {"label_names": json.dumps(labels)}),
        "problem_type": json.loads((directory / CONFIG).read_text())["problem_type"],
        "max_length": str(max_length or checkpoint.config.max_length),
    }
    _save(_model(checkpoint.config, checkpoint.weights, checkpoint.num_outputs, properties), directory / MODEL)
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


def _inputs(config: EncoderConfig) -> tuple[str, ...]:
    """One token type alone needs no input, nor do tokenizers of such models give any."""
    return ("input_ids", "attention_mask", *(["token_type_ids"] if config.type_vocab_size > 1 else []))


def _model(config: EncoderConfig, weights: Weights, num_outputs: int, properties: Mapping[str, str]) -> "ModelProto":
    from onnx import TensorProto, helper, numpy_helper

    graph = _Graph(weights)
    _classifier(graph, config)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            config.family.architecture,
            [helper.make_tensor_value_info(name, TensorProto.INT64, AXES) for name in _inputs(config)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [AXES[0], num_outputs])],
        ),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="isinglass",
        producer_version=version("isinglass"),
    )
    helper.set_model_props(model, dict(properties))
    for name, array in graph.constants.items():  # into the model one by one: large ones are not held twice
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


class _Graph:
    """Nodes and constants, gathered in the order of computation. What a method returns is the name of a tensor."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray[Any, Any]] = {}

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """One node with one output, which is called as the node."""
        from onnx import helper

        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, values: object, dtype: type[np.generic] = np.int64) -> str:
        self.constants[name] = np.array(values, dtype)
        return name

    def weight(self, name: str) -> str:
        self.constants[name] = self.weights[name]
        return name

    def linear(self, x: str, module: str, name: str | None = None) -> str:
        """The weight, (out, in) in checkpoints, is transposed: only so can a product with it be quantised."""
        weight = f"{module}.weight"
        self.constants[weight] = self.weights[weight].T
        return self.op("Add", self.op("MatMul", x, weight), self.weight(f"{module}.bias"), name=name)

    def layer_norm(self, x: str, module: str, epsilon: float) -> str:
        weight, bias = self.weight(f"{module}.weight"), self.weight(f"{module}.bias")
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=epsilon)


_ACTIVATION: Final[Mapping[str, Callable[[_Graph, str], str]]] = {
    "gelu": lambda graph, x: graph.op("Gelu", x),
    "gelu_tanh": lambda graph, x: graph.op("Gelu", x, approximate="tanh"),
    "relu": lambda graph, x: graph.op("Relu", x),
    "silu": lambda graph, x: graph.op("Mul", x, graph.op("Sigmoid", x)),
    "tanh": lambda graph, x: graph.op("Tanh", x),
}


def _classifier(graph: _Graph, config: EncoderConfig) -> None:
    """From the inputs to the logits."""
    from onnx import TensorProto

    x = graph.layer_norm(_embeddings(graph, config), "embeddings.LayerNorm", config.layer_norm_eps)  # (B, L, E)
    if config.embedding_size != config.hidden_size:
        x = graph.linear(x, "embeddings_project")  # (B, L, H)
    is_token = graph.op("Cast", "attention_mask", to=TensorProto.BOOL)
    allowed, forbidden = graph.constant("allowed", 0.0, np.float32), graph.constant("forbidden", FORBIDDEN, np.float32)
    key_bias = graph.op("Where", is_token, allowed, forbidden)
    key_bias = graph.op("Unsqueeze", key_bias, graph.constant("of_heads_and_queries", [1, 2]))  # (B, 1, 1, L)
    last = config.num_hidden_layers - 1
    for i in range(last + 1):
        x = _layer(graph, config, x, key_bias, at=f"encoder.layer.{i}", first_token_only=i == last)
    x = graph.op("Squeeze", x, graph.constant("of_tokens", [1]))  # (B, 1, H) to (B, H)
    x = _ACTIVATION[config.family.head_activation](graph, graph.linear(x, "head.dense"))
    graph.linear(x, "head.output", name=OUTPUT)  # (B, outputs)


def _embeddings(graph: _Graph, config: EncoderConfig) -> str:
    """The sum of the embeddings of words, positions and token types: (B, L, E)."""
    words = graph.op("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids")
    table = graph.weight("embeddings.position_embeddings.weight")
    first = graph.constant("first_position", [config.position_offset])
    after_last = graph.op("Add", graph.op("Shape", "input_ids", start=1, end=2), first)
    positions = graph.op("Slice", table, first, after_last, graph.constant("of_positions", [0]))  # (L, E)
    x = graph.op("Add", words, positions)  # (B, L, E)
    if not config.type_vocab_size:
        return x
    types = graph.weight("embeddings.token_type_embeddings.weight")
    return graph.op("Add", x, types if config.type_vocab_size == 1 else graph.op("Gather", types, "token_type_ids"))


def _layer(graph: _Graph, config: EncoderConfig, x: str, key_bias: str, *, at: str, first_token_only: bool) -> str:
    """One block, (B, L, H) to (B, L, H); with `first_token_only` to (B, 1, H)."""
    N, D = config.num_attention_heads, config.head_size
    by_head, joined = graph.constant("by_head", [0, 0, N, D]), graph.constant("joined", [0, 0, N * D])  # 0: as it is

    def heads(x: str, role: str, order: tuple[int, ...]) -> str:
        projected = graph.linear(x, f"{at}.attention.self.{role}")
        return graph.op("Transpose", graph.op("Reshape", projected, by_head), perm=order)

    k = heads(x, "key", (0, 2, 3, 1))  # (B, N, D, L)
    v = heads(x, "value", (0, 2, 1, 3))  # (B, N, L, D)
    if first_token_only:
        x = graph.op("Gather", x, graph.constant("first_token", [0]), axis=1)  # (B, 1, H)
    q = heads(x, "query", (0, 2, 1, 3))
    scores = graph.op("Mul", graph.op("MatMul", q, k), graph.constant("scale", 1 / math.sqrt(D), np.float32))
    attention = graph.op("Softmax", graph.op("Add", scores, key_bias), axis=-1)
    context = graph.op("Transpose", graph.op("MatMul", attention, v), perm=(0, 2, 1, 3))
    attended = graph.linear(graph.op("Reshape", context, joined), f"{at}.attention.output.dense")
    x = graph.layer_norm(graph.op("Add", x, attended), f"{at}.attention.output.LayerNorm", config.layer_norm_eps)
    fed = _ACTIVATION[ACTIVATIONS[config.hidden_act]](graph, graph.linear(x, f"{at}.intermediate.dense"))  # (B, L, F)
    fed = graph.linear(fed, f"{at}.output.dense")
    return graph.layer_norm(graph.op("Add", x, fed), f"{at}.output.LayerNorm", config.layer_norm_eps)


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
