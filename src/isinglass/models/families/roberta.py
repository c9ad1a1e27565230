"""RoBERTa: BERT's encoder, positions counted from the pad id on, and a head of its own."""

from typing import Final

from isinglass.models.blueprint import Blueprint
from isinglass.models.families.bert import BertConfig, bert_names
from isinglass.models.families.family import Family, Size, TokenId


class RobertaConfig(BertConfig):
    """What is read of RoBERTa's `config.json`."""

    vocab_size: Size = 50265
    pad_token_id: TokenId = 1

    def blueprint(self) -> Blueprint:
        """Return RoBERTa's encoder and head."""
        return self.encoder(head="tanh", head_input=self.head_dropout, first_position=(self.pad_token_id or 0) + 1)


ROBERTA: Final = Family(
    model_type="roberta",
    architecture="RobertaForSequenceClassification",
    prefix="roberta",
    names=bert_names("roberta", dense="classifier.dense", output="classifier.out_proj"),
    ignored=("lm_head", "pooler"),
    config=RobertaConfig,
)
