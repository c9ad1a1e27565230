"""XLM-RoBERTa: RoBERTa in a hundred languages, with other defaults."""

from dataclasses import replace
from typing import Final

from isinglass.models.families.family import Family, Size
from isinglass.models.families.roberta import ROBERTA, RobertaConfig


class XlmRobertaConfig(RobertaConfig):
    """What is read of XLM-RoBERTa's `config.json`."""

    vocab_size: Size = 30522  # the class's default; published checkpoints say 250002


XLM_ROBERTA: Final[Family] = replace(
    ROBERTA,
    model_type="xlm-roberta",
    architecture="XLMRobertaForSequenceClassification",
    config=XlmRobertaConfig,
)
