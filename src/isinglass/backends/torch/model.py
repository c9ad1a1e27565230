"""BERT-like encoders with a classification head, over packed batches, built from a blueprint.

Shapes: T tokens (R * L in the rows layout), S examples, H hidden size, E embedding size, F feed-forward size. Tokens lie
on one axis in both layouts: only attention and the embeddings' positions know where an example ends.

Two things differ from the textbook, and change no result:
- query, key and value are one product;
- where the head reads the first token of each example, the last block computes nothing for the others but their keys and
  values.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isinglass.backends.torch.batch import AttentionPlan
from isinglass.backends.torch.cpu.linear import Linear, linear
from isinglass.models.blueprint import Blueprint, EmbeddingModules, HeadModules, Module, Parameter, check_features
from isinglass.models.checkpoint import Weights, with_head

if TYPE_CHECKING:
    from isinglass.backends.torch.gpu.triton.layers import FusedLayers

_ACTIVATION: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "linear": lambda x: x,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def _table(module: Module | None) -> nn.Parameter | None:
    return None if module is None else nn.Parameter(torch.empty(module.shape))


def _linear(*products: Module) -> Linear:
    """Return products of the same input as one, whose results lie side by side."""
    outputs, inputs = sum(product.shape[0] for product in products), products[0].shape[1]
    return Linear(inputs, outputs, bias=products[0].bias)


def _norm(module: Module | None) -> nn.LayerNorm:
    assert module is not None, "other encoders have been refused"
    return nn.LayerNorm(module.shape, module.epsilon)


class Layer(nn.Module):
    """One block of two sublayers, attention and feed-forward: each is added to its input, and the sum is normed."""

    def __init__(self, blueprint: Blueprint, index: int) -> None:
        super().__init__()
        block, modules, rates = blueprint.blocks[index], blueprint.block_modules(index), blueprint.dropout
        self.qkv = _linear(modules.query, modules.key, modules.value)
        self.attention_output = _linear(modules.attention_output)
        self.attention_norm = _norm(modules.attention_norm)
        self.intermediate = _linear(modules.intermediate)
        self.output = _linear(modules.output)
        self.output_norm = _norm(modules.output_norm)
        self.activation = _ACTIVATION[block.activation]
        self.attention_rate = rates.attention_weights or 0.0
        self.attention_output_rate = rates.attention_output or 0.0
        self.feed_forward_rate = rates.feed_forward or 0.0

    def forward(self, x: Tensor, plan: AttentionPlan, first_token: Tensor | None) -> Tensor:
        """Map (T, H) to (T, H); or, with `first_token` (S,), to those rows only, (S, H)."""
        if first_token is None:
            context = plan.attend(self.qkv(x), self.attention_rate)
        else:
            x, q_first, kv = self._project_first(x, first_token)
            context = plan.attend_first(q_first, kv, self.attention_rate)
        attended = self.attention_output(context)
        x = self.attention_norm(plan.dropout.add(x, attended, self.attention_output_rate))
        inner = self.intermediate.gelu(x) if self.activation is F.gelu else self.activation(self.intermediate(x))
        fed = self.output(inner)
        out: Tensor = self.output_norm(plan.dropout.add(x, fed, self.feed_forward_rate))
        return out

    def _project_first(self, x: Tensor, first_token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first tokens (S, H), their queries (S, H), and keys and values of all tokens (T, 2 * H)."""
        H = x.shape[1]
        weight, bias = self.qkv.weight, self.qkv.bias
        kv = linear(x, weight[H:], bias[H:])
        x_first = x.index_select(0, first_token)
        return x_first, linear(x_first, weight[:H], bias[:H]), kv


class Classifier(nn.Module):
    """Encoder and head. Its parameters lie in the order of the blueprint's variables, and are named by role."""

    def __init__(self, blueprint: Blueprint, num_outputs: int) -> None:
        """Allocate the parameters; `load` fills them.

        Raises:
            CheckpointError: the encoder has features that this model does not compute.
        """
        super().__init__()
        check_features(blueprint, "the backend torch")
        embeddings, head = EmbeddingModules(blueprint), HeadModules(blueprint, num_outputs)
        self.blueprint = blueprint
        self.num_outputs = num_outputs
        self.fused: FusedLayers | None = None  # runs all layers but the last, if they are to train that way
        self.word = nn.Parameter(torch.empty(embeddings.token.shape))
        self.position = _table(embeddings.position)
        self.token_type = _table(embeddings.token_type)
        self.embedding_norm = _norm(embeddings.norm)
        self.projection = None if embeddings.projection is None else _linear(embeddings.projection)
        self.layers = nn.ModuleList(Layer(blueprint, index) for index in range(blueprint.num_hidden_layers))
        self.head_dense = _linear(head.dense)
        self.head_output = _linear(head.output)
        self.head_activation = _ACTIVATION[blueprint.head.activation]
        self.first_position = blueprint.embeddings.first_position or 0
        self.embedding_rate = blueprint.dropout.embeddings or 0.0
        self.head_input_rate = blueprint.dropout.head_input or 0.0
        self.head_rate = blueprint.dropout.head or 0.0

    def embed(self, words: Tensor, token_type_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Return the sum of the embeddings, (T, E), in fp32.

        It is never compiled, because a compiled scatter of gradients adds in whatever order its threads arrive.

        Args:
            words: (T, E), the tokens' rows of `self.word`. The caller looks them up outside of the graph, because the graph
                would return a gradient of all V rows, zeroed again in each step.
            token_type_ids, position_ids: int64 (T,).
        """
        assert self.position is not None
        x = words + F.embedding(position_ids + self.first_position, self.position)
        return x if self.token_type is None else x + F.embedding(token_type_ids, self.token_type)

    def forward(self, embedded: Tensor, first_token: Tensor, plan: AttentionPlan) -> Tensor:
        """Return the logits (S, num_outputs) of a batch.

        Args:
            embedded: (T, E), what `embed` returned.
            first_token: int64 (S,).
            plan: the batch's attention and dropout.
        """
        dropout = plan.dropout
        x = dropout.apply(self.embedding_norm(embedded), self.embedding_rate)
        if self.projection is not None:
            x = self.projection(x)
        *lower, last = self.layers
        if self.fused is not None:
            x = self.fused(x, plan)
        else:
            for layer in lower:
                x = layer(x, plan, None)
        x = last(x, plan, first_token)
        x = dropout.apply(x, self.head_input_rate)
        x = dropout.apply(self.head_activation(self.head_dense(x)), self.head_rate)
        logits: Tensor = self.head_output(x)
        return logits

    def variables(self) -> Iterator[tuple[nn.Parameter, tuple[Parameter, ...]]]:
        """Yield each parameter with those of the blueprint that it holds, one after another along its first axis."""
        return zip(self.parameters(), self.blueprint.variables(self.num_outputs), strict=True)

    def load(self, weights: Weights, seed: int) -> None:
        """Take `weights` by canonical name; what the head lacks is drawn by `seed`."""
        complete = with_head(weights, self.blueprint, self.num_outputs, seed)
        with torch.no_grad():
            for name, piece in _by_name(self.variables()):
                piece.copy_(torch.from_numpy(np.ascontiguousarray(complete[name])))
        if self.fused is not None:
            self.fused.refresh()

    def weights(self) -> Weights:
        """Return canonical name -> float32 array, copied off the device."""
        return {name: piece.detach().float().cpu().numpy().copy() for name, piece in _by_name(self.variables())}


def _by_name(variables: Iterable[tuple[Tensor, tuple[Parameter, ...]]]) -> Iterator[tuple[str, Tensor]]:
    """Yield canonical name and tensor of each parameter, as views."""
    for variable, parameters in variables:
        pieces = variable.split([parameter.shape[0] for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            assert piece.shape == parameter.shape
            yield parameter.name, piece
