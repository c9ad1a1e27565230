"""DistilBERT: BERT's encoder without token types and without dropout after attention, under other names."""

from collections.abc import Mapping
from typing import Any, Final

from isinglass.models.blueprint import Attention, Block, Blueprint, Dropout, Embeddings, FeedForward, Head, Norm
from isinglass.models.families.family import Activation, ConfigJson, Family, NumBlocks, Rate, Size, TokenId


class DistilBertConfig(ConfigJson):
    """What is read of DistilBERT's `config.json`."""

    vocab_size: Size = 30522
    dim: Size = 768
    n_layers: NumBlocks = 6
    n_heads: Size = 12
    hidden_dim: Size = 3072
    activation: Activation = "gelu"
    dropout: Rate = 0.1
    attention_dropout: Rate = 0.1
    seq_classif_dropout: Rate = 0.2
    max_position_embeddings: Size = 512
    pad_token_id: TokenId = 0
    initializer_range: Rate = 0.02


def _build(values: Mapping[str, Any], origin: str) -> Blueprint:
    config = DistilBertConfig.read(values, origin)
    norm = Norm(epsilon=1e-12)
    block = Block(
        attention=Attention(num_heads=config.n_heads, num_key_heads=config.n_heads),
        feed_forward=FeedForward(size=config.hidden_dim, activation=config.activation),
        norm=norm,
    )
    return Blueprint(
        hidden_size=config.dim,
        max_length=config.max_position_embeddings,
        embeddings=Embeddings(
            vocab_size=config.vocab_size,
            size=config.dim,
            pad_token_id=config.pad_token_id or 0,
            first_position=0,
            token_types=0,
            norm=norm,
        ),
        blocks=(block,) * config.n_layers,
        head=Head(activation="relu"),
        dropout=Dropout(
            embeddings=config.dropout,
            attention_weights=config.attention_dropout,
            attention_output=None,
            feed_forward=config.dropout,
            head_input=None,
            head=config.seq_classif_dropout,
        ),
        initializer_range=config.initializer_range,
    )


_BLOCK: Final = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}

DISTILBERT: Final = Family(
    model_type="distilbert",
    architecture="DistilBertForSequenceClassification",
    prefix="distilbert",
    names={
        "embeddings": "distilbert.embeddings",
        "head.dense": "pre_classifier",
        "head.output": "classifier",
        **{f"encoder.layer.{{i}}.{ours}": f"distilbert.transformer.layer.{{i}}.{theirs}" for ours, theirs in _BLOCK.items()},
    },
    ignored=("vocab_transform", "vocab_layer_norm", "vocab_projector"),
    build=_build,
)
