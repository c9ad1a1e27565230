"""BERT-like encoders with a classification head, over packed batches.

Shapes: T tokens (R * L in the rows layout), S examples, H hidden size, E embedding size, F intermediate size. Tokens lie
on one axis in both layouts: only attention and the embeddings' positions know where an example ends.

What differs from the textbook, exactly and without another result:
- query, key and value are one product;
- in the last layer only the first token of each example goes on: its query, output projection and feed-forward part.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isinglass.backends.torch.cpu.attention import Plan, first_token_attention, self_attention
from isinglass.backends.torch.cpu.dropout import Dropout, KernelDropout, add_dropped_out, dropout
from isinglass.backends.torch.cpu.linear import Linear, linear
from isinglass.backends.torch.gpu.attention import TritonPlan
from isinglass.backends.torch.gpu.fused_layers import FusedLayers
from isinglass.models.checkpoint import Weights
from isinglass.models.encoder_config import ACTIVATIONS, EncoderConfig
from isinglass.models.head import with_head

_ACTIVATION: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}
_QKV: Final = ("query", "key", "value")


class Layer(nn.Module):
    """One block: attention and feed-forward part, each with a residual and a LayerNorm after it."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        H = config.hidden_size
        self.qkv = Linear(H, 3 * H)
        self.attention_output = Linear(H, H)
        self.attention_norm = nn.LayerNorm(H, config.layer_norm_eps)
        self.intermediate = Linear(H, config.intermediate_size)
        self.output = Linear(config.intermediate_size, H)
        self.output_norm = nn.LayerNorm(H, config.layer_norm_eps)
        self.activation = _ACTIVATION[ACTIVATIONS[config.hidden_act]]
        self.attention_rate = config.attention_probs_dropout_prob
        self.rate = config.hidden_dropout_prob
        self.attention_output_rate = self.rate if config.family.attention_output_dropout else 0.0

    def forward(self, x: Tensor, plan: Plan, masks: Dropout | None, first_token: Tensor | None) -> Tensor:
        """(T, H) to (T, H); or, with `first_token` (S,), only those rows: (T, H) to (S, H)."""
        if first_token is None:
            context = self_attention(self.qkv(x), plan, self.attention_rate, masks)
        else:
            H = x.shape[1]
            weight, bias = self.qkv.weight, self.qkv.bias
            kv = linear(x, weight[H:], bias[H:])
            x = x.index_select(0, first_token)
            q_first = linear(x, weight[:H], bias[:H])
            context = first_token_attention(q_first, kv, plan, self.attention_rate, masks)
        attended = self.attention_output(context)
        x = self.attention_norm(add_dropped_out(x, attended, self.attention_output_rate, masks))
        inner = self.intermediate.gelu(x) if self.activation is F.gelu else self.activation(self.intermediate(x))
        fed = self.output(inner)
        out: Tensor = self.output_norm(add_dropped_out(x, fed, self.rate, masks))
        return out


class Classifier(nn.Module):
    """Encoder and head. Parameters are named by role; `load` and `weights` translate to canonical names."""

    def __init__(self, config: EncoderConfig, num_outputs: int) -> None:
        super().__init__()
        E, H = config.embedding_size, config.hidden_size
        self.config = config
        self.fused: FusedLayers | None = None  # all layers but the last, if they are to train that way
        self.word = nn.Parameter(torch.empty(config.vocab_size, E))
        self.position = nn.Parameter(torch.empty(config.max_position_embeddings, E))
        self.token_type = nn.Parameter(torch.empty(config.type_vocab_size, E)) if config.type_vocab_size else None
        self.embedding_norm = nn.LayerNorm(E, config.layer_norm_eps)
        self.projection = Linear(E, H) if E != H else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.head_dense = Linear(H, H)
        self.head_output = Linear(H, num_outputs)
        self.head_activation = _ACTIVATION[config.family.head_activation]

    def embed(self, words: Tensor, token_type_ids: Tensor, position_ids: Tensor) -> Tensor:
        """The sum of the three embeddings, (T, E), in fp32: never compiled, because a compiled scatter of gradients adds in
        whatever order its threads arrive.

        Args:
            words: (T, E), the tokens' rows of `self.word`. The caller looks them up, outside of the graph, because the
                graph would answer with a gradient of all `vocab_size` rows, zeroed anew in each step.
            token_type_ids, position_ids: int64 (T,).
        """
        x = words + F.embedding(position_ids + self.config.position_offset, self.position)
        return x if self.token_type is None else x + F.embedding(token_type_ids, self.token_type)

    def forward(self, embedded: Tensor, first_token: Tensor, plan: Plan, masks: Dropout | None) -> Tensor:
        """Logits (S, num_outputs) of the examples whose tokens are given.

        Args:
            embedded: (T, E), what `embed` returned.
            first_token: int64 (S,).
            plan: the batch's attention.
            masks: this step's dropout; None outside training.
        """
        config = self.config
        x = dropout(self.embedding_norm(embedded), config.hidden_dropout_prob, masks)
        if self.projection is not None:
            x = self.projection(x)
        last = len(self.layers) - 1
        if self.fused is not None and isinstance(plan, TritonPlan) and isinstance(masks, KernelDropout):
            x = self.fused(x, plan, masks)
        else:
            for layer in self.layers[:last]:
                x = layer(x, plan, masks, None)
        x = self.layers[last](x, plan, masks, first_token)
        if config.family.head_dropout_before_dense:
            x = dropout(x, config.classifier_dropout, masks)
        x = dropout(self.head_activation(self.head_dense(x)), config.classifier_dropout, masks)
        logits: Tensor = self.head_output(x)
        return logits

    def load(self, weights: Weights, seed: int) -> None:
        """Take `weights` (canonical names); what the head lacks is new, drawn by `seed`."""
        complete = with_head(weights, self.config, self.head_output.out_features, seed)
        with torch.no_grad():
            for name, parameters in self._by_canonical_name().items():
                for part, parameter in parameters.items():
                    parameter.copy_(torch.from_numpy(np.ascontiguousarray(complete[f"{name}.{part}"])))
        if self.fused is not None:
            self.fused.refresh()

    def depths(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Each parameter and how deep it lies: 0 for the embeddings, then the layers from 1 on, then the head."""
        for name, parameter in self.named_parameters():
            part, _, rest = name.partition(".")
            if part == "layers":
                yield parameter, int(rest.split(".")[0]) + 1
            else:
                yield parameter, len(self.layers) + 1 if part.startswith("head_") else 0

    def weights(self) -> Weights:
        """Canonical name -> float32 array, copied off the device."""
        return {
            f"{name}.{part}": parameter.detach().float().cpu().numpy().copy()
            for name, parameters in self._by_canonical_name().items()
            for part, parameter in parameters.items()
        }

    def gradients(self) -> Weights:
        """Canonical name -> float32 gradient of the last backward pass."""
        found: Weights = {}
        for name, parameters in self._by_canonical_name(of_gradients=True).items():
            for part, gradient in parameters.items():
                found[f"{name}.{part}"] = gradient.detach().float().cpu().numpy().copy()
        return found

    def _by_canonical_name(self, *, of_gradients: bool = False) -> dict[str, dict[str, Tensor]]:
        """Module name -> weight and bias; query, key and value as views of the fused parameter (or its gradient)."""

        def read(parameter: Tensor) -> Tensor:
            if not of_gradients:
                return parameter
            return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

        def both(module: nn.Module) -> dict[str, Tensor]:
            return {part: read(getattr(module, part)) for part in ("weight", "bias")}

        names = {
            "embeddings.word_embeddings": {"weight": read(self.word)},
            "embeddings.position_embeddings": {"weight": read(self.position)},
            "embeddings.LayerNorm": both(self.embedding_norm),
            "head.dense": both(self.head_dense),
            "head.output": both(self.head_output),
        }
        if self.token_type is not None:
            names["embeddings.token_type_embeddings"] = {"weight": read(self.token_type)}
        if self.projection is not None:
            names["embeddings_project"] = both(self.projection)
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            at = f"encoder.layer.{i}"
            fused = both(layer.qkv)
            for j, role in enumerate(_QKV):
                names[f"{at}.attention.self.{role}"] = {part: t.chunk(3)[j] for part, t in fused.items()}
            names[f"{at}.attention.output.dense"] = both(layer.attention_output)
            names[f"{at}.attention.output.LayerNorm"] = both(layer.attention_norm)
            names[f"{at}.intermediate.dense"] = both(layer.intermediate)
            names[f"{at}.output.dense"] = both(layer.output)
            names[f"{at}.output.LayerNorm"] = both(layer.output_norm)
        return names
