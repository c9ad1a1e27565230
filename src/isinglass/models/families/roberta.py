"""RoBERTa: BERT's encoder, positions counted from the pad id on, and a head of its own."""

from collections.abc import Mapping
from typing import Any, Final

from isinglass.models.blueprint import Blueprint, Head
from isinglass.models.families.bert import BertConfig, bert_blueprint, bert_names
from isinglass.models.families.family import Family, Size, TokenId


class RobertaConfig(BertConfig):
    """What is read of RoBERTa's `config.json`."""

    vocab_size: Size = 50265
    pad_token_id: TokenId = 1


def roberta_blueprint(config: BertConfig) -> Blueprint:
    """Return an encoder laid out like RoBERTa."""
    rate = config.head_dropout
    head = Head(activation="tanh", input_dropout=rate, dropout=rate)
    return bert_blueprint(config, head, first_position=(config.pad_token_id or 0) + 1)


def _build(values: Mapping[str, Any], origin: str) -> Blueprint:
    return roberta_blueprint(RobertaConfig.read(values, origin))


ROBERTA: Final = Family(
    model_type="roberta",
    architecture="RobertaForSequenceClassification",
    prefix="roberta",
    names=bert_names("roberta", dense="classifier.dense", output="classifier.out_proj"),
    ignored=("lm_head", "pooler"),
    build=_build,
)
