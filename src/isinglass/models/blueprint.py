"""An encoder with a classification head as a value: what it computes, and which parameters it has.

Everything else derives from it: loading and saving, the new head, the trimmed vocabulary, learning rates by depth, weight
decay, frozen blocks, and the models of PyTorch, Keras and ONNX.

Canonical names are those of BERT's checkpoints without the prefix `bert.`; the head is `head.dense` and `head.output` in
every family.

Sizes: V token ids, E embedding size, H hidden size = N heads x D head size, F feed-forward size, L blocks, K outputs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, Literal

from isinglass.errors import CheckpointError

WORD_TABLE: Final = "embeddings.word_embeddings.weight"
HEAD_DENSE: Final = "head.dense"
HEAD_OUTPUT: Final = "head.output"
Role = Literal["matrix", "bias", "norm", "table"]


@dataclass(frozen=True)
class Parameter:
    """One array that training may change.

    Attributes:
        name: canonical.
        role: whether it is the weight of a matrix product, of a norm or of a table, or a bias.
        shape: (outputs, inputs) of a matrix, (rows, columns) of a table, (size,) of a bias or a norm's weight.
        depth: 0 for the embeddings, 1 to L for the blocks from the lowest on, L + 1 for the head.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    depth: int

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: not to biases and norms."""
        return self.role in ("matrix", "table")


@dataclass(frozen=True)
class Module:
    """A matrix product, a norm or a table: a weight, and a bias if it has one.

    Attributes:
        name: canonical, without `.weight` or `.bias`.
        role: of the weight.
        shape: of the weight, as in Parameter.
        epsilon: what a norm adds to the variance.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    depth: int
    bias: bool
    epsilon: float = 0.0

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The weight, and the bias behind it."""
        weight = Parameter(f"{self.name}.weight", self.role, self.shape, self.depth)
        bias = Parameter(f"{self.name}.bias", "bias", self.shape[:1], self.depth)
        return (weight, bias) if self.bias else (weight,)


def _matrix(name: str, outputs: int, inputs: int, depth: int, *, bias: bool) -> Module:
    return Module(name, "matrix", (outputs, inputs), depth, bias)


def _table(name: str, rows: int, columns: int) -> Module:
    return Module(name, "table", (rows, columns), depth=0, bias=False)


def _norm(name: str, norm: "Norm | None", size: int, depth: int) -> Module | None:
    return None if norm is None else Module(name, "norm", (size,), depth, norm.bias, norm.epsilon)


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A normalisation of each token's vector.

    Attributes:
        kind: `layer`: LayerNorm; `rms`: RMSNorm, which subtracts no mean.
        epsilon: added to the variance.
        bias: whether a learned bias is added.
    """

    kind: Literal["layer", "rms"] = "layer"
    epsilon: float
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class Positions:
    """How attention knows the distance between two tokens: here only by the positions that the embeddings add.

    Attributes:
        has_products: whether distances have query and key products of their own, not those of the contents.
    """

    has_products: bool = False

    def tables(self, blueprint: "Blueprint") -> tuple[Module | None, Module | None]:  # noqa: ARG002 - most have none
        """Return what is learned for each distance, which all blocks share, and the norm of its rows."""
        return None, None


@dataclass(frozen=True, kw_only=True)
class Rotary(Positions):
    """Queries and keys are rotated by angles that grow with the position (RoFormer).

    Attributes:
        theta: the base of the angles' periods.
    """

    theta: float


@dataclass(frozen=True, kw_only=True)
class Bucketed(Positions):
    """Each head adds a learned bias for each bucket of distances (T5, MPNet).

    Attributes:
        buckets: of both directions together.
        max_distance: in tokens; longer ones are in the last bucket.
    """

    buckets: int
    max_distance: int

    def tables(self, blueprint: "Blueprint") -> tuple[Module | None, Module | None]:
        """Return the biases, a column for each head."""
        return _table("encoder.relative_attention_bias", self.buckets, blueprint.num_attention_heads), None


@dataclass(frozen=True, kw_only=True)
class Disentangled(Positions):
    """Scores between contents and learned embeddings of distances are added (DeBERTa).

    Attributes:
        buckets: of one direction; the table has twice as many rows.
        max_distance: in tokens; longer ones are in the last bucket.
        content_to_position: whether queries meet the keys of distances.
        position_to_content: whether keys meet the queries of distances.
        norm: of the embeddings of distances.
    """

    buckets: int
    max_distance: int
    content_to_position: bool = True
    position_to_content: bool = True
    norm: Norm | None = None

    def tables(self, blueprint: "Blueprint") -> tuple[Module | None, Module | None]:
        """Return the embeddings of distances, and their norm."""
        H = blueprint.hidden_size
        table = _table("encoder.rel_embeddings", 2 * self.buckets, H)
        return table, _norm("encoder.LayerNorm", self.norm, H, 0)


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """What tokens are before the first block: the sum of up to three embeddings.

    Attributes:
        vocab_size: V.
        size: E; projected to H where the two differ.
        pad_token_id: fills gaps; its embedding gets no gradient.
        first_position: the position id of an example's first token; None: no table of positions.
        token_types: number of token types; 0: no such table.
        norm: of the sum.
        projection_bias: of the projection to H, where there is one.
    """

    vocab_size: int
    size: int
    pad_token_id: int
    first_position: int | None
    token_types: int
    norm: Norm | None
    projection_bias: bool = True


@dataclass(frozen=True, kw_only=True)
class Block:
    """One transformer block: attention, then feed-forward.

    Attributes:
        num_heads: N, of the queries.
        num_key_heads: of keys and values, which several queries share where they are fewer.
        attention_bias: whether the products of attention have biases.
        positions: how distances between tokens count.
        window: the farthest that a token sees, in tokens to either side; None: all of its example.
        inner_size: F.
        activation: of the feed-forward part, a value of ACTIVATIONS in `families/family.py`.
        gated: whether the activated product is multiplied by another one.
        inner_bias: whether the products to F have biases.
        output_bias: whether the product back to H has a bias.
        norm_first: whether a norm stands before each sublayer, and not after the sum of its input and output.
        norm_before_attention: with `norm_first`, false where the first sublayer has none (ModernBERT's first block).
    """

    num_heads: int
    num_key_heads: int
    attention_bias: bool = True
    positions: Positions = Positions()
    window: int | None = None
    inner_size: int
    activation: str
    gated: bool = False
    inner_bias: bool = True
    output_bias: bool = True
    norm: Norm
    norm_first: bool = False
    norm_before_attention: bool = True


@dataclass(frozen=True, kw_only=True)
class Head:
    """What makes K outputs of the pooled vector: dense, activation, norm, output.

    Attributes:
        activation: as in Block, or `linear`: none.
        bias: of the dense product.
        norm: after the activation.
    """

    activation: str
    bias: bool = True
    norm: Norm | None = None


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """The dropout rates of a model; None where the architecture has no dropout.

    Attributes:
        embeddings: of their sum, after the norm.
        attention_weights: of each block.
        attention_output: of each block's first sublayer, before it is added to the sublayer's input.
        feed_forward: of each block's second sublayer, before it is added to the sublayer's input.
        head_input: before the head's dense product.
        head: before the output.
    """

    embeddings: float | None
    attention_weights: float | None
    attention_output: float | None
    feed_forward: float | None
    head_input: float | None
    head: float | None


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """An encoder with a classification head. How many outputs the head has is the task's to say.

    Attributes:
        max_length: the longest example in tokens.
        shared_blocks: whether all blocks have the weights of the first.
        final_norm: after the last block.
        pooling: what the head reads: the first token of an example, or the mean of all.
        initializer_range: standard deviation of a new head's weights.
    """

    hidden_size: int
    max_length: int
    embeddings: Embeddings
    blocks: tuple[Block, ...]
    shared_blocks: bool = False
    final_norm: Norm | None = None
    pooling: Literal["first", "mean"] = "first"
    head: Head
    dropout: Dropout
    initializer_range: float

    @property
    def num_hidden_layers(self) -> int:
        """L."""
        return len(self.blocks)

    @property
    def num_attention_heads(self) -> int:
        """N, the same in all blocks."""
        return self.blocks[0].num_heads

    @property
    def head_size(self) -> int:
        """D."""
        return self.hidden_size // self.num_attention_heads

    def block_modules(self, index: int) -> "BlockModules":
        """Return the modules of a block, counted from 0."""
        return BlockModules(self, 0 if self.shared_blocks else index)

    def modules(self, num_outputs: int) -> Iterator[Module]:
        """Yield all modules from the embeddings to the output, for K outputs."""
        return chain.from_iterable(self._records(num_outputs))

    def variables(self, num_outputs: int) -> tuple[tuple[Parameter, ...], ...]:
        """Return the parameters in the same order, by the arrays that backends store.

        Query, key and value of a block are one array, one after another along the first axis of their shapes. Every other
        parameter is an array by itself.
        """
        groups = [group for record in self._records(num_outputs) for group in record.groups()]
        return tuple(parameters for group in groups for parameters in zip(*(m.parameters for m in group), strict=True))

    def _records(self, num_outputs: int) -> Iterator["Modules"]:
        yield EmbeddingModules(self)
        for index in range(1 if self.shared_blocks else self.num_hidden_layers):
            yield self.block_modules(index)
        yield HeadModules(self, num_outputs)

    def with_dropout(self, rate: float | None) -> "Blueprint":
        """Return the same encoder with `rate` wherever it has dropout; with None, as it is."""
        if rate is None:
            return self
        rates = {name: rate for name, old in vars(self.dropout).items() if old is not None}
        return replace(self, dropout=replace(self.dropout, **rates))

    def features(self) -> list[str]:
        """Return the FEATURES of this encoder."""
        return [name for name, is_present in FEATURES.items() if is_present(self)]


class Modules:
    """Modules by their part in the encoder, in the order of their parameters; None for those that an encoder has not."""

    def __iter__(self) -> Iterator[Module]:
        return (module for module in vars(self).values() if module is not None)

    def groups(self) -> list[tuple[Module, ...]]:
        """Return the modules by the arrays that backends store: most by themselves."""
        return [(module,) for module in self]


class EmbeddingModules(Modules):
    """The modules of depth 0; those of distances serve all blocks."""

    def __init__(self, blueprint: Blueprint) -> None:
        spec, H = blueprint.embeddings, blueprint.hidden_size
        E, P, first, types = spec.size, blueprint.max_length, spec.first_position, spec.token_types
        self.token = _table("embeddings.word_embeddings", spec.vocab_size, E)
        self.position = _table("embeddings.position_embeddings", first + P, E) if first is not None else None
        self.token_type = _table("embeddings.token_type_embeddings", types, E) if types else None
        self.norm = _norm("embeddings.LayerNorm", spec.norm, E, 0)
        self.projection = _matrix("embeddings_project", H, E, 0, bias=spec.projection_bias) if E != H else None
        self.distance, self.distance_norm = blueprint.blocks[0].positions.tables(blueprint)


class BlockModules(Modules):
    """The modules of a block, counted from 0."""

    def __init__(self, blueprint: Blueprint, index: int) -> None:
        block, at, depth, H = blueprint.blocks[index], f"encoder.layer.{index}", index + 1, blueprint.hidden_size
        F, has_products, has_norm = block.inner_size, block.positions.has_products, block.norm_before_attention

        def attend(name: str, outputs: int = H) -> Module:
            return _matrix(f"{at}.attention.{name}", outputs, H, depth, bias=block.attention_bias)

        def feed(name: str) -> Module:
            return _matrix(f"{at}.{name}", F, H, depth, bias=block.inner_bias)

        key_size = block.num_key_heads * blueprint.head_size
        self.query = attend("self.query")
        self.key = attend("self.key", key_size)
        self.value = attend("self.value", key_size)
        self.distance_key = attend("self.pos_key_proj") if has_products else None
        self.distance_query = attend("self.pos_query_proj") if has_products else None
        self.attention_output = attend("output.dense")
        self.attention_norm = _norm(f"{at}.attention.output.LayerNorm", block.norm, H, depth) if has_norm else None
        self.intermediate = feed("intermediate.dense")
        self.gate = feed("intermediate.gate") if block.gated else None
        self.output = _matrix(f"{at}.output.dense", H, F, depth, bias=block.output_bias)
        self.output_norm = _norm(f"{at}.output.LayerNorm", block.norm, H, depth)

    def groups(self) -> list[tuple[Module, ...]]:
        """Return query, key and value as one, and the others by themselves."""
        query, key, value, *others = self
        return [(query, key, value), *((module,) for module in others)]


class HeadModules(Modules):
    """The modules after the blocks, for K outputs."""

    def __init__(self, blueprint: Blueprint, num_outputs: int) -> None:
        H, L, head = blueprint.hidden_size, blueprint.num_hidden_layers, blueprint.head
        self.final_norm = _norm("encoder.final_norm", blueprint.final_norm, H, L)
        self.dense = _matrix(HEAD_DENSE, H, H, L + 1, bias=head.bias)
        self.norm = _norm("head.LayerNorm", head.norm, H, L + 1)
        self.output = _matrix(HEAD_OUTPUT, num_outputs, H, L + 1, bias=True)


def _norms(encoder: Blueprint) -> Iterator[Norm]:
    norms = (encoder.embeddings.norm, encoder.final_norm, encoder.head.norm, *(block.norm for block in encoder.blocks))
    return filter(None, norms)


def _has_positions(encoder: Blueprint, kind: type[Positions]) -> bool:
    return any(isinstance(block.positions, kind) for block in encoder.blocks)


FEATURES: Final[Mapping[str, Callable[[Blueprint], bool]]] = {
    "norms before the sublayers": lambda encoder: any(block.norm_first for block in encoder.blocks),
    "RMSNorm": lambda encoder: any(norm.kind == "rms" for norm in _norms(encoder)),
    "norms without biases": lambda encoder: not all(norm.bias for norm in _norms(encoder)),
    "embeddings without a norm": lambda encoder: encoder.embeddings.norm is None,
    "a norm after the last block": lambda encoder: encoder.final_norm is not None,
    "a norm in the head": lambda encoder: encoder.head.norm is not None,
    "matrix products without biases": lambda encoder: any(m.role == "matrix" and not m.bias for m in encoder.modules(1)),
    "gated feed-forward layers": lambda encoder: any(block.gated for block in encoder.blocks),
    "fewer key heads than query heads": lambda encoder: any(b.num_key_heads != b.num_heads for b in encoder.blocks),
    "embeddings without positions": lambda encoder: encoder.embeddings.first_position is None,
    "rotary positions": lambda encoder: _has_positions(encoder, Rotary),
    "bucketed relative positions": lambda encoder: _has_positions(encoder, Bucketed),
    "disentangled attention": lambda encoder: _has_positions(encoder, Disentangled),
    "attention within a window": lambda encoder: any(block.window is not None for block in encoder.blocks),
    "mean pooling": lambda encoder: encoder.pooling == "mean",
    "blocks that share their weights": lambda encoder: encoder.shared_blocks,
}
"""What some encoder has and BERT has not -> whether an encoder has it."""


def check_features(blueprint: Blueprint, engine: str, *computed: str) -> None:
    """Refuse an encoder that `engine` would compute wrongly.

    Args:
        computed: the FEATURES that the engine computes.

    Raises:
        CheckpointError: the encoder has other features.
    """
    missing = [feature for feature in blueprint.features() if feature not in computed]
    if missing:
        named = " and ".join(", ".join(missing).rsplit(", ", 1))
        raise CheckpointError(f"The model has {named}, which {engine} does not compute: choose another model.")
