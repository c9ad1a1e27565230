"""BERT-like encoders with a classification head, over packed batches in the `rows` layout, in Keras layers.

Shapes: R rows of L places, S examples, H hidden size = N heads x D head size, E embedding size, F feed-forward size. Tokens
lie on one axis of R * L: only attention knows where an example ends. There every row attends within itself, masked by
example; softmax is computed in float32, whatever the precision of the products.

The differences from the textbook are those of the PyTorch model: query, key and value are one product, and where the head
reads the first token of each example, the last block computes nothing for the others but their keys and values.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import keras
import numpy as np
from jaxtyping import Float32
from keras import layers, ops

from isinglass.backends.keras.dropout import DropoutMasks, add_dropped_out, dropout, masked, scaled
from isinglass.models.blueprint import Blueprint, EmbeddingModules, HeadModules, Module, Parameter, check_features
from isinglass.models.checkpoint import Weights, with_head

FORBIDDEN: Final = -1e30  # added to a score: its weight is exactly 0, in float32 and bfloat16


def _gelu(x: Any) -> Any:
    """Return GELU of `x`, of any shape and float dtype, computed in float32.

    Keras takes `erfc`, which TensorFlow computes number by number.
    """
    wide = ops.cast(x, "float32")
    return ops.cast(0.5 * wide * (1 + ops.erf(wide * math.sqrt(0.5))), x.dtype)


_ACTIVATION: Final[Mapping[str, Callable[[Any], Any]]] = {
    "gelu": _gelu,
    "gelu_tanh": lambda x: keras.activations.gelu(x, approximate=True),
    "linear": keras.activations.linear,
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
    "tanh": keras.activations.tanh,
}


def _norm(module: Module | None) -> layers.LayerNormalization:
    assert module is not None, "other encoders have been refused"
    layer = layers.LayerNormalization(epsilon=module.epsilon, dtype="float32")
    layer.build((None, *module.shape))
    return layer


def _dense(precision: str, *products: Module) -> layers.Dense:
    """Return products of the same input as one, whose results lie side by side."""
    outputs, inputs = sum(product.shape[0] for product in products), products[0].shape[1]
    layer = layers.Dense(outputs, use_bias=products[0].bias, dtype=precision)
    layer.build((None, inputs))
    return layer


class AttentionPlan:
    """The masks of one batch, which all blocks share, and attention by them.

    Attributes:
        bias: float32 (R, 1, L, L), 0 where query and key belong to the same example, else FORBIDDEN.
        first_bias: float32 (1, S, R * L), the same for the first token of each example and all keys.
    """

    def __init__(self, sequence_ids: Any, num_examples: int, num_heads: int) -> None:
        """Make the masks from `sequence_ids`, int32 (R, L)."""
        self.num_heads = num_heads
        same = ops.expand_dims(sequence_ids, 2) == ops.expand_dims(sequence_ids, 1)  # gaps attend to gaps
        own = ops.expand_dims(ops.arange(num_examples, dtype="int32"), 1) == ops.reshape(sequence_ids, (1, -1))
        self.bias = ops.where(ops.expand_dims(same, 1), 0.0, FORBIDDEN)
        self.first_bias = ops.where(ops.expand_dims(own, 0), 0.0, FORBIDDEN)

    def attend(self, qkv: Any, rate: float | None, masks: DropoutMasks | None) -> Any:
        """Let every token attend to the tokens of its example.

        Args:
            qkv: (R * L, 3 * H), queries, keys and values side by side.
            rate: dropout of the attention weights.
            masks: None outside training.

        Returns:
            (R * L, H).
        """
        R, _, L, _ = self.bias.shape
        H, N = qkv.shape[1] // 3, self.num_heads
        q, k, v = ops.unstack(ops.transpose(ops.reshape(qkv, (R, L, 3, N, H // N)), (2, 0, 3, 1, 4)), 3)  # (R, N, L, D) each
        context = _attend(q, k, v, self.bias, rate, masks)
        return ops.reshape(ops.transpose(context, (0, 2, 1, 3)), (R * L, H))

    def attend_first(self, q_first: Any, kv: Any, rate: float | None, masks: DropoutMasks | None) -> Any:
        """Let the first token of each example attend to its tokens: all that the last block needs.

        Args:
            q_first: (S, H), queries of the first tokens.
            kv: (R * L, 2 * H), keys and values side by side.

        Returns:
            (S, H).
        """
        (S, H), N = q_first.shape, self.num_heads
        k, v = ops.unstack(ops.transpose(ops.reshape(kv, (-1, 2, N, H // N)), (1, 2, 0, 3)), 2)  # (N, R * L, D) each
        q = ops.transpose(ops.reshape(q_first, (S, N, H // N)), (1, 0, 2))
        context = _attend(q, k, v, self.first_bias, rate, masks)
        return ops.reshape(ops.transpose(context, (1, 0, 2)), (S, H))


def _attend(q: Any, k: Any, v: Any, bias: Any, rate: float | None, masks: DropoutMasks | None) -> Any:
    """Return softmax(q k^T / sqrt(D) + bias) v, with dropout of the weights.

    Shapes: q (..., Lq, D); k, v (..., Lk, D); bias broadcasts to (..., Lq, Lk); the result is (..., Lq, D).
    """
    scores = ops.matmul(q, ops.swapaxes(k, -1, -2))
    weights = ops.softmax(ops.cast(scores, "float32") * (1 / math.sqrt(q.shape[-1])) + bias)
    dropped, factor = masked(ops.cast(weights, v.dtype), rate, masks)
    return scaled(ops.matmul(dropped, v), factor)  # the context has fewer elements than the weights


class Layer(layers.Layer):
    """One block of two sublayers, attention and feed-forward: each is added to its input, and the sum is normed."""

    def __init__(self, blueprint: Blueprint, index: int, precision: str) -> None:
        super().__init__(dtype="float32")
        modules, self.rates = blueprint.block_modules(index), blueprint.dropout
        self.qkv = _dense(precision, modules.query, modules.key, modules.value)
        self.attention_output = _dense(precision, modules.attention_output)
        self.attention_norm = _norm(modules.attention_norm)
        self.intermediate = _dense(precision, modules.intermediate)
        self.feed_forward_output = _dense(precision, modules.output)
        self.output_norm = _norm(modules.output_norm)
        self.activation = _ACTIVATION[blueprint.blocks[index].activation]

    def call(self, x: Any, plan: AttentionPlan, masks: DropoutMasks | None, first_token: Any | None) -> Any:
        """Map (R * L, H) to (R * L, H); or, with `first_token` (S,), to those rows only, (S, H)."""
        if first_token is None:
            context = plan.attend(self.qkv(x), self.rates.attention_weights, masks)
        else:
            x, q_first, kv = self._project_first(x, first_token)
            context = plan.attend_first(q_first, kv, self.rates.attention_weights, masks)
        attended = self.attention_output(context)
        x = self.attention_norm(add_dropped_out(x, attended, self.rates.attention_output, masks))
        fed = self.feed_forward_output(self.activation(self.intermediate(x)))
        return self.output_norm(add_dropped_out(x, fed, self.rates.feed_forward, masks))

    def _project_first(self, x: Any, first_token: Any) -> tuple[Any, Any, Any]:
        """Return the first tokens (S, H), their queries (S, H), and keys and values of all tokens (R * L, 2 * H)."""
        H, dtype = x.shape[1], self.qkv.compute_dtype
        kernel, bias = ops.cast(self.qkv.kernel, dtype), ops.cast(self.qkv.bias, dtype)
        kv = ops.matmul(ops.cast(x, dtype), kernel[:, H:]) + bias[H:]
        x_first = ops.take(x, first_token, axis=0)
        return x_first, ops.matmul(ops.cast(x_first, dtype), kernel[:, :H]) + bias[:H], kv


class Classifier(layers.Layer):
    """Encoder and head. Its variables lie in the order of the blueprint's."""

    def __init__(self, blueprint: Blueprint, num_outputs: int, precision: str) -> None:
        """Allocate the variables, float32; `load` fills them.

        Args:
            precision: Keras' policy for the products: float32, mixed_bfloat16 or mixed_float16.

        Raises:
            CheckpointError: the encoder has features that this model does not compute.
        """
        super().__init__(dtype="float32")
        check_features(blueprint, f"the backend {keras.backend.backend()}")
        embeddings, head = EmbeddingModules(blueprint), HeadModules(blueprint, num_outputs)
        self.blueprint = blueprint
        self.num_outputs = num_outputs
        self.word = self._table(embeddings.token)
        self.position = self._table(embeddings.position)
        self.token_type = self._table(embeddings.token_type)
        self.embedding_norm = _norm(embeddings.norm)
        self.projection = None if embeddings.projection is None else _dense(precision, embeddings.projection)
        self.blocks = [Layer(blueprint, index, precision) for index in range(blueprint.num_hidden_layers)]
        self.head_dense = _dense(precision, head.dense)
        self.head_output = _dense(precision, head.output)
        self.head_activation = _ACTIVATION[blueprint.head.activation]
        self.built = True

    def _table(self, module: Module | None) -> Any:
        if module is None:
            return None
        return self.add_weight(shape=module.shape, initializer="zeros", name=module.name.replace(".", "_"))

    def call(self, inputs: Mapping[str, Any], masks: DropoutMasks | None) -> Any:
        """Return the logits of a batch, float32 (S, num_outputs).

        Args:
            inputs: `input_ids`, `token_type_ids`, `position_ids` and `sequence_ids`, int32 (R, L); and `first_token`, int32
                (S,), on the flattened R * L axis.
            masks: this step's dropout; None outside training.
        """
        rates, first_token = self.blueprint.dropout, inputs["first_token"]
        x = dropout(self.embedding_norm(self._embed(inputs)), rates.embeddings, masks)
        if self.projection is not None:
            x = ops.cast(self.projection(x), "float32")
        plan = AttentionPlan(inputs["sequence_ids"], first_token.shape[0], self.blueprint.num_attention_heads)
        *lower, last = self.blocks
        for block in lower:
            x = block(x, plan=plan, masks=masks, first_token=None)
        x = last(x, plan=plan, masks=masks, first_token=first_token)
        x = dropout(x, rates.head_input, masks)
        x = dropout(self.head_activation(self.head_dense(x)), rates.head, masks)
        return ops.cast(self.head_output(x), "float32")

    def _embed(self, inputs: Mapping[str, Any]) -> Any:
        """Return the sum of the embeddings, (R * L, E)."""
        names = ("input_ids", "token_type_ids", "position_ids")
        input_ids, token_type_ids, position_ids = (ops.reshape(inputs[name], (-1,)) for name in names)
        x = ops.take(self.word, input_ids, axis=0)
        is_pad = ops.expand_dims(input_ids == self.blueprint.embeddings.pad_token_id, 1)
        x = ops.where(is_pad, ops.stop_gradient(x), x)  # as nn.Embedding(padding_idx) has it
        x += ops.take(self.position, position_ids + self.blueprint.embeddings.first_position, axis=0)
        if self.token_type is not None:
            x += ops.take(self.token_type, token_type_ids, axis=0)
        return x

    def load(self, weights: Weights, seed: int) -> None:
        """Take `weights` by canonical name; what the head lacks is drawn by `seed`."""
        complete = with_head(weights, self.blueprint, self.num_outputs, seed)
        for variable, parameters in zip(self.parameters, self.specification, strict=True):
            arrays = [_as_kernel(complete[parameter.name], parameter) for parameter in parameters]
            variable.assign(np.concatenate(arrays, axis=-1))

    def named(self, arrays: Sequence[Any]) -> Weights:
        """Return arrays in the order of `parameters`, weights or gradients, as canonical name -> float32 array."""
        named: Weights = {}
        for array, parameters in zip(arrays, self.specification, strict=True):
            pieces = np.split(np.asarray(array), len(parameters), axis=-1)
            for parameter, piece in zip(parameters, pieces, strict=True):
                named[parameter.name] = np.array(_as_kernel(piece, parameter), np.float32, order="C")
        return named

    @property
    def specification(self) -> tuple[tuple[Parameter, ...], ...]:
        """The parameters of the blueprint that each of `parameters` holds, one after another along its last axis."""
        return self.blueprint.variables(self.num_outputs)

    @property
    def parameters(self) -> list[Any]:
        """All variables, in the order of `specification`."""
        return [*self.trainable_variables]


def _as_kernel(array: Float32[np.ndarray, "..."], parameter: Parameter) -> Float32[np.ndarray, "..."]:
    """Transpose a matrix, as a view: Keras stores (inputs, outputs), checkpoints (outputs, inputs)."""
    return array.T if parameter.role == "matrix" else array
