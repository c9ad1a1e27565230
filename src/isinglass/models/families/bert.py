"""BERT, and the layout that other families share with it."""

from typing import Final

from isinglass.models.blueprint import Block, Blueprint, Dropout, Embeddings, Head, Norm
from isinglass.models.families.family import Activation, ConfigJson, Family, NumBlocks, OptionalRate, Rate, Size, TokenId


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

    def blueprint(self) -> Blueprint:
        """Return BERT's encoder and head."""
        return self.encoder(head="tanh")

    def encoder(self, *, head: str, head_input: float | None = None, size: int = 0, first_position: int = 0) -> Blueprint:
        """Return an encoder laid out like BERT.

        Args:
            head: the head's activation.
            head_input: dropout rate before the head's dense product; None: no dropout.
            size: of the embeddings; 0: the hidden size.
            first_position: the position id of an example's first token.
        """
        norm, heads = Norm(epsilon=self.layer_norm_eps), self.num_attention_heads
        block = Block(
            num_heads=heads,
            num_key_heads=heads,
            inner_size=self.intermediate_size,
            activation=self.hidden_act,
            norm=norm,
        )
        return Blueprint(
            hidden_size=self.hidden_size,
            max_length=self.max_position_embeddings - first_position,
            embeddings=Embeddings(
                vocab_size=self.vocab_size,
                size=size or self.hidden_size,
                pad_token_id=self.pad_token_id or 0,
                first_position=first_position,
                token_types=self.type_vocab_size,
                norm=norm,
            ),
            blocks=(block,) * self.num_hidden_layers,
            head=Head(activation=head),
            dropout=Dropout(
                embeddings=self.hidden_dropout_prob,
                attention_weights=self.attention_probs_dropout_prob,
                attention_output=self.hidden_dropout_prob,
                feed_forward=self.hidden_dropout_prob,
                head_input=head_input,
                head=self.head_dropout,
            ),
            initializer_range=self.initializer_range,
        )


def bert_names(prefix: str, dense: str, output: str) -> dict[str, str]:
    """Return the spellings of an encoder laid out like BERT, and of its head's two products."""
    body = {part: f"{prefix}.{part}" for part in ("embeddings", "embeddings_project", "encoder")}
    return {**body, "head.dense": dense, "head.output": output}


BERT: Final = Family(
    model_type="bert",
    architecture="BertForSequenceClassification",
    prefix="bert",
    names=bert_names("bert", dense="bert.pooler.dense", output="classifier"),
    ignored=("cls",),
    config=BertConfig,
)
