"""BERT, and the layout that other families share with it."""

from collections.abc import Mapping
from typing import Any, Final

from isinglass.models.blueprint import Attention, Block, Blueprint, Embeddings, FeedForward, Head, Norm
from isinglass.models.families.family import (
    Activation,
    ConfigJson,
    Family,
    NumBlocks,
    OptionalRate,
    Rate,
    Size,
    TokenId,
)


class BertConfig(ConfigJson):
    """What is read of BERT's `config.json`."""

    vocab_size: Size = 30522
    hidden_size: Size = 768
    num_hidden_layers: NumBlocks = 12
    num_attention_heads: Size = 12
    intermediate_size: Size = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Rate = 0.1
    attention_probs_dropout_prob: Rate = 0.1
    classifier_dropout: OptionalRate = None
    layer_norm_eps: Rate = 1e-12
    max_position_embeddings: Size = 512
    type_vocab_size: Size = 2
    pad_token_id: TokenId = 0
    initializer_range: Rate = 0.02

    @property
    def head_dropout(self) -> float:
        """The head's dropout rate, which is the hidden layers' where it is not set."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


def bert_blueprint(
    config: BertConfig, head: Head, *, embedding_size: int | None = None, first_position: int = 0
) -> Blueprint:
    """Return an encoder laid out like BERT.

    Args:
        embedding_size: None: the hidden size.
        first_position: the position id of an example's first token.
    """
    norm, rate = Norm(epsilon=config.layer_norm_eps), config.hidden_dropout_prob
    block = Block(
        attention=Attention(
            num_heads=config.num_attention_heads,
            num_key_heads=config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
            output_dropout=rate,
        ),
        feed_forward=FeedForward(size=config.intermediate_size, activation=config.hidden_act, dropout=rate),
        norm=norm,
    )
    return Blueprint(
        hidden_size=config.hidden_size,
        max_length=config.max_position_embeddings - first_position,
        embeddings=Embeddings(
            vocab_size=config.vocab_size,
            size=embedding_size or config.hidden_size,
            pad_token_id=config.pad_token_id or 0,
            first_position=first_position,
            token_types=config.type_vocab_size,
            norm=norm,
            dropout=rate,
        ),
        blocks=(block,) * config.num_hidden_layers,
        head=head,
        initializer_range=config.initializer_range,
    )


def bert_names(prefix: str, dense: str, output: str) -> dict[str, str]:
    """Return the spellings of an encoder laid out like BERT, and of its head's two products."""
    body = {part: f"{prefix}.{part}" for part in ("embeddings", "embeddings_project", "encoder")}
    return {**body, "head.dense": dense, "head.output": output}


def _build(values: Mapping[str, Any], origin: str) -> Blueprint:
    config = BertConfig.read(values, origin)
    return bert_blueprint(config, Head(activation="tanh", input_dropout=None, dropout=config.head_dropout))


BERT: Final = Family(
    model_type="bert",
    architecture="BertForSequenceClassification",
    prefix="bert",
    names=bert_names("bert", dense="bert.pooler.dense", output="classifier"),
    ignored=("cls",),
    build=_build,
)
