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

    def module(self, name: str, size: int, depth: int) -> Module:
        """Return the norm of vectors of `size` elements, under a name."""
        return Module(name=name, role="norm", shape=(size,), bias=self.bias, depth=depth)


class Positions:
    """How attention knows the distance between two tokens."""

    feature: ClassVar[Feature | None] = None
    has_products: ClassVar[bool] = False

    def shared_modules(self, blueprint: "Blueprint") -> tuple[Module, ...]:  # noqa: ARG002 - most have none
        """Return what all blocks share."""
        return ()


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
    """Each head adds a learned bias for each bucket of distances (T5, MPNet); all blocks share one table.

    Attributes:
        buckets: of both directions together.
        max_distance: in tokens; longer ones are in the last bucket.
    """

    feature = Feature.BUCKETED
    buckets: int
    max_distance: int

    def shared_modules(self, blueprint: "Blueprint") -> tuple[Module, ...]:
        """Return the table of biases."""
        return (_table("encoder.relative_attention_bias", self.buckets, blueprint.num_attention_heads),)


@dataclass(frozen=True, kw_only=True)
class Disentangled(Positions):
    """Scores between contents and learned embeddings of distances are added (DeBERTa); all blocks share the embeddings.

    Attributes:
        buckets: of one direction; the table has twice as many rows.
        max_distance: in tokens; longer ones are in the last bucket.
        content_to_position: whether queries meet the keys of distances.
        position_to_content: whether keys meet the queries of distances.
        has_products: whether distances have query and key products of their own, not those of the contents.
        norm: of the embeddings of distances.
        dropout: rate for the embeddings of distances, drawn anew in each block.
    """

    feature = Feature.DISENTANGLED
    buckets: int
    max_distance: int
    content_to_position: bool = True
    position_to_content: bool = True
    has_products: bool = False  # type: ignore[misc] # a constant of the others
    norm: Norm | None = None
    dropout: float | None = None

    def shared_modules(self, blueprint: "Blueprint") -> tuple[Module, ...]:
        """Return the embeddings of distances, and their norm."""
        table = _table("encoder.rel_embeddings", 2 * self.buckets, blueprint.hidden_size)
        if self.norm is None:
            return (table,)
        return table, self.norm.module("encoder.LayerNorm", blueprint.hidden_size, 0)


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """What tokens are before the first block: the sum of up to three embeddings.

    Dropout rates are None where the architecture has no dropout, here and below.

    Attributes:
        vocab_size: V.
        size: E; projected to H where the two differ.
        pad_token_id: fills gaps; its embedding gets no gradient.
        first_position: the position id of an example's first token; None: no table of positions.
        token_types: number of token types; 0: no such table.
        norm: of the sum.
        projection_bias: of the projection to H, where there is one.
        dropout: rate after the norm.
    """

    vocab_size: int
    size: int
    pad_token_id: int
    first_position: int | None
    token_types: int
    norm: Norm | None
    projection_bias: bool = True
    dropout: float | None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The first sublayer of a block.

    Attributes:
        num_heads: N, of the queries.
        num_key_heads: of keys and values, which several queries share where they are fewer.
        bias: whether the products have biases.
        positions: how distances between tokens count.
        window: the farthest that a token sees, in tokens to either side; None: all of its example.
        dropout: rate for the attention weights.
        output_dropout: rate for the result, before it is added to what the sublayer took.
    """

    num_heads: int
    num_key_heads: int
    bias: bool = True
    positions: Positions = Absolute()
    window: int | None = None
    dropout: float | None
    output_dropout: float | None


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """The second sublayer of a block.

    Attributes:
        size: F.
        activation: a value of ACTIVATIONS in `families/family.py`.
        gated: whether the activated product is multiplied by another one.
        bias: whether the products have biases.
        dropout: rate for the result, before it is added to what the sublayer took.
    """

    size: int
    activation: str
    gated: bool = False
    bias: bool = True
    dropout: float | None


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
        input_dropout: rate before the dense product.
        dropout: rate before the output.
    """

    activation: str
    bias: bool = True
    norm: Norm | None = None
    input_dropout: float | None
    dropout: float | None


@dataclass(frozen=True, kw_only=True)
class EmbeddingModules:
    """The modules of the embeddings, in the order of their parameters; `distances` are those that all blocks share."""

    token: Module
    position: Module | None
    token_type: Module | None
    norm: Module | None
    projection: Module | None
    distances: tuple[Module, ...]

    def __iter__(self) -> Iterator[Module]:
        optional = (self.position, self.token_type, self.norm, self.projection)
        yield self.token
        yield from (module for module in optional if module is not None)
        yield from self.distances


@dataclass(frozen=True, kw_only=True)
class BlockModules:
    """The modules of a block, in the order of their parameters."""

    query: Module
    key: Module
    value: Module
    position_products: tuple[Module, ...]
    attention_output: Module
    attention_norm: Module | None
    intermediate: Module
    gate: Module | None
    output: Module
    output_norm: Module

    def __iter__(self) -> Iterator[Module]:
        yield from (self.query, self.key, self.value, *self.position_products, self.attention_output)
        optional = (self.attention_norm, self.intermediate, self.gate, self.output, self.output_norm)
        yield from (module for module in optional if module is not None)


@dataclass(frozen=True, kw_only=True)
class HeadModules:
    """The modules of the head, in the order of their parameters."""

    dense: Module
    norm: Module | None
    output: Module

    def __iter__(self) -> Iterator[Module]:
        yield self.dense
        if self.norm is not None:
            yield self.norm
        yield self.output


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
        """Return the modules of depth 0."""
        spec, E = self.embeddings, self.embeddings.size
        position = token_type = norm = projection = None
        if spec.first_position is not None:
            position = _table("embeddings.position_embeddings", spec.first_position + self.max_length, E)
        if spec.token_types:
            token_type = _table("embeddings.token_type_embeddings", spec.token_types, E)
        if spec.norm is not None:
            norm = spec.norm.module("embeddings.LayerNorm", E, 0)
        if self.hidden_size != E:
            projection = _matrix("embeddings_project", self.hidden_size, E, 0, bias=spec.projection_bias)
        return EmbeddingModules(
            token=_table("embeddings.word_embeddings", spec.vocab_size, E),
            position=position,
            token_type=token_type,
            norm=norm,
            projection=projection,
            distances=self.blocks[0].attention.positions.shared_modules(self),
        )

    def block_modules(self, index: int) -> BlockModules:
        """Return the modules of a block, counted from 0."""
        index = 0 if self.shared_blocks else index
        block, at, depth, H = self.blocks[index], f"encoder.layer.{index}", index + 1, self.hidden_size
        attention, feed_forward = block.attention, block.feed_forward

        def product(name: str, outputs: int, inputs: int = H, *, bias: bool = attention.bias) -> Module:
            return _matrix(f"{at}.{name}", outputs, inputs, depth, bias=bias)

        key_size = attention.num_key_heads * (H // attention.num_heads)
        attention_norm = gate = None
        position_products: tuple[Module, ...] = ()
        if attention.positions.has_products:
            position_products = product("attention.self.pos_key_proj", H), product("attention.self.pos_query_proj", H)
        if block.norm_before_attention:
            attention_norm = block.norm.module(f"{at}.attention.output.LayerNorm", H, depth)
        if feed_forward.gated:
            gate = product("intermediate.gate", feed_forward.size, bias=feed_forward.bias)
        return BlockModules(
            query=product("attention.self.query", H),
            key=product("attention.self.key", key_size),
            value=product("attention.self.value", key_size),
            position_products=position_products,
            attention_output=product("attention.output.dense", H),
            attention_norm=attention_norm,
            intermediate=product("intermediate.dense", feed_forward.size, bias=feed_forward.bias),
            gate=gate,
            output=product("output.dense", H, feed_forward.size, bias=feed_forward.bias),
            output_norm=block.norm.module(f"{at}.output.LayerNorm", H, depth),
        )

    def head_modules(self, num_outputs: int) -> HeadModules:
        """Return the modules of the head, for K outputs."""
        H, depth = self.hidden_size, self.num_hidden_layers + 1
        norm = self.head.norm
        return HeadModules(
            dense=_matrix(HEAD_DENSE, H, H, depth, bias=self.head.bias),
            norm=None if norm is None else norm.module("head.LayerNorm", H, depth),
            output=_matrix(HEAD_OUTPUT, num_outputs, H, depth, bias=True),
        )

    def modules(self, num_outputs: int) -> tuple[Module, ...]:
        """Return all modules from the embeddings to the head, for K outputs."""
        modules = [*self.embedding_modules()]
        for index in range(1 if self.shared_blocks else self.num_hidden_layers):
            modules += self.block_modules(index)
        if self.final_norm is not None:
            modules.append(self.final_norm.module("encoder.final_norm", self.hidden_size, self.num_hidden_layers))
        return (*modules, *self.head_modules(num_outputs))

    def parameters(self, num_outputs: int) -> tuple[Parameter, ...]:
        """Return all parameters from the embeddings to the head, for K outputs."""
        return tuple(parameter for module in self.modules(num_outputs) for parameter in module.parameters)

    def variables(self, num_outputs: int) -> tuple[tuple[Parameter, ...], ...]:
        """Return the parameters as the backends store them: query, key and value of a block as one array, in that order.

        The arrays of a group lie one after another along the first axis of their shapes. Most groups have one parameter.
        """
        fused: dict[str, tuple[Module, ...]] = {}
        for index in range(self.num_hidden_layers):
            modules = self.block_modules(index)
            fused |= {modules.query.name: (modules.query, modules.key, modules.value)}
            fused |= {modules.key.name: (), modules.value.name: ()}
        groups = [fused.get(module.name, (module,)) for module in self.modules(num_outputs)]
        return tuple(
            parameters for group in groups if group for parameters in zip(*(m.parameters for m in group), strict=True)
        )

    def with_dropout(self, rate: float | None) -> "Blueprint":
        """Return the same encoder with `rate` wherever it has dropout; with None, as it is."""
        if rate is None:
            return self

        def changed(old: float | None) -> float | None:
            return None if old is None else rate

        blocks = tuple(
            replace(
                block,
                attention=replace(
                    block.attention,
                    dropout=changed(block.attention.dropout),
                    output_dropout=changed(block.attention.output_dropout),
                ),
                feed_forward=replace(block.feed_forward, dropout=changed(block.feed_forward.dropout)),
            )
            for block in self.blocks
        )
        return replace(
            self,
            embeddings=replace(self.embeddings, dropout=changed(self.embeddings.dropout)),
            blocks=blocks,
            head=replace(self.head, input_dropout=changed(self.head.input_dropout), dropout=changed(self.head.dropout)),
        )

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
