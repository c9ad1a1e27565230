"""XLM-RoBERTa: RoBERTa in a hundred languages, with other defaults."""

from typing import Final

from isinglass.models.families.bert import bert_names
from isinglass.models.families.family import Family, Size
from isinglass.models.families.roberta import RobertaConfig, roberta_blueprint


class XlmRobertaConfig(RobertaConfig):
    """What is read of XLM-RoBERTa's `config.json`."""

    vocab_size: Size = 30522  # the class's default; published checkpoints say 250002


XLM_ROBERTA: Final = Family(
    model_type="xlm-roberta",
    architecture="XLMRobertaForSequenceClassification",
    prefix="roberta",
    names=bert_names("roberta", dense="classifier.dense", output="classifier.out_proj"),
    ignored=("lm_head", "pooler"),
    build=lambda values, origin: roberta_blueprint(XlmRobertaConfig.read(values, origin)),
)
