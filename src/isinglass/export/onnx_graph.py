"""A classifier as an ONNX graph, built node by node from its blueprint and its NumPy weights.

Shapes: B examples of L tokens, padding included; H hidden size = N heads x D head size, E embedding size, F feed-forward
size, K outputs. Both B and L are free. Padding follows the tokens, because the head reads the first place, and changes no
float32 logit. As in training, positions are counted from the first place on, and only the first token leaves the last block.
"""

import math
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from isinglass.models.blueprint import Block, BlockModules, Blueprint, Module, check_features
from isinglass.models.checkpoint import Checkpoint
from isinglass.models.files import Weights

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OUTPUT: Final = "logits"
AXES: Final = ("batch", "sequence")  # of every input
OPSET: Final = 20  # the first with Gelu, exact and by tanh (LayerNormalization came with 17); any ONNX Runtime since 1.17
FORBIDDEN: Final = np.float32(-1e30)  # added to the score of a key that pads: its weight is exactly 0, and no sum overflows


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

    def activation(self, x: str, name: str) -> str:
        """Add an activation."""
        return _ACTIVATION[name](self, x)


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
        if index == len(blueprint.blocks) - 1:
            query_input = graph.op("Gather", x, graph.constant("first_token", [0]), axis=1)  # (B, 1, H)
        else:
            query_input = x
        x = _add_block(graph, block, blueprint.block_modules(index), x, query_input, key_bias)
    head = blueprint.head_modules(num_outputs)
    x = graph.op("Squeeze", x, graph.constant("of_tokens", [1]))  # (B, 1, H) to (B, H)
    x = graph.activation(graph.linear(x, head.dense), blueprint.head.activation)
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
    embeddings, modules = blueprint.embeddings, blueprint.embedding_modules()
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
    context = _attend(graph, block.attention.num_heads, modules, x, query_input, key_bias)
    attended = graph.op("Add", query_input, graph.linear(context, modules.attention_output))
    x = graph.norm(attended, modules.attention_norm)
    inner = graph.activation(graph.linear(x, modules.intermediate), block.feed_forward.activation)  # (B, Q, F)
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
