"""An encoder with a classification head as a value: what it computes, and which parameters it has.

Everything else derives from it: loading and saving, the new head, the trimmed vocabulary, learning rates by depth, weight
decay, frozen blocks, and the models of PyTorch, Keras and ONNX.

Canonical names are those of BERT's checkpoints without the prefix `bert.`; the head is `head.dense` and `head.output` in
every family.

Sizes: V token ids, E embedding size, H hidden size = N heads x D head size, F feed-forward size, L blocks, K outputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar, Final, Literal

from isinglass.errors import CheckpointError

HEAD_DENSE: Final = "head.dense"
HEAD_OUTPUT: Final = "head.output"
Role = Literal["matrix", "bias", "norm", "table"]


class Feature(StrEnum):
    """What some encoder has and BERT has not. A backend names those that it computes."""

    NORM_BEFORE = "norms before the sublayers"
    RMS_NORM = "RMSNorm"
    NORM_WITHOUT_BIAS = "norms without biases"
    NO_EMBEDDING_NORM = "embeddings without a norm"
    FINAL_NORM = "a norm after the last block"
    HEAD_NORM = "a norm in the head"
    PRODUCT_WITHOUT_BIAS = "matrix products without biases"
    GATED = "gated feed-forward layers"
    GROUPED_QUERIES = "fewer key heads than query heads"
    NO_POSITION_TABLE = "embeddings without positions"
    ROTARY = "rotary positions"
    BUCKETED = "bucketed relative positions"
    DISENTANGLED = "disentangled attention"
    WINDOW = "attention within a window"
    MEAN_POOLING = "mean pooling"
    SHARED_BLOCKS = "blocks that share their weights"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One array that training may change.

    Attributes:
        name: canonical.
        shape: (outputs, inputs) of a matrix, (rows, columns) of a table, (size,) of a bias or a norm's weight.
        depth: 0 for the embeddings, 1 to L for the blocks from the lowest on, L + 1 for the head.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    depth: int

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: not to biases and norms."""
        return self.role in ("matrix", "table")


@dataclass(frozen=True, kw_only=True)
class Module:
    """A matrix product, a norm or a table: a weight, and a bias if it has one.

    Attributes:
        name: canonical, without `.weight` or `.bias`.
        role: of the weight.
        shape: of the weight, as in Parameter.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    bias: bool
    depth: int

    @property
    def weight(self) -> Parameter:
        """The weight."""
        return Parameter(name=f"{self.name}.weight", shape=self.shape, role=self.role, depth=self.depth)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The weight, and the bias behind it."""
        if not self.bias:
            return (self.weight,)
        return self.weight, Parameter(name=f"{self.name}.bias", shape=self.shape[:1], role="bias", depth=self.depth)


def _matrix(name: str, outputs: int, inputs: int, depth: int, *, bias: bool) -> Module:
    return Module(name=name, role="matrix", shape=(outputs, inputs), bias=bias, depth=depth)


def _table(name: str, rows: int, columns: int) -> Module:
    return Module(name=name, role="table", shape=(rows, columns), bias=False, depth=0)


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


def _norm(name: str, norm: Norm | None, size: int, depth: int) -> Module | None:
    if norm is None:
        return None
    return Module(name=name, role="norm", shape=(size,), bias=norm.bias, depth=depth)


class Positions:
    """How attention knows the distance between two tokens. All blocks share what is learned for it."""

    feature: ClassVar[Feature | None] = None
    has_products: ClassVar[bool] = False

    def table(self, blueprint: "Blueprint") -> Module | None:  # noqa: ARG002 - most have none
        """Return what is learned for each distance."""
        return None

    def table_norm(self, blueprint: "Blueprint") -> Module | None:  # noqa: ARG002 - most have none
        """Return the norm of the table's rows."""
        return None


@dataclass(frozen=True, kw_only=True)
class Absolute(Positions):
    """Attention itself knows no positions: those that the embeddings add are all."""


@dataclass(frozen=True, kw_only=True)
class Rotary(Positions):
    """Queries and keys are rotated by angles that grow with the position (RoFormer).

    Attributes:
        theta: the base of the angles' periods.
    """

    feature = Feature.ROTARY
    theta: float


@dataclass(frozen=True, kw_only=True)
class Bucketed(Positions):
    """Each head adds a learned bias for each bucket of distances (T5, MPNet).

    Attributes:
        buckets: of both directions together.
        max_distance: in tokens; longer ones are in the last bucket.
    """

    feature = Feature.BUCKETED
    buckets: int
    max_distance: int

    def table(self, blueprint: "Blueprint") -> Module | None:
        """Return the biases, a column for each head."""
        return _table("encoder.relative_attention_bias", self.buckets, blueprint.num_attention_heads)


@dataclass(frozen=True, kw_only=True)
class Disentangled(Positions):
    """Scores between contents and learned embeddings of distances are added (DeBERTa).

    Attributes:
        buckets: of one direction; the table has twice as many rows.
        max_distance: in tokens; longer ones are in the last bucket.
        content_to_position: whether queries meet the keys of distances.
        position_to_content: whether keys meet the queries of distances.
        has_products: whether distances have query and key products of their own, not those of the contents.
        norm: of the embeddings of distances.
    """

    feature = Feature.DISENTANGLED
    buckets: int
    max_distance: int
    content_to_position: bool = True
    position_to_content: bool = True
    has_products: bool = False  # type: ignore[misc] # a constant of the others
    norm: Norm | None = None

    def table(self, blueprint: "Blueprint") -> Module | None:
        """Return the embeddings of distances."""
        return _table("encoder.rel_embeddings", 2 * self.buckets, blueprint.hidden_size)

    def table_norm(self, blueprint: "Blueprint") -> Module | None:
        """Return the norm of the embeddings of distances."""
        return _norm("encoder.LayerNorm", self.norm, blueprint.hidden_size, 0)


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
class Attention:
    """The first sublayer of a block.

    Attributes:
        num_heads: N, of the queries.
        num_key_heads: of keys and values, which several queries share where they are fewer.
        bias: whether the products have biases.
        positions: how distances between tokens count.
        window: the farthest that a token sees, in tokens to either side; None: all of its example.
    """

    num_heads: int
    num_key_heads: int
    bias: bool = True
    positions: Positions = Absolute()
    window: int | None = None


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """The second sublayer of a block.

    Attributes:
        size: F.
        activation: a value of ACTIVATIONS in `families/family.py`.
        gated: whether the activated product is multiplied by another one.
        bias: whether the products to F have biases.
        output_bias: whether the product back to H has a bias.
    """

    size: int
    activation: str
    gated: bool = False
    bias: bool = True
    output_bias: bool = True


@dataclass(frozen=True, kw_only=True)
class Block:
    """One transformer block.

    Attributes:
        norm_first: whether a norm stands before each sublayer, and not after the sum of its input and output.
        norm_before_attention: with `norm_first`, false where the first sublayer has none (ModernBERT's first block).
    """

    attention: Attention
    feed_forward: FeedForward
    norm: Norm
    norm_first: bool = False
    norm_before_attention: bool = True


@dataclass(frozen=True, kw_only=True)
class Head:
    """What makes K outputs of the pooled vector: dense, activation, norm, output.

    Attributes:
        activation: as in FeedForward.
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
        distances: of the embeddings of distances, drawn anew in each block.
        head_input: before the head's dense product.
        head: before the output.
    """

    embeddings: float | None
    attention_weights: float | None
    attention_output: float | None
    feed_forward: float | None
    distances: float | None = None
    head_input: float | None
    head: float | None

    def at(self, rate: float) -> "Dropout":
        """Return `rate` wherever there is dropout."""
        return Dropout(**{name: None if old is None else rate for name, old in vars(self).items()})


class _Modules:
    """A record of modules in the order of their parameters; None for those that an encoder has not."""

    def __iter__(self) -> Iterator[Module]:
        return (module for module in vars(self).values() if module is not None)

    def groups(self) -> Iterator[tuple[Module, ...]]:
        """Yield the modules by the arrays that backends store: most by themselves."""
        return ((module,) for module in self)


@dataclass(frozen=True, kw_only=True)
class EmbeddingModules(_Modules):
    """The modules of depth 0; those of distances serve all blocks."""

    token: Module
    position: Module | None
    token_type: Module | None
    norm: Module | None
    projection: Module | None
    distance: Module | None
    distance_norm: Module | None


@dataclass(frozen=True, kw_only=True)
class BlockModules(_Modules):
    """The modules of one block."""

    query: Module
    key: Module
    value: Module
    distance_key: Module | None
    distance_query: Module | None
    attention_output: Module
    attention_norm: Module | None
    intermediate: Module
    gate: Module | None
    output: Module
    output_norm: Module | None

    def groups(self) -> Iterator[tuple[Module, ...]]:
        """Yield query, key and value as one, and the others by themselves."""
        query, key, value, *others = self
        yield query, key, value
        yield from ((module,) for module in others)


@dataclass(frozen=True, kw_only=True)
class HeadModules(_Modules):
    """The modules after the blocks."""

    final_norm: Module | None
    dense: Module
    norm: Module | None
    output: Module


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
    def vocab_size(self) -> int:
        """V."""
        return self.embeddings.vocab_size

    @property
    def pad_token_id(self) -> int:
        """The token id that fills gaps."""
        return self.embeddings.pad_token_id

    @property
    def token_table(self) -> str:
        """Canonical name of the embeddings of token ids, (V, E)."""
        return self.embedding_modules().token.weight.name

    @property
    def num_hidden_layers(self) -> int:
        """L."""
        return len(self.blocks)

    @property
    def num_attention_heads(self) -> int:
        """N, the same in all blocks."""
        return self.blocks[0].attention.num_heads

    @property
    def head_size(self) -> int:
        """D."""
        return self.hidden_size // self.num_attention_heads

    def embedding_modules(self) -> EmbeddingModules:
        """Return the modules of the embeddings."""
        spec, E, H = self.embeddings, self.embeddings.size, self.hidden_size
        positions = self.blocks[0].attention.positions
        position = token_type = projection = None
        if spec.first_position is not None:
            position = _table("embeddings.position_embeddings", spec.first_position + self.max_length, E)
        if spec.token_types:
            token_type = _table("embeddings.token_type_embeddings", spec.token_types, E)
        if E != H:
            projection = _matrix("embeddings_project", H, E, 0, bias=spec.projection_bias)
        return EmbeddingModules(
            token=_table("embeddings.word_embeddings", spec.vocab_size, E),
            position=position,
            token_type=token_type,
            norm=_norm("embeddings.LayerNorm", spec.norm, E, 0),
            projection=projection,
            distance=positions.table(self),
            distance_norm=positions.table_norm(self),
        )

    def block_modules(self, index: int) -> BlockModules:
        """Return the modules of a block, counted from 0."""
        index = 0 if self.shared_blocks else index
        block, at, depth, H = self.blocks[index], f"encoder.layer.{index}", index + 1, self.hidden_size
        attention, F = block.attention, block.feed_forward.size
        key_size = attention.num_key_heads * self.head_size
        has_norm, has_gate, has_products = (
            block.norm_before_attention,
            block.feed_forward.gated,
            attention.positions.has_products,
        )

        def attend(name: str, outputs: int = H) -> Module:
            return _matrix(f"{at}.attention.{name}", outputs, H, depth, bias=attention.bias)

        def feed(name: str) -> Module:
            return _matrix(f"{at}.{name}", F, H, depth, bias=block.feed_forward.bias)

        return BlockModules(
            query=attend("self.query"),
            key=attend("self.key", key_size),
            value=attend("self.value", key_size),
            distance_key=attend("self.pos_key_proj") if has_products else None,
            distance_query=attend("self.pos_query_proj") if has_products else None,
            attention_output=attend("output.dense"),
            attention_norm=_norm(f"{at}.attention.output.LayerNorm", block.norm, H, depth) if has_norm else None,
            intermediate=feed("intermediate.dense"),
            gate=feed("intermediate.gate") if has_gate else None,
            output=_matrix(f"{at}.output.dense", H, F, depth, bias=block.feed_forward.output_bias),
            output_norm=_norm(f"{at}.output.LayerNorm", block.norm, H, depth),
        )

    def head_modules(self, num_outputs: int) -> HeadModules:
        """Return the modules after the blocks, for K outputs."""
        H, L = self.hidden_size, self.num_hidden_layers
        return HeadModules(
            final_norm=_norm("encoder.final_norm", self.final_norm, H, L),
            dense=_matrix(HEAD_DENSE, H, H, L + 1, bias=self.head.bias),
            norm=_norm("head.LayerNorm", self.head.norm, H, L + 1),
            output=_matrix(HEAD_OUTPUT, num_outputs, H, L + 1, bias=True),
        )

    def modules(self, num_outputs: int) -> Iterator[Module]:
        """Yield all modules from the embeddings to the output, for K outputs."""
        for record in self._records(num_outputs):
            yield from record

    def parameters(self, num_outputs: int) -> tuple[Parameter, ...]:
        """Return all parameters from the embeddings to the output, for K outputs."""
        return tuple(parameter for module in self.modules(num_outputs) for parameter in module.parameters)

    def variables(self, num_outputs: int) -> tuple[tuple[Parameter, ...], ...]:
        """Return the parameters in the same order, by the arrays that backends store.

        Query, key and value of a block are one array, one after another along the first axis of their shapes. Every other
        parameter is an array by itself.
        """
        groups = [group for record in self._records(num_outputs) for group in record.groups()]
        return tuple(parameters for group in groups for parameters in zip(*(m.parameters for m in group), strict=True))

    def _records(self, num_outputs: int) -> Iterator[_Modules]:
        yield self.embedding_modules()
        for index in range(1 if self.shared_blocks else self.num_hidden_layers):
            yield self.block_modules(index)
        yield self.head_modules(num_outputs)

    def with_dropout(self, rate: float | None) -> "Blueprint":
        """Return the same encoder with `rate` wherever it has dropout; with None, as it is."""
        return self if rate is None else replace(self, dropout=self.dropout.at(rate))

    def features(self) -> set[Feature]:
        """Return what this encoder has and BERT has not."""
        blocks, embeddings = self.blocks, self.embeddings
        norms = [*(block.norm for block in blocks), embeddings.norm, self.final_norm, self.head.norm]
        present = {
            Feature.NORM_BEFORE: any(block.norm_first for block in blocks),
            Feature.RMS_NORM: any(norm.kind == "rms" for norm in norms if norm),
            Feature.NORM_WITHOUT_BIAS: any(not norm.bias for norm in norms if norm),
            Feature.NO_EMBEDDING_NORM: embeddings.norm is None,
            Feature.FINAL_NORM: self.final_norm is not None,
            Feature.HEAD_NORM: self.head.norm is not None,
            Feature.PRODUCT_WITHOUT_BIAS: not all(module.bias for module in self.modules(1) if module.role == "matrix"),
            Feature.GATED: any(block.feed_forward.gated for block in blocks),
            Feature.GROUPED_QUERIES: any(b.attention.num_key_heads != b.attention.num_heads for b in blocks),
            Feature.NO_POSITION_TABLE: embeddings.first_position is None,
            Feature.WINDOW: any(block.attention.window is not None for block in blocks),
            Feature.MEAN_POOLING: self.pooling == "mean",
            Feature.SHARED_BLOCKS: self.shared_blocks,
        }
        of_positions = {feature for block in blocks if (feature := block.attention.positions.feature)}
        return of_positions.union(feature for feature, is_present in present.items() if is_present)


def check_features(blueprint: Blueprint, computed: frozenset[Feature], engine: str) -> None:
    """Refuse an encoder that `engine` would compute wrongly.

    Args:
        computed: what the engine computes beyond BERT's encoder.

    Raises:
        CheckpointError: the encoder has other features.
    """
    missing = [feature.value for feature in Feature if feature in blueprint.features() - computed]
    if missing:
        *others, last = missing
        named = f"{', '.join(others)} and {last}" if others else last
        raise CheckpointError(f"The model has {named}, which {engine} does not compute: choose another model.")
