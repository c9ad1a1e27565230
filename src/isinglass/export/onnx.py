"""Export a finished classifier to ONNX, whichever framework trained it.

The export is a directory that ONNX Runtime and `optimum` read:

DIRECTORY/
  model.onnx              float32; weights of 2 GB or more lie beside it, in model.onnx_data
  model-int8.onnx         on request: int8 weights, activations quantised at run time
  config.json, tokenizer.json, tokenizer_config.json

The graph is built node by node from the blueprint and the NumPy weights. Shapes: B examples of L tokens, padding included;
H hidden size = N heads x D head size, E embedding size, F feed-forward size, K outputs. Both B and L are free. Padding
follows the tokens, because the head reads the first place, and changes no float32 logit. As in training, positions are
counted from the first place on, and only the first token leaves the last block.
"""

import json
import math
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
from numpy.typing import NDArray
from safetensors import SafetensorError

from isinglass.errors import CheckpointError, IsinglassError, MissingDependencyError, OutputExistsError, StorageError
from isinglass.models.blueprint import Block, BlockModules, Blueprint, EmbeddingModules, HeadModules, Module, check_features
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, Checkpoint, save_config_and_tokenizer
from isinglass.models.files import Weights
from isinglass.runs.directory import FinishedModel
from isinglass.storage import held, names_to_replace, real_path, take_place
from isinglass.training.preparation import label_order

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OUTPUT: Final = "logits"
AXES: Final = ("batch", "sequence")  # of every input
OPSET: Final = 20  # the first with Gelu, exact and by tanh (LayerNormalization came with 17); any ONNX Runtime since 1.17
FORBIDDEN: Final = np.float32(-1e30)  # added to the score of a key that pads: its weight is exactly 0, and no sum overflows
MODEL: Final = "model.onnx"
INT8: Final = "model-int8.onnx"
LARGEST_FILE: Final = 2_000_000_000  # bytes of weights in one file: protobuf reads no message of 2 GiB

_FILES: Final = frozenset({MODEL, f"{MODEL}_data", INT8, f"{INT8}_data", CONFIG, TOKENIZER, TOKENIZER_CONFIG})


@dataclass(frozen=True)
class Exported:
    """An export that was written.

    Attributes:
        files: sorted by name.
        inputs: names; all are int64, with AXES of free length.
        label_names: of the task, in the order of the outputs; None for regression.
        max_length: the longest example in tokens, as in training.
    """

    files: tuple[Path, ...]
    inputs: tuple[str, ...]
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
    check_package("onnx")
    if int8:
        check_package("onnxruntime")
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
    return Exported(files, input_names(checkpoint.blueprint), checkpoint.label_names, max_length)


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
        CheckpointError: there is no trained head.
        OSError: the file cannot be written.
    """
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
        OSError: the file cannot be written.
    """
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


def check_package(package: str) -> None:
    """Check that a package of the extra `onnx` is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    if find_spec(package) is None:
        raise MissingDependencyError(f"The export to ONNX needs {package}: `pip install 'isinglass[onnx]'`.")


def input_names(blueprint: Blueprint) -> tuple[str, ...]:
    """Return the names of the graph's inputs, int64 (B, L) each.

    One token type alone needs no input, and tokenizers of such models give none.
    """
    inputs = ("input_ids", "attention_mask")
    return (*inputs, "token_type_ids") if blueprint.embeddings.token_types > 1 else inputs


def build_model(checkpoint: Checkpoint, num_outputs: int, properties: Mapping[str, str]) -> "ModelProto":
    """Return a checkpoint with a trained head as an ONNX model in float32.

    Args:
        properties: the model's metadata.

    Raises:
        CheckpointError: the encoder has features that this graph does not compute.
    """
    from onnx import TensorProto, helper, numpy_helper

    blueprint = checkpoint.blueprint
    check_features(blueprint, "the export to ONNX")
    graph = _Graph(checkpoint.weights)
    _add_classifier(graph, blueprint, num_outputs)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            checkpoint.family.architecture,
            [helper.make_tensor_value_info(name, TensorProto.INT64, AXES) for name in input_names(blueprint)],
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
    """Nodes and constants, gathered in the order of computation. Tensors are referred to by name."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node, and return its one output, which has the node's name."""
        from onnx import helper

        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, values: object, dtype: type[np.generic] = np.int64) -> str:
        """Add a constant, and return it."""
        self.constants[name] = np.array(values, dtype)
        return name

    def weight(self, name: str) -> str:
        """Add a parameter as a constant, and return it."""
        self.constants[name] = self.weights[name]
        return name

    def linear(self, x: str, module: Module, name: str | None = None) -> str:
        """Add a product with the transpose of a weight, plus a bias.

        The weight, (outputs, inputs) in checkpoints, is stored transposed: only so can its product be quantised.
        """
        weight, bias = (parameter.name for parameter in module.parameters)
        self.constants[weight] = self.weights[weight].T
        return self.op("Add", self.op("MatMul", x, weight), self.weight(bias), name=name)

    def norm(self, x: str, module: Module | None) -> str:
        """Add a LayerNorm."""
        assert module is not None, "other encoders have been refused"
        weights = (self.weight(parameter.name) for parameter in module.parameters)
        return self.op("LayerNormalization", x, *weights, axis=-1, epsilon=module.epsilon)


_ACTIVATION: Final[Mapping[str, Callable[[_Graph, str], str]]] = {
    "gelu": lambda graph, x: graph.op("Gelu", x),
    "gelu_tanh": lambda graph, x: graph.op("Gelu", x, approximate="tanh"),
    "relu": lambda graph, x: graph.op("Relu", x),
    "silu": lambda graph, x: graph.op("Mul", x, graph.op("Sigmoid", x)),
    "tanh": lambda graph, x: graph.op("Tanh", x),
}


def _add_classifier(graph: _Graph, blueprint: Blueprint, num_outputs: int) -> None:
    """Add everything from the inputs to the logits."""
    x = _embed(graph, blueprint)  # (B, L, H)
    key_bias = _key_bias(graph)
    for index, block in enumerate(blueprint.blocks):
        query_input = x
        if index == len(blueprint.blocks) - 1:
            query_input = graph.op("Gather", x, graph.constant("first_token", [0]), axis=1)  # (B, 1, H)
        x = _add_block(graph, block, blueprint.block_modules(index), x, query_input, key_bias)
    head = HeadModules(blueprint, num_outputs)
    x = graph.op("Squeeze", x, graph.constant("of_tokens", [1]))  # (B, 1, H) to (B, H)
    x = _ACTIVATION[blueprint.head.activation](graph, graph.linear(x, head.dense))
    graph.linear(x, head.output, name=OUTPUT)  # (B, K)


def _key_bias(graph: _Graph) -> str:
    """Add what the attention mask adds to scores: (B, 1, 1, L), 0 for tokens and FORBIDDEN for padding."""
    from onnx import TensorProto

    is_token = graph.op("Cast", "attention_mask", to=TensorProto.BOOL)
    allowed, forbidden = graph.constant("allowed", 0.0, np.float32), graph.constant("forbidden", FORBIDDEN, np.float32)
    key_bias = graph.op("Where", is_token, allowed, forbidden)
    return graph.op("Unsqueeze", key_bias, graph.constant("of_heads_and_queries", [1, 2]))


def _embed(graph: _Graph, blueprint: Blueprint) -> str:
    """Add the embeddings of tokens, positions and token types, summed, normed and projected: (B, L, H)."""
    embeddings, modules = blueprint.embeddings, EmbeddingModules(blueprint)
    assert modules.position is not None, "other encoders have been refused"
    x = graph.op("Gather", graph.weight(f"{modules.token.name}.weight"), "input_ids")
    first = graph.constant("first_position", [embeddings.first_position])
    after_last = graph.op("Add", graph.op("Shape", "input_ids", start=1, end=2), first)
    table = graph.weight(f"{modules.position.name}.weight")
    x = graph.op("Add", x, graph.op("Slice", table, first, after_last, graph.constant("of_positions", [0])))
    if modules.token_type is not None:
        types = graph.weight(f"{modules.token_type.name}.weight")
        only_one = embeddings.token_types == 1
        x = graph.op("Add", x, types if only_one else graph.op("Gather", types, "token_type_ids"))
    x = graph.norm(x, modules.norm)
    return x if modules.projection is None else graph.linear(x, modules.projection)


def _add_block(graph: _Graph, block: Block, modules: BlockModules, x: str, query_input: str, key_bias: str) -> str:
    """Add a block: attention and feed-forward part, each added to its input and normed.

    Args:
        x: (B, L, H), of which keys and values are made.
        query_input: (B, Q, H), of which queries are made, and what the block's results are added to.

    Returns:
        (B, Q, H).
    """
    context = _attend(graph, block.num_heads, modules, x, query_input, key_bias)
    attended = graph.op("Add", query_input, graph.linear(context, modules.attention_output))
    x = graph.norm(attended, modules.attention_norm)
    inner = _ACTIVATION[block.activation](graph, graph.linear(x, modules.intermediate))  # (B, Q, F)
    fed = graph.op("Add", x, graph.linear(inner, modules.output))
    return graph.norm(fed, modules.output_norm)


def _attend(graph: _Graph, num_heads: int, modules: BlockModules, x: str, query_input: str, key_bias: str) -> str:
    """Add the attention of queries to keys and values: (B, Q, H); the other arguments as in `_add_block`."""
    H = modules.query.shape[0]
    D = H // num_heads
    by_head, joined = graph.constant("by_head", [0, 0, num_heads, D]), graph.constant("joined", [0, 0, H])  # 0: as it is

    def heads(x: str, product: Module, order: tuple[int, ...]) -> str:
        return graph.op("Transpose", graph.op("Reshape", graph.linear(x, product), by_head), perm=order)

    k = heads(x, modules.key, (0, 2, 3, 1))  # (B, N, D, L)
    v = heads(x, modules.value, (0, 2, 1, 3))  # (B, N, L, D)
    q = heads(query_input, modules.query, (0, 2, 1, 3))  # (B, N, Q, D)
    scores = graph.op("Mul", graph.op("MatMul", q, k), graph.constant("scale", 1 / math.sqrt(D), np.float32))
    attention = graph.op("Softmax", graph.op("Add", scores, key_bias), axis=-1)
    context = graph.op("Transpose", graph.op("MatMul", attention, v), perm=(0, 2, 1, 3))
    return graph.op("Reshape", context, joined)
