"""ELECTRA: BERT's encoder with smaller embeddings, and a head of its own."""

from typing import Final

from isinglass.models.blueprint import Blueprint
from isinglass.models.families.bert import BertConfig, bert_names
from isinglass.models.families.family import Family, Size


class ElectraConfig(BertConfig):
    """What is read of ELECTRA's `config.json`."""

    embedding_size: Size = 128
    hidden_size: Size = 256
    num_attention_heads: Size = 4
    intermediate_size: Size = 1024

    def blueprint(self) -> Blueprint:
        """Return ELECTRA's encoder and head."""
        return self.encoder(head="gelu", head_input=self.head_dropout, size=self.embedding_size)


ELECTRA: Final = Family(
    model_type="electra",
    architecture="ElectraForSequenceClassification",
    prefix="electra",
    names=bert_names("electra", dense="classifier.dense", output="classifier.out_proj"),
    ignored=("discriminator_predictions", "generator_predictions", "generator_lm_head"),
    config=ElectraConfig,
)
