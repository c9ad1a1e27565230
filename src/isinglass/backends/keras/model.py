"""BERT-like encoders with a classification head, over packed batches in the `rows` layout, in Keras layers.

Shapes: R rows of L places, S examples, H hidden size, E embedding size, F intermediate size. Tokens lie on one axis of
R * L: only attention knows where an example ends. The differences from the textbook are those of the PyTorch model:
query, key and value are one product, and in the last layer only the first token of each example goes on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import keras
import numpy as np
from keras import layers, ops

from isinglass.backends.keras.attention import RowsPlan, first_token_attention, plan_attention, self_attention
from isinglass.backends.keras.dropout import DropoutMasks, add_dropped_out, dropout
from isinglass.models.checkpoint import Weights
from isinglass.models.encoder_config import ACTIVATIONS, EncoderConfig
from isinglass.models.head import with_head


def _gelu(x: Any) -> Any:
    """GELU, of any shape and float dtype, float32 inside. Keras takes `erfc`, which TensorFlow computes number by number."""
    wide = ops.cast(x, "float32")
    return ops.cast(0.5 * wide * (1 + ops.erf(wide * math.sqrt(0.5))), x.dtype)


_ACTIVATION: Final[Mapping[str, Callable[[Any], Any]]] = {
    "gelu": _gelu,
    "gelu_tanh": lambda x: keras.activations.gelu(x, approximate=True),
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
    "tanh": keras.activations.tanh,
}
_QKV: Final = ("query", "key", "value")


def _norm(config: EncoderConfig, size: int) -> layers.LayerNormalization:
    norm = layers.LayerNormalization(epsilon=config.layer_norm_eps, dtype="float32")
    norm.build((None, size))
    return norm


def _dense(inputs: int, outputs: int, precision: str) -> layers.Dense:
    dense = layers.Dense(outputs, dtype=precision)
    dense.build((None, inputs))
    return dense


class Layer(layers.Layer):
    """One block: attention and feed-forward part, each with a residual and a LayerNorm after it."""

    def __init__(self, config: EncoderConfig, precision: str) -> None:
        super().__init__(dtype="float32")
        H, F = config.hidden_size, config.intermediate_size
        self.qkv = _dense(H, 3 * H, precision)
        self.attention_output = _dense(H, H, precision)
        self.attention_norm = _norm(config, H)
        self.intermediate = _dense(H, F, precision)
        self.feed_forward_output = _dense(F, H, precision)
        self.output_norm = _norm(config, H)
        self.activation = _ACTIVATION[ACTIVATIONS[config.hidden_act]]
        self.attention_rate = config.attention_probs_dropout_prob
        self.rate = config.hidden_dropout_prob
        self.attention_output_rate = self.rate if config.family.attention_output_dropout else 0.0

    def call(self, x: Any, plan: RowsPlan, masks: DropoutMasks | None, first_token: Any | None) -> Any:
        """(R * L, H) to (R * L, H); or, with `first_token` (S,), only those rows: (R * L, H) to (S, H)."""
        if first_token is None:
            context = self_attention(self.qkv(x), plan, self.attention_rate, masks)
        else:
            H, computed = x.shape[1], self.qkv.compute_dtype
            kernel, bias = ops.cast(self.qkv.kernel, computed), ops.cast(self.qkv.bias, computed)
            kv = ops.matmul(ops.cast(x, computed), kernel[:, H:]) + bias[H:]
            x = ops.take(x, first_token, axis=0)
            q_first = ops.matmul(ops.cast(x, computed), kernel[:, :H]) + bias[:H]
            context = first_token_attention(q_first, kv, plan, self.attention_rate, masks)
        attended = self.attention_output(context)
        x = self.attention_norm(add_dropped_out(x, attended, self.attention_output_rate, masks))
        fed = self.feed_forward_output(self.activation(self.intermediate(x)))
        return self.output_norm(add_dropped_out(x, fed, self.rate, masks))


class Classifier(layers.Layer):
    """Encoder and head. Variables are named by role; `load` and `weights` translate to canonical names."""

    def __init__(self, config: EncoderConfig, num_outputs: int, precision: str) -> None:
        """Weights are float32; `precision` is the Keras policy of the products: float32, mixed_bfloat16 or mixed_float16."""
        super().__init__(dtype="float32")
        E, H = config.embedding_size, config.hidden_size
        self.config = config
        self.word = self.add_weight(shape=(config.vocab_size, E), initializer="zeros", name="word")
        self.position = self.add_weight(shape=(config.max_position_embeddings, E), initializer="zeros", name="position")
        self.token_type = None
        if config.type_vocab_size:
            self.token_type = self.add_weight(shape=(config.type_vocab_size, E), initializer="zeros", name="token_type")
        self.embedding_norm = _norm(config, E)
        self.projection = _dense(E, H, precision) if E != H else None
        self.blocks = [Layer(config, precision) for _ in range(config.num_hidden_layers)]
        self.head_dense = _dense(H, H, precision)
        self.head_output = _dense(H, num_outputs, precision)
        self.head_activation = _ACTIVATION[config.family.head_activation]
        self.built = True

    def call(
        self,
        input_ids: Any,
        token_type_ids: Any,
        position_ids: Any,
        sequence_ids: Any,
        first_token: Any,
        masks: DropoutMasks | None,
    ) -> Any:
        """Logits, float32 (S, num_outputs), of the examples of a batch.

        Args:
            input_ids, token_type_ids, position_ids, sequence_ids: int32 (R, L).
            first_token: int32 (S,), on the flattened R * L axis.
            masks: this step's dropout; None outside training.
        """
        config = self.config
        ids = ops.reshape(input_ids, (-1,))
        x = ops.take(self.word, ids, axis=0)
        is_pad = ops.expand_dims(ids == config.pad_token_id, 1)
        x = ops.where(is_pad, ops.stop_gradient(x), x)  # as nn.Embedding(padding_idx) has it
        x += ops.take(self.position, ops.reshape(position_ids, (-1,)) + config.position_offset, axis=0)
        if self.token_type is not None:
            x += ops.take(self.token_type, ops.reshape(token_type_ids, (-1,)), axis=0)
        x = dropout(self.embedding_norm(x), config.hidden_dropout_prob, masks)
        if self.projection is not None:
            x = ops.cast(self.projection(x), "float32")
        plan = plan_attention(sequence_ids, first_token.shape[0], config.num_attention_heads)
        for i, block in enumerate(self.blocks):
            x = block(x, plan=plan, masks=masks, first_token=first_token if i == len(self.blocks) - 1 else None)
        if config.family.head_dropout_before_dense:
            x = dropout(x, config.classifier_dropout, masks)
        x = dropout(self.head_activation(self.head_dense(x)), config.classifier_dropout, masks)
        return ops.cast(self.head_output(x), "float32")

    def load(self, weights: Weights, seed: int) -> None:
        """Take `weights` (canonical names); what the head lacks is new, drawn by `seed`."""
        complete = with_head(weights, self.config, self.head_output.units, seed)
        for variable, names in self._parameters():
            pieces = [complete[name] for name in names]
            variable.assign(np.concatenate([piece.T if _is_kernel(names[0]) else piece for piece in pieces], axis=-1))

    def named(self, arrays: Sequence[Any]) -> Weights:
        """Arrays in the order of `parameters`, weights or gradients, as canonical name -> float32 array."""
        found: Weights = {}
        for array, (_, names) in zip(arrays, self._parameters(), strict=True):
            for name, piece in zip(names, np.split(np.asarray(array), len(names), axis=-1), strict=True):
                found[name] = np.array(piece.T if _is_kernel(name) else piece, np.float32, order="C")
        return found

    @property
    def parameters(self) -> list[Any]:
        """All variables, in the order of `named`."""
        return [variable for variable, _ in self._parameters()]

    @property
    def depths(self) -> list[int]:
        """How deep each of `parameters` lies: 0 for the embeddings, then the layers from 1 on, then the head."""
        found = []
        for _, (name, *_) in self._parameters():
            layer = name.removeprefix("encoder.layer.")
            if layer != name:
                found.append(int(layer.split(".")[0]) + 1)
            else:
                found.append(len(self.blocks) + 1 if name.startswith("head.") else 0)
        return found

    def _parameters(self) -> list[tuple[Any, tuple[str, ...]]]:
        """Every variable with its canonical names: three side by side for query, key and value, else one."""
        found: list[tuple[Any, tuple[str, ...]]] = [
            (self.word, ("embeddings.word_embeddings.weight",)),
            (self.position, ("embeddings.position_embeddings.weight",)),
        ]
        if self.token_type is not None:
            found.append((self.token_type, ("embeddings.token_type_embeddings.weight",)))

        def add(module: Any, *names: str) -> None:
            weight, bias = (module.kernel, module.bias) if isinstance(module, layers.Dense) else (module.gamma, module.beta)
            found.append((weight, tuple(f"{name}.weight" for name in names)))
            found.append((bias, tuple(f"{name}.bias" for name in names)))

        add(self.embedding_norm, "embeddings.LayerNorm")
        if self.projection is not None:
            add(self.projection, "embeddings_project")
        for i, block in enumerate(self.blocks):
            at = f"encoder.layer.{i}"
            add(block.qkv, *(f"{at}.attention.self.{role}" for role in _QKV))
            add(block.attention_output, f"{at}.attention.output.dense")
            add(block.attention_norm, f"{at}.attention.output.LayerNorm")
            add(block.intermediate, f"{at}.intermediate.dense")
            add(block.feed_forward_output, f"{at}.output.dense")
            add(block.output_norm, f"{at}.output.LayerNorm")
        add(self.head_dense, "head.dense")
        add(self.head_output, "head.output")
        return found


def _is_kernel(name: str) -> bool:
    """Whether a weight is a Dense layer's, which Keras keeps as (inputs, outputs) and checkpoints the other way round."""
    return name.endswith(".weight") and "LayerNorm" not in name and not name.startswith("embeddings.")
