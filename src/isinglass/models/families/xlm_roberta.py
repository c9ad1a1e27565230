"""XLM-RoBERTa: RoBERTa in a hundred languages, with other defaults."""

from collections.abc import Mapping
from typing import Any, Final

from isinglass.models.blueprint import Blueprint
from isinglass.models.families.bert import bert_names
from isinglass.models.families.family import Family, Size
from isinglass.models.families.roberta import RobertaConfig, roberta_blueprint


class XlmRobertaConfig(RobertaConfig):
    """What is read of XLM-RoBERTa's `config.json`."""

    vocab_size: Size = 30522  # the class's default; published checkpoints say 250002


def _build(values: Mapping[str, Any], origin: str) -> Blueprint:
    return roberta_blueprint(XlmRobertaConfig.read(values, origin))


XLM_ROBERTA: Final = Family(
    model_type="xlm-roberta",
    architecture="XLMRobertaForSequenceClassification",
    prefix="roberta",
    names=bert_names("roberta", dense="classifier.dense", output="classifier.out_proj"),
    ignored=("lm_head", "pooler"),
    build=_build,
)
