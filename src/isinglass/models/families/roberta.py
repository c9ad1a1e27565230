"""RoBERTa: BERT's encoder, positions counted from the pad id on, and a head of its own."""

from typing import Final

from isinglass.models.blueprint import Blueprint
from isinglass.models.families.bert import BertConfig, bert_blueprint, bert_names
from isinglass.models.families.family import Family, Size, TokenId


class RobertaConfig(BertConfig):
    """What is read of RoBERTa's `config.json`."""

    vocab_size: Size = 50265
    pad_token_id: TokenId = 1


def roberta_blueprint(config: RobertaConfig) -> Blueprint:
    """Return an encoder laid out like RoBERTa."""
    first_position = (config.pad_token_id or 0) + 1
    return bert_blueprint(config, head_input_dropout=config.head_dropout, first_position=first_position)


ROBERTA: Final = Family(
    model_type="roberta",
    architecture="RobertaForSequenceClassification",
    prefix="roberta",
    names=bert_names("roberta", dense="classifier.dense", output="classifier.out_proj"),
    ignored=("lm_head", "pooler"),
    build=lambda values, origin: roberta_blueprint(RobertaConfig.read(values, origin)),
)
