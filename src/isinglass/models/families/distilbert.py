"""DistilBERT: BERT's encoder without token types and without dropout after attention, under other names."""

from dataclasses import replace
from typing import ClassVar, Final

from pydantic import Field

from isinglass.models.blueprint import Blueprint
from isinglass.models.families.bert import BertConfig
from isinglass.models.families.family import Activation, Family, NumBlocks, Rate, Size


class DistilBertConfig(BertConfig):
    """What is read of DistilBERT's `config.json`."""

    hidden_size: Size = Field(768, alias="dim")
    num_hidden_layers: NumBlocks = Field(6, alias="n_layers")
    num_attention_heads: Size = Field(12, alias="n_heads")
    intermediate_size: Size = Field(3072, alias="hidden_dim")
    hidden_act: Activation = Field("gelu", alias="activation")
    hidden_dropout_prob: Rate = Field(0.1, alias="dropout")
    attention_probs_dropout_prob: Rate = Field(0.1, alias="attention_dropout")
    seq_classif_dropout: Rate = 0.2
    layer_norm_eps: ClassVar[float] = 1e-12  # type: ignore[misc] # fixed: not read
    classifier_dropout: ClassVar[None] = None  # type: ignore[misc]
    type_vocab_size: ClassVar[int] = 0  # type: ignore[misc]

    def blueprint(self) -> Blueprint:
        """Return DistilBERT's encoder and head."""
        encoder = self.encoder(head="relu")
        return replace(encoder, dropout=replace(encoder.dropout, attention_output=None, head=self.seq_classif_dropout))


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
    config=DistilBertConfig,
)
