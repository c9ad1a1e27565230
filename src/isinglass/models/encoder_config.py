"""What shapes an encoder, read from a checkpoint's `config.json`. Every value in it counts, or is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from isinglass.errors import CheckpointError
from isinglass.models.families import FAMILIES, Family, get_family
from isinglass.names import brief

MAX_SIZE: Final = 2**31 - 1  # token ids are int32

# `hidden_act` as checkpoints spell it -> what it computes. The tanh form is the same under three names.
ACTIVATIONS: Final[Mapping[str, str]] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes and constants of one encoder, under BERT's names for every family.

    Attributes:
        embedding_size: width of the embeddings; projected to `hidden_size` where the two differ (ELECTRA).
        hidden_act: a key of ACTIVATIONS.
        classifier_dropout: rate in the head.
        pad_token_id: fills gaps; its embedding gets no gradient.
        position_offset: the position id of an example's first token.
        type_vocab_size: 0 if the family has no token types.
    """

    model_type: str
    vocab_size: int
    embedding_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    classifier_dropout: float
    layer_norm_eps: float
    max_position_embeddings: int
    position_offset: int
    type_vocab_size: int
    pad_token_id: int
    initializer_range: float

    @property
    def family(self) -> Family:
        """The entry of FAMILIES."""
        return FAMILIES[self.model_type]

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_length(self) -> int:
        """Most tokens that an example may have: the positions the checkpoint has embeddings for."""
        return self.max_position_embeddings - self.position_offset

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name -> shape of every parameter of the encoder and of `head.dense`.

        `head.output` is not among them: its height is the task's.
        """
        H, E, F = self.hidden_size, self.embedding_size, self.intermediate_size
        linear = {
            "attention.self.query": (H, H),
            "attention.self.key": (H, H),
            "attention.self.value": (H, H),
            "attention.output.dense": (H, H),
            "attention.output.LayerNorm": (H,),
            "intermediate.dense": (F, H),
            "output.dense": (H, F),
            "output.LayerNorm": (H,),
        }
        weights: dict[str, tuple[int, ...]] = {
            "embeddings.LayerNorm": (E,),
            **({"embeddings_project": (H, E)} if E != H else {}),
            **{f"encoder.layer.{i}.{name}": s for i in range(self.num_hidden_layers) for name, s in linear.items()},
            "head.dense": (H, H),
        }
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocab_size, E),
            "embeddings.position_embeddings.weight": (self.max_position_embeddings, E),
            **({"embeddings.token_type_embeddings.weight": (self.type_vocab_size, E)} if self.type_vocab_size else {}),
        }
        for name, shape in weights.items():
            shapes[f"{name}.weight"] = shape
            shapes[f"{name}.bias"] = shape[:1]
        return shapes

    def with_dropout(self, rate: float | None) -> "EncoderConfig":
        """The same encoder with all three dropout rates at `rate`; None keeps them."""
        if rate is None:
            return self
        return replace(self, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate, classifier_dropout=rate)

    @staticmethod
    def from_json(values: Mapping[str, Any], origin: str) -> "EncoderConfig":
        """Read the values of a `config.json`.

        Args:
            origin: the file, for messages.

        Raises:
            CheckpointError: the architecture is not served, a value is of the wrong kind or out of range, or asks for
                something that is not built (relative positions, decoders).
        """
        family = get_family(values.get("model_type"), origin)
        _refuse_unbuilt(values, origin)
        found: dict[str, Any] = {"type_vocab_size": 0, "layer_norm_eps": 1e-12}
        for field, (key, default) in family.config_keys.items():
            found[field] = values.get(key, default)
        if found["classifier_dropout"] is None:
            found["classifier_dropout"] = found["hidden_dropout_prob"]
        if found["pad_token_id"] is None:
            found["pad_token_id"] = 0
        found.setdefault("embedding_size", found["hidden_size"])
        for item in fields(EncoderConfig):
            if item.name in found:
                key, _ = family.config_keys.get(item.name, (item.name, None))
                found[item.name] = _checked(key, found[item.name], item.type, origin)
        found["position_offset"] = found["pad_token_id"] + 1 if family.positions_from_pad else 0
        config = EncoderConfig(model_type=family.model_type, **found)
        if config.hidden_size % config.num_attention_heads:
            raise CheckpointError(
                f"{origin}: hidden_size {config.hidden_size} is not a multiple of the {config.num_attention_heads} heads."
            )
        if config.hidden_act not in ACTIVATIONS:
            raise CheckpointError(
                f"{origin}: the activation is {brief(config.hidden_act)}; served are {', '.join(ACTIVATIONS)}."
            )
        if config.max_length < 1 or config.pad_token_id >= config.vocab_size:
            raise CheckpointError(
                f"{origin}: pad_token_id {config.pad_token_id} does not fit vocab_size {config.vocab_size} and "
                f"max_position_embeddings {config.max_position_embeddings}."
            )
        return config


def _refuse_unbuilt(values: Mapping[str, Any], origin: str) -> None:
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(
            f"{origin}: position_embedding_type is {brief(values['position_embedding_type'])}; only 'absolute' is served."
        )
    for key in ("is_decoder", "add_cross_attention", "sinusoidal_pos_embds"):
        if values.get(key):
            raise CheckpointError(
                f"{origin}: {key} is {brief(values[key])}; only encoders with learned positions are served."
            )


def _checked(key: str, value: Any, kind: object, origin: str) -> Any:
    """`value` as `kind`, or an error: sizes are positive whole numbers, rates lie in [0, 1)."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str:
        good, expected = isinstance(value, str), "a name"
    elif kind is int:
        least = 0 if key in ("pad_token_id", "type_vocab_size") else 1
        good = is_number and isinstance(value, int) and least <= value <= MAX_SIZE
        expected = f"a whole number from {least} to {MAX_SIZE}"
    else:
        good, expected = is_number and 0 <= value < 1, "a number from 0 to 1"
    if not good:
        raise CheckpointError(f"{origin}: {key} is {brief(value)}; {expected} was expected.")
    return float(value) if kind is float else value
